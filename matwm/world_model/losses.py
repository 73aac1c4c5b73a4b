"""Computes the terms of the world-model loss, one (B, T) value a row (Eq. 4 to 9).

A term is a function of a `ForwardPass`, a line in `TERMS`, and a weight of the same name in `matwm.config.LossWeights`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from matwm.batches import Windows
from matwm.nets.distributions import TwoHot, categorical_kl, pick


@dataclass(frozen=True)
class ForwardPass:
    """What the networks made of windows, and what is known of the rows: terms of the loss are computed from it."""

    windows: Windows
    acted: Bool[Tensor, "B T"]
    """Rows in which the agent acted."""
    paired: Bool[Tensor, "B S"]
    """Rows that acted and whose next one is known."""
    obs_exists: Bool[Tensor, "B O"]
    """Observation entries that are the agent's own."""
    action_exists: Bool[Tensor, "B A"]
    latent: Float[Tensor, "B T Z"]
    """z_t, drawn from the posterior, as networks read it; gradients flow to the encoder."""
    hidden: Float[Tensor, "B T D"]
    """h_t, which has read z_t and a_t."""
    decoded: Float[Tensor, "B T O"]
    target: Float[Tensor, "B T O"]
    """What `decoded` should be."""
    reward_logits: Float[Tensor, "B T R"]
    reward_bins: TwoHot
    continue_logits: Float[Tensor, "B T"]
    dynamics: Float[Tensor, "B S"]
    representation: Float[Tensor, "B S"]
    """Both of each pair (h_t, z_{t+1})."""
    mate_log_probs: Float[Tensor, "B T M A"] | None
    """None where teammates are not predicted."""
    mask_logits: Float[Tensor, "B T A"] | None
    """None where the environment has no action masks."""


Term = tuple[Float[Tensor, "B rows"], Bool[Tensor, "B rows"]]
"""A value for each row, and which rows count."""


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


def _reconstruction(done: ForwardPass) -> Term:
    return reconstruction_loss(done.decoded, done.target, done.obs_exists), done.windows.is_valid


def _reward(done: ForwardPass) -> Term:
    return done.reward_bins.cross_entropy(F.log_softmax(done.reward_logits, -1), done.windows.reward), done.acted


def _continuation(done: ForwardPass) -> Term:
    return continuation_loss(done.continue_logits, done.windows.continues), done.acted


def _teammates(done: ForwardPass) -> Term | None:
    return None if done.mate_log_probs is None else (teammate_loss(done.mate_log_probs, done.windows.mate_actions), done.acted)


def _action_mask(done: ForwardPass) -> Term | None:
    if done.mask_logits is None:
        return None
    return action_mask_loss(done.mask_logits, done.windows.action_mask, done.action_exists), is_told(done.windows, done.action_exists)


TERMS: dict[str, Callable[[ForwardPass], Term | None]] = {
    "reconstruction": _reconstruction,
    "reward": _reward,
    "continuation": _continuation,
    "dynamics": lambda done: (done.dynamics, done.paired),
    "representation": lambda done: (done.representation, done.paired),
    "teammates": _teammates,
    "action_mask": _action_mask,
}
"""Name of a term's weight: the term; None where the model does not predict what it judges. The order is that in which they are added up."""


def is_told(windows: Windows, exists: Bool[Tensor, "B A"]) -> Bool[Tensor, "B T"]:
    """Return which rows have an action mask."""
    return windows.is_valid & (windows.action_mask & exists[:, None]).any(-1)


def masked_mean(values: Float[Tensor, "*batch"], mask: Bool[Tensor, "*batch"]) -> Tensor:
    """Return the mean over the rows that count (0 where none does)."""
    return (values * mask).sum() / mask.sum().clamp(min=1)
