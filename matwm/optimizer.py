"""Steps parameters by Adam, whose state is data."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from matwm.stateful import State, Value


class NamedAdam:
    """Adam whose state is tensors by parameter name, and whose hyperparameters always come from the configuration."""

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        *,
        learning_rate: float,
        betas: Sequence[float],
        epsilon: float,
        own_rates: Mapping[tuple[str, ...], float] | None = None,
        capturable: bool = False,
    ) -> None:
        """Parameters below names in `own_rates` learn at the rate beside them, in a group of their own after the first."""
        self.named = dict(named)
        own = {
            below: [p for name, p in self.named.items() if name.startswith(tuple(f"{one}." for one in below))] for below in own_rates or {}
        }
        apart = {id(parameter) for group in own.values() for parameter in group}
        groups: list[dict[str, Any]] = [{"params": [p for p in self.named.values() if id(p) not in apart]}]
        groups += [{"params": own[below], "lr": rate} for below, rate in (own_rates or {}).items()]
        self.adam = torch.optim.Adam(groups, lr=learning_rate, betas=(betas[0], betas[1]), eps=epsilon, fused=True, capturable=capturable)
        for parameter in self.named.values():
            self.adam.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }

    @property
    def learning_rate(self) -> float:
        """The step size in force, but for own rates."""
        return self.adam.param_groups[0]["lr"]

    def step(self, unless: Tensor | None = None) -> None:
        """Apply the gradients and drop them; where `unless` is 1 (a float, read on its device), drop them only."""
        self.adam.found_inf = unless  # type: ignore[attr-defined] what GradScaler tells an optimizer
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)

    def state_dict(self) -> State:
        """Return the moments and step counts, without hyperparameters."""
        return {name: dict(self.adam.state[parameter]) for name, parameter in self.named.items()}

    def load_state_dict(self, state: State, /) -> None:
        """Copy moments into place; raise ValueError if they belong to other parameters or to parameters of other shapes."""
        if set(state) != set(self.named):
            raise ValueError(f"the optimizer's state is for other parameters: {sorted(set(state) ^ set(self.named))[:4]}")
        moments = {(name, key): tensor for name, parameter in self.named.items() for key, tensor in self.adam.state[parameter].items()}
        for (name, key), tensor in moments.items():
            _check_moment(f"{name}/{key}", state[name], key, tensor)
        for (name, key), tensor in moments.items():
            saved: Any = state[name]
            tensor.copy_(saved[key])


def _check_moment(path: str, saved: Value, key: str, expected: Tensor) -> None:
    found = saved.get(key) if isinstance(saved, Mapping) else None
    if not isinstance(found, Tensor):
        raise ValueError(f"{path} of the optimizer's state is no tensor")
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise ValueError(
            f"{path} of the optimizer's state is {found.dtype} {list(found.shape)}, expected {expected.dtype} {list(expected.shape)}"
        )
