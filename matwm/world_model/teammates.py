"""Predicts what the other agents do next from the focal agent's latents alone."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from matwm.config import WorldModelConfig
from matwm.nets.transformer import Cache, CausalTransformer
from matwm.types import EnvSpec
from matwm.world_model.latents import LatentCode


@dataclass(frozen=True)
class MatesMemory:
    """The predictor's memory of sequences, and which actions their mates have."""

    cache: Cache
    exists: Bool[Tensor, "B M A"]


class TeammatePredictor(nn.Module):
    """A light causal transformer from z_0..z_t to each mate's action at t; slot j is the j-th other agent in index order.

    Its inputs carry no gradient: it learns from the latents and does not shape them (Eq. 8).
    """

    mate_action_exists: Tensor

    def __init__(self, config: WorldModelConfig, spec: EnvSpec, code: LatentCode) -> None:
        super().__init__()
        size = config.teammates.hidden_size
        self.shape = (spec.num_agents - 1, spec.action_size)
        self.embed = code.linear(0, size)
        self.trunk = CausalTransformer(
            size, config.teammates.layers, config.teammates.heads, config.feedforward_multiple, config.max_positions, config.dropout
        )
        self.head = nn.Linear(size, self.shape[0] * self.shape[1])
        exists = torch.from_numpy(spec.action_exists)
        self.all_exist = bool(exists.all())
        self.register_buffer("mate_action_exists", torch.stack([exists[spec.mates(i)] for i in range(spec.num_agents)]), persistent=False)

    def forward(
        self,
        z: Float[Tensor, "B T Z"],
        agent: Int[Tensor, " B"],
        positions: Int[Tensor, "B T"],
        allowed: Bool[Tensor, "B T T"],
    ) -> Float[Tensor, "B T M A"]:
        """Return log-probabilities of every mate's action at each row of a window."""
        h = self.trunk(self.embed.dense(z.detach()), positions, allowed)
        return self._log_probs(h, self.mate_action_exists[agent][:, None])

    def prefill(
        self, index: Int[Tensor, "B C K"], agent: Int[Tensor, " B"], is_valid: Bool[Tensor, "B C"], capacity: int
    ) -> tuple[Float[Tensor, "B M A"], MatesMemory]:
        """Read a context; return the mates' action probabilities at its last row and the memory of it."""
        h, cache = self.trunk.prefill(self.embed.sparse(index), is_valid, capacity)
        exists = self.mate_action_exists[agent]
        return self._log_probs(h, exists).exp(), MatesMemory(cache, exists)

    def step(self, index: Int[Tensor, "B K"], memory: MatesMemory) -> Float[Tensor, "B M A"]:
        """Read one more latent; return the mates' action probabilities there."""
        h = self.trunk.step(self.embed.sparse(index), memory.cache)
        return self._log_probs(h, memory.exists).exp()

    def _log_probs(self, h: Float[Tensor, "*batch d"], exists: Tensor) -> Tensor:
        logits = self.head(h).unflatten(-1, self.shape)
        if not self.all_exist:
            logits = logits.masked_fill(~exists, float("-inf"))
        return F.log_softmax(logits, -1)
