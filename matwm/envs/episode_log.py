"""Turns an environment into one whose episode can be saved, each by its `spec.resume`.

replay      as the seed and the actions so far, brought back by playing them again
snapshot    as a copy of the environment's state
episode     not at all: the state says how many steps are lost, and a fresh episode follows
"""

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from matwm.envs.base import Env, EnvError, SnapshotEnv
from matwm.stateful import State
from matwm.types import EnvSpec, Tick

_log = logging.getLogger(__name__)


class EpisodeLog:
    """Drives an environment and remembers the episode."""

    def __init__(self, env: Env) -> None:
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
        with self._noting(seed, 0):
            self.tick = self._env.reset(seed)
        self._seed, self._actions = int(seed), []
        return self.tick

    def step(self, actions: Int[np.ndarray, " N"]) -> Tick:
        """Move every agent, as the environment does, and remember how."""
        if self._seed is None:
            raise RuntimeError("no episode is under way: call reset with a seed first")
        with self._noting(self._seed, len(self._actions) + 1):
            self.tick = self._env.step(actions)
        self._actions.append(np.asarray(actions).tolist())
        return self.tick

    def close(self) -> None:
        """Close the environment; it cannot be used afterwards."""
        self._env.close()

    def end(self) -> None:
        """Forget the finished episode: what is saved from now on is that there is none."""
        self._seed, self._actions, self.tick = None, [], None

    def state_dict(self) -> State:
        """Return the episode as its class allows, with a digest of the present tick, or just that there is none."""
        if self._seed is None or self.tick is None:
            return {"seed": None}
        state: dict[str, Any] = {"seed": self._seed}
        if self.spec.resume == "episode":
            return {**state, "lost_steps": len(self._actions)}
        if isinstance(self._env, SnapshotEnv):
            state["snapshot"] = self._env.snapshot()
        state["actions"] = [list(joint) for joint in self._actions]
        return {**state, "digest": digest(self.tick)}

    def load_state_dict(self, state: State, /) -> Tick | None:
        """Bring a saved episode back and return its present tick; None between episodes, and where an episode cannot come back.

        Raises:
            ValueError: something is missing, or what came back is not the saved episode.
            EnvError: the environment cannot be played any more.
        """
        self.end()
        saved: Any = state
        if saved.get("seed", 0) is None:
            return None
        is_given_up = self.spec.resume == "episode"
        needed = ["seed", "actions", "digest"]
        if is_given_up:
            needed = ["seed", "actions" if "actions" in saved else "lost_steps"]
        if lacking := [part for part in needed if part not in saved]:
            raise ValueError(f"the saved episode of {self.spec.name} has no {lacking[0]}")
        if is_given_up:
            _log.warning(
                "%s cannot be brought back within an episode: the running one, %d steps old, is given up and a fresh one begins; "
                "the run is continued, not reproduced bit for bit",
                self.spec.name,
                saved["lost_steps"] if "lost_steps" in saved else len(saved["actions"]),
            )
            return None
        try:
            tick = self._restored(saved) if "snapshot" in saved else self._replayed(saved["seed"], saved["actions"])
        except EnvError:  # It says what is wrong itself.
            self.end()
            raise
        except ValueError:  # an action that is not legal any more, or a state of other shapes
            tick = None
        if tick is None or digest(tick) != saved["digest"]:
            self.end()
            own = ", say metadata = {'nondeterministic': True} in an environment of your own" if ":" in self.spec.name else ""
            raise ValueError(
                f"{'restoring' if 'snapshot' in saved else 'replaying'} {len(saved['actions'])} steps of {self.spec.name} from seed "
                f"{saved['seed']} did not lead to the saved state: use the same versions of the environment's packages and the same env "
                f"options{own}, or start from a checkpoint between episodes"
            )
        return tick

    @contextlib.contextmanager
    def _noting(self, seed: int, step: int) -> Iterator[None]:
        """Add to what the environment raises where in which episode it was."""
        try:
            yield
        except Exception as error:
            error.add_note(f"it was raised by {self.spec.name}, at step {step} of the episode of seed {seed} (step 0 is the reset)")
            raise

    def _replayed(self, seed: int, actions: Sequence[Sequence[int]]) -> Tick | None:
        tick = self.reset(seed)
        for joint in actions:
            if tick.is_over:
                return None
            tick = self.step(np.array(joint, np.int64))
        return tick

    def _restored(self, saved: Any) -> Tick:
        assert isinstance(self._env, SnapshotEnv), f"{self.spec.name} takes no snapshots"
        self.tick = self._env.restore(saved["snapshot"])
        self._seed, self._actions = saved["seed"], [list(joint) for joint in saved["actions"]]
        return self.tick


def digest(tick: Tick) -> str:
    """Return a hash of everything a tick says, equal in every process that sees the same."""
    hasher = hashlib.sha256(repr((tick.obs.shape, tick.action_mask.shape, bool(tick.truncated))).encode())
    for array in (tick.obs, tick.action_mask, tick.reward, tick.terminated):
        hasher.update(np.ascontiguousarray(array).tobytes())
    if (tick.alive == tick.terminated).any():  # else it says nothing more
        hasher.update(tick.alive.tobytes())
    if tick.metrics:
        hasher.update(repr(sorted(tick.metrics.items())).encode())
    return hasher.hexdigest()
