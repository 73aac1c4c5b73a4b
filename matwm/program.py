"""Acts as one network, from what agents of B episodes see to what they do: what is exported, and what `load_policies` runs.

It draws nothing: the uniform numbers by which latents are drawn are an input. Nor does it keep anything: a `Memory` goes in and comes out.
Each episode of a batch is at a moment of its own, so that a memory has room for a full context, of which the last rows count. It holds
probabilities of latents instead of observations: the weights are what they are, and images are read once.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from matwm.actor_critic import Actors
from matwm.batches import Features
from matwm.nets.distributions import class_at
from matwm.types import EnvSpec
from matwm.world_model import WorldModel

Observed = Float[Tensor, "B n O"] | UInt8[Tensor, "B n channels height width"]


class Memory(NamedTuple):
    """What is kept of the running episodes: P = C - 1 rows before the present one."""

    probs: Float[Tensor, "B n P K L"]
    action: Int[Tensor, "B n P"]
    """The action before each of these rows; the one after the last is told at the next call."""
    rows: Int[Tensor, " B"]
    """How many of them count, from the end."""


class ActingProgram(nn.Module):
    """The policies of n agents with the networks in front of them: `acting.choose_actions` for episodes that need not run in step."""

    agents: Tensor
    action_offsets: Tensor
    action_exists: Tensor

    def __init__(self, world_model: WorldModel, actors: Actors, agents: Sequence[int], context: int) -> None:
        """`actors` holds the policies of the agents with these numbers, in their order; `context` is C."""
        super().__init__()
        self.context, self.hidden_size = context, world_model.config.hidden_size
        self.autoencoder, self.mixer, self.trunk = world_model.autoencoder, world_model.mixer, world_model.trunk
        self.teammates, self.actors = world_model.teammates, actors
        self.register_buffer("agents", torch.tensor(list(agents)), persistent=False)
        self.register_buffer("action_offsets", world_model.action_offsets, persistent=False)
        self.register_buffer("action_exists", world_model.action_exists[self.agents], persistent=False)

    def inputs(self, spec: EnvSpec, episodes: int) -> dict[str, Tensor]:
        """Return what `forward` takes at the beginning of so many episodes: nothing seen, everything legal, an empty memory."""
        n, past, batch = len(self.agents), self.context - 1, episodes
        shape = self.autoencoder.code.shape
        return {
            "observation": torch.zeros(batch, n, *spec.obs_shape, dtype=torch.uint8 if spec.image_shape else torch.float32),
            "action_mask": torch.ones(batch, n, spec.action_size, dtype=torch.bool),
            "is_first": torch.ones(batch, dtype=torch.bool),
            "previous_action": torch.zeros(batch, n, dtype=torch.int64),
            "uniform": torch.full((batch, n, self.context, shape[0]), 0.5),
            "memory_probs": torch.zeros(batch, n, past, *shape),
            "memory_action": torch.zeros(batch, n, past, dtype=torch.int64),
            "memory_rows": torch.zeros(batch, dtype=torch.int64),
        }

    @torch.no_grad()
    def forward(
        self,
        observation: Observed,
        action_mask: Bool[Tensor, "B n A"],
        is_first: Bool[Tensor, " B"],
        previous_action: Int[Tensor, "B n"],
        uniform: Float[Tensor, "B n C K"],
        memory_probs: Float[Tensor, "B n P K L"],
        memory_action: Int[Tensor, "B n P"],
        memory_rows: Int[Tensor, " B"],
    ) -> tuple[Int[Tensor, "B n"], Float[Tensor, "B n A"], Tensor, Tensor, Tensor]:
        """Return the likeliest legal actions, the log-probabilities of all, and the memory to give back at the next call."""
        given = Memory(memory_probs, memory_action, memory_rows)
        features, memory = self.read(observation, is_first, previous_action, uniform, given)
        log_probs = self.log_probs(features, action_mask)
        return log_probs.argmax(-1), log_probs, memory.probs, memory.action, memory.rows

    def log_probs(self, features: Features, action_mask: Bool[Tensor, "B n A"]) -> Float[Tensor, "B n A"]:
        """Return log-probabilities of all actions, -inf for those that are illegal or none of the agent's own."""
        return self.actors.log_probs(features, (action_mask & self.action_exists).transpose(0, 1)).transpose(0, 1)

    def read(
        self,
        observation: Observed,
        is_first: Bool[Tensor, " B"],
        previous_action: Int[Tensor, "B n"],
        uniform: Float[Tensor, "B n C K"],
        memory: Memory,
    ) -> tuple[Features, Memory]:
        """Return s_t as actors and critics read it, (n, B, ...), and the memory with the present row.

        Where `is_first` is True an episode begins: nothing that its memory holds counts, nor its `previous_action`.
        """
        num_agents = self.agents.shape[0]
        agent = self.agents[:, None].expand(-1, is_first.shape[0]).flatten()
        seen = self.autoencoder.posterior(_by_agent(observation).unsqueeze(1), agent)
        probs = torch.cat([memory.probs, seen.unflatten(0, (num_agents, -1)).transpose(0, 1)], 2)
        action = torch.cat([memory.action, previous_action.unsqueeze(-1)], 2)[:, :, 1:]
        rows = torch.where(is_first, 0, memory.rows)
        positions, counts = self._places(rows)
        index = _by_agent(torch.where(counts[:, None, :, None], class_at(probs, uniform.unsqueeze(-1)), 0))
        numbers = [self._hidden(index, _by_agent(action), agent, positions, counts)]
        if self.teammates is not None:
            every, allowed = positions.repeat(num_agents, 1), _allowed(counts).repeat(num_agents, 1, 1)
            mates = self.teammates(self.autoencoder.code.read_index(index), agent, every, allowed)
            numbers.append(mates[:, -1].exp().flatten(1))
        picks, read = self.mixer.rows(index[:, -1])
        features = Features(picks.unflatten(0, (num_agents, -1)), torch.cat([read, *numbers], 1).unflatten(0, (num_agents, -1)))
        return features, Memory(probs[:, :, 1:], action, (rows + 1).clamp(max=self.context - 1))

    def _places(self, rows: Int[Tensor, " B"]) -> tuple[Int[Tensor, "B C"], Bool[Tensor, "B C"]]:
        """Return the positions of a context's rows within the episode, as far as it reaches back, and which of them there are."""
        positions = torch.arange(self.context, device=rows.device) - (self.context - 1 - rows[:, None])
        return positions.clamp(min=0), positions >= 0

    def _hidden(
        self,
        index: Int[Tensor, "nB C K"],
        action: Int[Tensor, "nB P"],
        agent: Int[Tensor, " nB"],
        positions: Int[Tensor, "B C"],
        counts: Bool[Tensor, "B C"],
    ) -> Float[Tensor, "nB D"]:
        """Return h_{t-1}: zeros where nothing came before."""
        num_agents = self.agents.shape[0]
        if self.context == 1:
            return torch.zeros(index.shape[0], self.hidden_size, device=index.device)
        past = counts[:, :-1]
        mixed = self.mixer.dense(self.autoencoder.code.read_index(index[:, :-1]), action + self.action_offsets[agent][:, None])
        h = self.trunk(mixed, positions[:, :-1].repeat(num_agents, 1), _allowed(past).repeat(num_agents, 1, 1))[:, -1]
        return torch.where(past[:, -1:].repeat(num_agents, 1), h, 0.0)


def _by_agent(x: Tensor) -> Tensor:
    """Return values (B, n, ...) grouped by agent, (n*B, ...)."""
    return x.transpose(0, 1).flatten(0, 1)


def _allowed(counts: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T T"]:
    """Return what each row may look at: the rows up to itself that count; itself in any case, so that no softmax is empty."""
    here = torch.arange(counts.shape[1], device=counts.device)
    return ((here[:, None] >= here) & counts[:, None]) | (here[:, None] == here)
