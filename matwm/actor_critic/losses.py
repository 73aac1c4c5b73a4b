"""Computes what actors and critics minimise on an imagined rollout (Eq. 10 and 11)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from matwm.nets.distributions import TwoHot, pick


def trajectory_weights(continues: Float[Tensor, "*B H"]) -> Float[Tensor, "*B H"]:
    """Return the probability that imagination is still going at each action: the product of earlier continuations."""
    ones = torch.ones_like(continues[..., :1])
    return torch.cat([ones, continues[..., :-1]], -1).cumprod(-1)


def entropy(log_probs: Float[Tensor, "*B A"]) -> Float[Tensor, "*B"]:
    """Return the entropy in nats; impossible actions (log-probability -inf) count zero, without a NaN in the gradient."""
    finite = log_probs.masked_fill(log_probs == float("-inf"), 0.0)
    return -(log_probs.exp() * finite).sum(-1)


def actor_loss(
    log_probs: Float[Tensor, "N B A"],
    action: Int[Tensor, "N B"],
    advantage: Float[Tensor, "N B"],
    weight: Float[Tensor, "N B"],
    *,
    entropy_weight: float,
    ratio: Float[Tensor, "N B"] | None = None,
    ratio_clip: float = 0.2,
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Return each agent's loss with entropy bonus (Eq. 10), and its mean entropy in nats.

    Without `ratio` it is REINFORCE. With it, of the present probability of each action to the one it was drawn with, it is the
    clipped surrogate of PPO (Schulman et al. 2017, Eq. 7): gain beyond the clip is not sought.
    """
    if ratio is None:
        gain = advantage * pick(log_probs, action)  # before the entropy: autograd sums the gradients of log_probs in the order of use
    else:
        gain = torch.minimum(ratio * advantage, ratio.clamp(1 - ratio_clip, 1 + ratio_clip) * advantage)
    bonus = entropy(log_probs)
    loss = -(weight * (gain + entropy_weight * bonus)).mean(-1)
    return loss, bonus.detach().mean(-1)


def critic_loss(
    log_probs: Float[Tensor, "N B R"],
    returns: Float[Tensor, "N B"],
    slow_value: Float[Tensor, "N B"],
    weight: Float[Tensor, "N B"],
    bins: TwoHot,
    *,
    slow_weight: float,
) -> Float[Tensor, " N"]:
    """Return each agent's cross-entropy to the λ-returns and to its slow critic (Eq. 11, as two-hot codes)."""
    targets = bins.encode(returns) + slow_weight * bins.encode(slow_value)
    return -(weight.unsqueeze(-1) * targets * log_probs).sum(-1).mean(-1)
