"""Turns imagined rewards and values into targets, and their spread into the scale of advantages."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


def lambda_returns(
    reward: Float[Tensor, "*B H"],
    continues: Float[Tensor, "*B H"],
    value: Float[Tensor, "*B H+1"],
    *,
    discount: float,
    lambda_: float,
) -> Float[Tensor, "*B H"]:
    """Blend imagined rewards and values into λ-returns (Eq. 12).

    Rewards are in environment units, `continues` is a probability, `value[..., -1]` stands in for everything beyond
    the horizon. Row t bootstraps from the value of the state that action t leads to, `value[..., t + 1]`.
    """
    following = value[..., -1]
    targets: list[Tensor] = []
    for t in reversed(range(reward.shape[-1])):
        blend = (1 - lambda_) * value[..., t + 1] + lambda_ * following
        following = reward[..., t] + discount * continues[..., t] * blend
        targets.append(following)
    return torch.stack(targets[::-1], -1)


def percentile(values: Float[Tensor, "N b"], percent: float) -> Float[Tensor, " N"]:
    """Return each row's percentile by linear interpolation between order statistics."""
    ordered = values.sort(-1).values
    at = percent / 100 * (values.shape[-1] - 1)
    low = int(at)
    high = min(low + 1, values.shape[-1] - 1)
    return torch.lerp(ordered[:, low], ordered[:, high], at - low)


class ReturnBounds(nn.Module):
    """Moving averages of each agent's return percentiles (Eq. 13); buffers, so that they are saved."""

    low: Tensor
    high: Tensor

    def __init__(self, num_agents: int) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(num_agents))
        self.register_buffer("high", torch.zeros(num_agents))

    @torch.no_grad()
    def update(self, returns: Float[Tensor, "N b"], learns: Bool[Tensor, " N"], *, low: float, high: float, decay: float) -> None:
        """Take in a batch of returns of those agents that learn from it; `low` and `high` are percentiles from 0 to 100."""
        self.low.lerp_(torch.where(learns, percentile(returns, low), self.low), 1 - decay)
        self.high.lerp_(torch.where(learns, percentile(returns, high), self.high), 1 - decay)

    def scale(self, minimum: float) -> Float[Tensor, " N"]:
        """Return the divisor of advantages: small returns are not blown up."""
        return (self.high - self.low).clamp(min=minimum)
