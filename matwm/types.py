"""Defines the types that carry data from the environment to the replay; those from there to the losses are in `matwm/batches.py`.

B batch  T window  C context  H horizon  N agents  M mates (N-1)  O observation, padded  A actions, padded
Z latent (K latents of L classes, read as one-hots or as levels)  D hidden  F features = Z + D + M*A  R reward bins

          o_0 --a_0--> r_0 c_0   o_1 --a_1--> r_1 c_1   o_2 ...
row t     (o_t, a_t, r_t, c_t): reward and continuation follow from the action beside them
is_first  1                      0                      0        (1 after every reset)
is_last   an episode of L steps fills L + 1 rows: the last holds only its final observation
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

ResumeClass = Literal["replay", "snapshot", "episode"]
"""How a running episode comes back: by its seed and actions, by a copy of its state, or not at all (a fresh one begins)."""
Obs = Float32[np.ndarray, "N O"] | UInt8[np.ndarray, "N channels height width"]
"""What all agents see: zero-padded vectors, or images."""

NO_ACTION = -1
"""The action of a row that has none: the final observation of an episode."""


@dataclass(frozen=True)
class AgentSpec:
    """What one agent sees and can do."""

    name: str
    role: str
    kind: Literal["vector", "image"]
    obs_shape: tuple[int, ...]
    """(size,) without padding, or (channels, height, width)."""
    num_actions: int
    has_action_mask: bool


@dataclass(frozen=True)
class EnvSpec:
    """What the networks must know of an environment; an agent's number is its index in `agents` everywhere."""

    name: str
    agents: tuple[str, ...]
    obs_sizes: tuple[int, ...]
    """Entries of each agent's own observation, all pixels of an image."""
    num_actions: tuple[int, ...]
    has_action_masks: bool = False
    resume: ResumeClass = "replay"
    image_shape: tuple[int, int, int] | None = None
    """(channels, height, width) where the agents see images, uint8; None where they see vectors, float32."""
    masked: tuple[bool, ...] | None = field(default=None, compare=False)
    """Who has masks, where some may have none; None if all are alike. Manifests say of all together that there are masks."""
    max_steps: int | None = field(default=None, compare=False)
    """The time limit of an episode, None if it is not known; manifests leave it to the options."""
    one_at_a_time: bool = field(default=False, compare=False)
    """No second one can be made while one is open."""

    @property
    def num_agents(self) -> int:
        """N."""
        return len(self.agents)

    @property
    def obs_size(self) -> int:
        """O, the largest observation."""
        return max(self.obs_sizes)

    @property
    def obs_shape(self) -> tuple[int, ...]:
        """Shape of one agent's padded observation: (O,), or that of an image."""
        return self.image_shape or (self.obs_size,)

    @property
    def obs_dtype(self) -> type[np.float32] | type[np.uint8]:
        """Type of its entries."""
        return np.uint8 if self.image_shape else np.float32

    @property
    def action_size(self) -> int:
        """A, the largest number of actions."""
        return max(self.num_actions)

    @property
    def vocabulary(self) -> int:
        """Number of action words when each agent's actions have words of their own."""
        return sum(self.num_actions)

    @property
    def action_offsets(self) -> tuple[int, ...]:
        """Word of each agent's action 0: cumulative, since agents may differ in their number of actions."""
        return tuple(accumulate((0, *self.num_actions[:-1])))

    @cached_property
    def action_exists(self) -> Bool[np.ndarray, "N A"]:
        """True where the padded action is one of the agent's own."""
        return np.arange(self.action_size) < np.array(self.num_actions)[:, None]

    @cached_property
    def obs_exists(self) -> Bool[np.ndarray, "N O"]:
        """True where the padded observation entry is one of the agent's own."""
        return np.arange(self.obs_size) < np.array(self.obs_sizes)[:, None]

    def mates(self, agent: int) -> list[int]:
        """Return the other agents' numbers in index order: slot j of every teammate array."""
        return [other for other in range(self.num_agents) if other != agent]

    def roles(self) -> dict[str, list[int]]:
        """Group agents by the name before the last underscore: `adversary_0` plays the role `adversary`."""
        groups: dict[str, list[int]] = {}
        for number, name in enumerate(self.agents):
            groups.setdefault(role_of(name), []).append(number)
        return groups

    @cached_property
    def agent_specs(self) -> tuple[AgentSpec, ...]:
        """The same facts, agent by agent."""
        kind = "image" if self.image_shape else "vector"
        masked = self.masked or (self.has_action_masks,) * self.num_agents
        columns = zip(self.agents, self.obs_sizes, self.num_actions, masked, strict=True)
        return tuple(
            AgentSpec(name, role_of(name), kind, self.image_shape or (size,), count, masks) for name, size, count, masks in columns
        )


@dataclass(frozen=True)
class Tick:
    """What the environment says after a reset or a step: all agents, fixed order, zero-padded observations."""

    obs: Obs
    """Zeros for those who are gone; at the tick of an agent's death its final observation, where the environment has one."""
    action_mask: Bool[np.ndarray, "N A"]
    """True where an action is legal: at least one for everybody, action 0 alone for those who are gone or have ended."""
    reward: Float32[np.ndarray, " N"]
    """For the actions that led here; zeros after a reset."""
    terminated: Bool[np.ndarray, " N"]
    """True endings only, now or earlier in the episode: a time limit is not one."""
    truncated: bool
    """A time limit cut the episode here."""
    alive: Bool[np.ndarray, " N"]
    """False for those who have died or left; who is there when the episode ends, truly or at a time limit, is alive."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What else the environment says of an episode that is over, such as `win`: 1 or 0."""

    @property
    def is_over(self) -> bool:
        """True when the episode takes no further step."""
        return self.truncated or not (self.alive & ~self.terminated).any()


@dataclass(frozen=True)
class Step:
    """One row of the replay (see the time alignment above)."""

    obs: Obs
    action_mask: Bool[np.ndarray, "N A"]
    action: Int[np.ndarray, " N"]
    reward: Float32[np.ndarray, " N"]
    terminated: Bool[np.ndarray, " N"]
    """On the last row of an episode: for whom it ended truly."""
    alive: Bool[np.ndarray, " N"]
    """Who sees `obs`, and acts on it unless the row is the last."""
    is_first: bool
    is_last: bool


def role_of(agent: str) -> str:
    """Return the role that an agent plays by its name: what stands before the last underscore."""
    return agent.rsplit("_", 1)[0]
