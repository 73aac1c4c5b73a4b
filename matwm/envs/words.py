"""Describes the scenarios in which one agent tells another, in words, of a goal that only the first one sees.

A word is part of an action, and the listener observes it at the next step. Not described: Simple Crypto, whose words depend on a key
as well as on the goal, and Simple World Comm, whose leader has words but no goal to tell of.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from matwm.config import EnvConfig
from matwm.envs.mpe_scripts import MOVES


@dataclass(frozen=True)
class Channel:
    """From one agent to another: which part of an action is the word, and where the goal and its place stand in observations."""

    speaker: str
    """Name of the agent that sees the goal and speaks."""
    listener: str
    """Name of the agent that is to reach it."""
    num_words: int
    moves: int
    """An action is move + moves * word; 1 where the speaker does not move."""
    goal: slice
    """Entries of the speaker's observation, one a goal: the largest is the goal's, the others are alike."""
    places: slice
    """Entries of the listener's observation: (x, y) from itself to each goal, in the same order."""
    heard: slice
    """Entries of the listener's observation: the word of the step before as a one-hot, zeros before the first."""
    goals: tuple[str, ...] = ("red", "green", "blue")
    """What people call the goals."""

    def words(self, actions: Int[np.ndarray, "*any"]) -> Int[np.ndarray, "*any"]:
        """Return the word of each action of the speaker; -1 stays -1."""
        return actions // self.moves

    def goals_seen(self, obs: Float[np.ndarray, "E O"]) -> Int[np.ndarray, " E"]:
        """Return the goal that each observation of the speaker shows."""
        return obs[:, self.goal].argmax(1)

    def showing(self, obs: Float[np.ndarray, "E O"], goals: Int[np.ndarray, " E"]) -> Float[np.ndarray, "E O"]:
        """Return observations of the speaker that show these goals instead."""
        entries = obs[:, self.goal]
        shown = obs.copy()
        shown[:, self.goal] = np.where(np.arange(len(self.goals)) == goals[:, None], entries.max(1)[:, None], entries.min(1)[:, None])
        return shown

    def nearest(self, obs: Float[np.ndarray, "E O"]) -> Int[np.ndarray, " E"]:
        """Return the goal to whose place the listener is nearest in each of its observations."""
        return np.square(obs[:, self.places].reshape(len(obs), len(self.goals), 2)).sum(2).argmin(1)


CHANNELS: Mapping[tuple[str, str], tuple[Channel, ...]] = {
    ("mpe", "simple_speaker_listener_v4"): (
        Channel("speaker_0", "listener_0", num_words=3, moves=1, goal=slice(0, 3), places=slice(2, 8), heard=slice(8, 11)),
    ),
    ("mpe", "simple_reference_v3"): tuple(
        Channel(speaker, listener, num_words=10, moves=MOVES, goal=slice(8, 11), places=slice(2, 8), heard=slice(11, 21))
        for speaker, listener in (("agent_0", "agent_1"), ("agent_1", "agent_0"))
    ),
}
"""By family and name of the scenario."""


def channels(env: EnvConfig) -> tuple[Channel, ...]:
    """Return who tells whom of goals in a scenario; nobody in most."""
    return CHANNELS.get((env.family, env.name), ())
