"""Defines the batches of tensors that carry data from the replay to the losses; letters and time alignment: `matwm/types.py`."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int, Int32, UInt8
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """Stretches of replay as torch tensors, each seen by one focal agent.

    Rows are grouped by focal agent: the first B/N belong to agent 0 and so on. Windows may span episodes.
    In contexts (for imagination and acting) all valid rows belong to one episode and are right-aligned.
    """

    agent: Int[Tensor, " B"]
    obs: Float[Tensor, "B T O"] | UInt8[Tensor, "B T channels height width"]
    """As the replay keeps them: whoever reads images makes numbers of those of one batch."""
    action: Int[Tensor, "B T"]
    """-1 where the row has no action."""
    mate_actions: Int[Tensor, "B T M"]
    """-1 also where the mate is dead."""
    action_mask: Bool[Tensor, "B T A"]
    """Nothing but False where an episode has ended truly: nobody says what would be legal."""
    reward: Float[Tensor, "B T"]
    continues: Float[Tensor, "B T"]
    """0 where the action truly ended the episode, else 1 (a time limit is 1)."""
    is_first: Bool[Tensor, "B T"]
    is_valid: Bool[Tensor, "B T"]
    """False for left padding, and for the rows of an episode at which the focal agent is dead: they count nowhere."""

    def to(self, device: torch.device) -> "Windows":
        """Return the windows on a device (see `on_device`)."""
        return Windows(**{name: on_device(value, device) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Features:
    """What actors and critics read, s_t = [z_t, h_{t-1}, p_t], without the zeros of the one-hots."""

    latent_rows: Int[Tensor, "*B K"]
    """Where the ones of z_t are: the numbers of the Z first rows of a weight (F, out) that z_t picks; none if it is levels (K = 0)."""
    numbers: Float[Tensor, "*B S"]
    """The rest, h_{t-1} and p_t, behind z_t if that is levels: S = D + M*A, or Z more."""

    @cached_property
    def by_row(self) -> tuple[Int[Tensor, "N picks"], Int[Tensor, "N picks"]]:
        """For features (N, b, ...): each agent's latent rows in ascending order, and which of its b states had them."""
        rows, order = self.latent_rows.flatten(1).sort(stable=True)
        return rows, order // self.latent_rows.shape[-1]


@dataclass(frozen=True)
class Rollout:
    """Imagination for the actor-critic, rows grouped by focal agent (or with the agents as a first axis): one more state than actions."""

    action: Int[Tensor, "*B H"]
    action_mask: Bool[Tensor, "*B H A"]
    """The mask under which `action` was drawn."""
    reward: Float[Tensor, "*B H"]
    continues: Float[Tensor, "*B H"]
    """Probability that the episode goes on after the action."""
    latent_rows: Int32[Tensor, "*B H+1 K"]
    """As in `Features`, and likewise `numbers`."""
    numbers: Float[Tensor, "*B H+1 S"]
    alive: Bool[Tensor, "*B H+1"]
    """Who is there in each state, as its teammates see it; imagined one by one whoever was at the start always is."""


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device. The host does not wait for a copy to a GPU: page-locked memory stays as it is until it is read."""
    if tensor.device.type == device.type:
        return tensor
    return tensor.contiguous().pin_memory().to(device, non_blocking=True)
