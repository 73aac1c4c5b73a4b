"""Turns an environment into one whose episode can be saved: as its seed and its actions so far, brought back by replaying them."""

import hashlib
from typing import Any

import numpy as np
from jaxtyping import Int

from matwm.envs.base import Env
from matwm.stateful import State
from matwm.types import EnvSpec, Tick


class EpisodeLog:
    """Drives an environment and remembers the episode; holds for every family whose `spec.resume` is "replay"."""

    def __init__(self, env: Env) -> None:
        assert env.spec.resume == "replay", f"{env.spec.name} cannot be brought back by replaying it"
        self._env = env
        self._seed: int | None = None
        self._actions: list[list[int]] = []
        self.tick: Tick | None = None
        """What the environment said last; None between episodes."""

    @property
    def spec(self) -> EnvSpec:
        """The environment's own."""
        return self._env.spec

    def reset(self, seed: int) -> Tick:
        """Start the episode of this seed."""
        self.tick = self._env.reset(seed)
        self._seed, self._actions = int(seed), []
        return self.tick

    def step(self, actions: Int[np.ndarray, " N"]) -> Tick:
        """Move every agent, as the environment does, and remember how."""
        if self._seed is None:
            raise RuntimeError("no episode is under way: call reset with a seed first")
        self.tick = self._env.step(actions)
        self._actions.append(np.asarray(actions).tolist())
        return self.tick

    def end(self) -> None:
        """Forget the finished episode: what is saved from now on is that there is none."""
        self._seed, self._actions, self.tick = None, [], None

    def state_dict(self) -> State:
        """Return the episode's seed, its joint actions and a digest of the present tick, or just that there is none."""
        if self._seed is None or self.tick is None:
            return {"seed": None}
        return {"seed": self._seed, "actions": [list(joint) for joint in self._actions], "digest": digest(self.tick)}

    def load_state_dict(self, state: State, /) -> Tick | None:
        """Replay a saved episode and return its present tick, or None between episodes.

        Raises:
            ValueError: the replay did not end where the saved episode was.
        """
        self.end()
        saved: Any = state
        if saved["seed"] is None:
            return None
        tick = self.reset(saved["seed"])
        for joint in saved["actions"]:
            if tick.is_over:
                break
            tick = self.step(np.array(joint, np.int64))
        if len(self._actions) != len(saved["actions"]) or digest(tick) != saved["digest"]:
            self.end()
            raise ValueError(
                f"replaying {len(saved['actions'])} steps of {self.spec.name} from seed {saved['seed']} did not lead to the saved state: "
                "use the same versions of the environment's packages and the same env options, or start from a checkpoint between episodes"
            )
        return tick


def digest(tick: Tick) -> str:
    """Return a hash of everything a tick says, equal in every process that sees the same."""
    hasher = hashlib.sha256(repr((tick.obs.shape, tick.action_mask.shape, bool(tick.truncated))).encode())
    for array in (tick.obs, tick.action_mask, tick.reward, tick.terminated):
        hasher.update(np.ascontiguousarray(array).tobytes())
    return hasher.hexdigest()
