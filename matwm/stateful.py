"""Says what training state is made of, takes it apart into tensors and plain values, and fingerprints it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from torch import Tensor

Arrays = Mapping[str, np.ndarray]


class Chunk:
    """An immutable stretch of bulk data that checkpoints share, named by the digest of its bytes.

    `digest` is None until the bytes have been computed, written or read once; from then on it never changes.
    A function in place of the arrays is called at every look, so that what lies elsewhere is not held in memory twice.
    """

    def __init__(self, arrays: Arrays | Callable[[], Arrays], digest: str | None = None) -> None:
        self._arrays = arrays
        self.digest = digest

    @property
    def arrays(self) -> Arrays:
        """The data: look once and keep what you get."""
        return self._arrays() if callable(self._arrays) else self._arrays

    @property
    def is_held(self) -> bool:
        """True while the arrays lie in this object's own memory."""
        return not callable(self._arrays)


Value = Tensor | Chunk | bool | int | float | str | None | Mapping[str, "Value"] | Sequence["Value"]
State = Mapping[str, Value]


class Stateful(Protocol):
    """Something whose state belongs in a checkpoint. No defaults: a class that forgets to save does not type-check."""

    def state_dict(self) -> State:
        """Return everything that the future depends on and the configuration does not determine."""
        ...

    def load_state_dict(self, state: State, /) -> object:
        """Take over a saved state, copying into existing tensors; raise ValueError if it does not fit."""
        ...
