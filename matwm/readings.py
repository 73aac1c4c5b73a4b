"""Keeps what an update has to tell where it was computed until somebody looks, so that the host need not wait for a GPU."""

import math
from collections.abc import Sequence
from functools import cached_property

from jaxtyping import Bool, Float
from torch import Tensor

from matwm.errors import UserError


class NonFiniteLossError(UserError, ArithmeticError):
    """Training diverged: `term` is the first loss term that is not finite, `step` the environment step."""

    def __init__(self, term: str, step: int | None = None) -> None:
        at = "" if step is None else f" at environment step {step}"
        super().__init__(f"{term} is not finite{at}: training has diverged (try a lower learning rate); saved checkpoints stay")
        self.term, self.step = term, step


class Readings:
    """Numbers by name, which come to the host together when the first is asked for."""

    def __init__(self, names: Sequence[str], values: Float[Tensor, " n"]) -> None:
        self._names, self._values = names, values

    @cached_property
    def numbers(self) -> dict[str, float]:
        """All of them.

        Raises:
            NonFiniteLossError: names the first that is not finite.
        """
        numbers = dict(zip(self._names, self._values.tolist(), strict=True))
        for name, number in numbers.items():
            if not math.isfinite(number):
                raise NonFiniteLossError(name)
        return numbers

    def check(self) -> None:
        """Raise NonFiniteLossError if one of them is not finite."""
        _ = self.numbers

    def __getitem__(self, name: str) -> float:
        return self.numbers[name]

    def clone(self) -> "Readings":
        """Return the same in memory of their own."""
        return Readings(self._names, self._values.clone())

    def are_finite(self) -> Bool[Tensor, ""]:
        """Return whether they are, where they are: the host does not look."""
        return self._values.isfinite().all()
