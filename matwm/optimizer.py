"""Steps parameters by Adam, whose state is data."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from matwm.stateful import State, Value


@dataclass
class Group:
    """Parameters, by name, that step alike."""

    names: list[str]
    learning_rate: float
    betas: tuple[float, float]
    epsilon: float


class NamedAdam:
    """Adam whose state is tensors by parameter name, and whose hyperparameters always come from the configuration.

    It calls the function of `torch.optim`: making a `torch.optim.Adam` imports torch's compiler, for some three seconds.
    """

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        *,
        learning_rate: float,
        betas: Sequence[float],
        epsilon: float,
        own_rates: Mapping[tuple[str, ...], float] | None = None,
    ) -> None:
        """Parameters below names in `own_rates` learn at the rate beside them, in a group of their own after the first."""
        self.named = dict(named)
        own = {below: [name for name in self.named if name.startswith(tuple(f"{one}." for one in below))] for below in own_rates or {}}
        apart = {name for names in own.values() for name in names}
        rates = [([name for name in self.named if name not in apart], learning_rate)]
        rates += [(own[below], rate) for below, rate in (own_rates or {}).items()]
        self.groups = [Group(names, rate, (betas[0], betas[1]), epsilon) for names, rate in rates]
        self.moments = {
            name: {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
            for name, parameter in self.named.items()
        }
        """What Adam keeps of each parameter."""

    @property
    def learning_rate(self) -> float:
        """The step size in force, but for own rates."""
        return self.groups[0].learning_rate

    @torch.no_grad()
    def step(self, unless: Tensor | None = None) -> None:
        """Apply the gradients and drop them; where `unless` is 1 (a float, read on its device), drop them only."""
        for group in self.groups:
            names = [name for name in group.names if self.named[name].grad is not None]
            parameters = [self.named[name] for name in names]
            averages, squares, steps = ([self.moments[name][key] for name in names] for key in ("exp_avg", "exp_avg_sq", "step"))
            adam(
                [*parameters], [p.grad for p in parameters if p.grad is not None], averages, squares, [], steps, fused=True,
                amsgrad=False, beta1=group.betas[0], beta2=group.betas[1], lr=group.learning_rate, weight_decay=0.0, eps=group.epsilon,
                maximize=False, found_inf=unless,
            )  # fmt: skip
        for parameter in self.named.values():
            parameter.grad = None

    def state_dict(self) -> State:
        """Return the moments and step counts, without hyperparameters."""
        return {name: dict(moments) for name, moments in self.moments.items()}

    def load_state_dict(self, state: State, /) -> None:
        """Copy moments into place; raise ValueError if they belong to other parameters or to parameters of other shapes."""
        if set(state) != set(self.named):
            raise ValueError(f"the optimizer's state is for other parameters: {sorted(set(state) ^ set(self.named))[:4]}")
        moments = {(name, key): tensor for name, of_one in self.moments.items() for key, tensor in of_one.items()}
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
