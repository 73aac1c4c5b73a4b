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


def percentile(values: Float[Tensor, "N b"], percent: float, counts: Bool[Tensor, "N b"] | None = None) -> Float[Tensor, " N"]:
    """Return each row's percentile by linear interpolation between order statistics, of the values that count.

    A row of which nothing counts gives a number that means nothing.
    """
    if counts is None:
        ordered = values.sort(-1).values
        at = percent / 100 * (values.shape[-1] - 1)
        low = int(at)
        high = min(low + 1, values.shape[-1] - 1)
        return torch.lerp(ordered[:, low], ordered[:, high], at - low)
    ordered = values.masked_fill(~counts, float("inf")).sort(-1).values
    last = (counts.sum(-1, keepdim=True) - 1).clamp(min=0)
    place = percent / 100 * last
    floor = place.long()
    below, above = ordered.gather(-1, floor), ordered.gather(-1, torch.minimum(floor + 1, last))
    return torch.lerp(below, above, place - floor).squeeze(-1)


class ReturnBounds(nn.Module):
    """Moving averages of each agent's return percentiles (Eq. 13); buffers, so that they are saved.

    The averages start at 0, and for the first 1 / (1 - decay) updates they are too small, which blows advantages up. With `debias`
    they are divided by the share of them that is not that 0, which a buffer of its own counts. A state without it, of a run that
    began without `debias`, is not corrected.
    """

    low: Tensor
    high: Tensor
    initial_share: Tensor | None

    def __init__(self, num_agents: int, *, debias: bool = False) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(num_agents))
        self.register_buffer("high", torch.zeros(num_agents))
        self.register_buffer("initial_share", torch.ones(num_agents) if debias else None)
        self.register_load_state_dict_pre_hook(_fit_initial_share)

    @torch.no_grad()
    def update(
        self,
        returns: Float[Tensor, "N b"],
        learns: Bool[Tensor, " N"],
        *,
        low: float,
        high: float,
        decay: float,
        counts: Bool[Tensor, "N b"] | None = None,
    ) -> None:
        """Take in a batch of returns of those agents that learn from it; `low` and `high` are percentiles from 0 to 100."""
        self.low.lerp_(torch.where(learns, percentile(returns, low, counts), self.low), 1 - decay)
        self.high.lerp_(torch.where(learns, percentile(returns, high, counts), self.high), 1 - decay)
        if self.initial_share is not None:
            self.initial_share.mul_(torch.where(learns, decay, 1.0))

    def scale(self, minimum: float) -> Float[Tensor, " N"]:
        """Return the divisor of advantages: small returns are not blown up."""
        spread = self.high - self.low
        if self.initial_share is not None:
            spread = spread / (1 - self.initial_share).clamp(min=1e-6)
        return spread.clamp(min=minimum)


def _fit_initial_share(bounds: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Fit a state that was saved with another `return_debias` to this one: without the count nothing is corrected."""
    key = f"{prefix}initial_share"
    if not isinstance(bounds.initial_share, Tensor):
        state.pop(key, None)
    elif key not in state:
        state[key] = torch.zeros_like(bounds.initial_share)
