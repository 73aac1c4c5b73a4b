"""Computes the terms of the world-model loss, one (B, T) value a row (Eq. 4 to 9)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from matwm.nets.distributions import categorical_kl, pick


def reconstruction_loss(
    prediction: Float[Tensor, "B T O"], target: Float[Tensor, "B T O"], exists: Bool[Tensor, "B O"]
) -> Float[Tensor, "B T"]:
    """Sum squared errors over the agent's own observation entries, or all pixels of its image (Eq. 4).

    A sum, because a mean over entries would be too weak against the KL and the posterior would collapse.
    """
    return ((prediction - target).square() * exists[:, None]).sum(-1)


def continuation_loss(logits: Float[Tensor, "B T"], continues: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Binary cross-entropy (Eq. 6, with the minus sign that the paper omits)."""
    return F.binary_cross_entropy_with_logits(logits, continues, reduction="none")


def action_mask_loss(logits: Float[Tensor, "B T A"], mask: Bool[Tensor, "B T A"], exists: Bool[Tensor, "B A"]) -> Float[Tensor, "B T"]:
    """Binary cross-entropy over the agent's own actions (Eq. 7, with the minus sign that the paper omits)."""
    loss = F.binary_cross_entropy_with_logits(logits, mask.float(), reduction="none")
    return (loss * exists[:, None]).sum(-1)


def teammate_loss(log_probs: Float[Tensor, "B T M A"], mate_actions: Int[Tensor, "B T M"]) -> Float[Tensor, "B T"]:
    """Cross-entropy summed over mates (Eq. 8); a mate without an action counts nothing."""
    taken = pick(log_probs, mate_actions.clamp(min=0))
    return -torch.where(mate_actions >= 0, taken, torch.zeros_like(taken)).sum(-1)


def kl_losses(
    log_posterior: Float[Tensor, "B S K L"], log_prior: Float[Tensor, "B S K L"], free_nats: float
) -> tuple[Float[Tensor, "B S"], Float[Tensor, "B S"], Float[Tensor, "B S"]]:
    """Return the dynamics term, the representation term and the raw KL of each pair (h_t, z_{t+1}) (Eq. 9).

    The floor of `free_nats` is a row's own, after the sum over latents: a floor on the batch mean would let one easy
    batch silence every row.
    """
    dynamics = categorical_kl(log_posterior.detach(), log_prior)
    representation = categorical_kl(log_posterior, log_prior.detach())
    return dynamics.clamp(min=free_nats), representation.clamp(min=free_nats), dynamics.detach()


def masked_mean(values: Float[Tensor, "*batch"], mask: Bool[Tensor, "*batch"]) -> Tensor:
    """Return the mean over the rows that count (0 where none does)."""
    return (values * mask).sum() / mask.sum().clamp(min=1)
