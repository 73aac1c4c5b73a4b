"""Plays the training environment one step at a time and writes what happens into the replay."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from matwm.acting import EpisodeContext
from matwm.envs.episode_log import EpisodeLog
from matwm.history import Episode
from matwm.replay import Replay
from matwm.rng import seed_for
from matwm.stateful import State
from matwm.types import NO_ACTION, Step, Tick

Choose = Callable[[EpisodeContext, Bool[np.ndarray, "E N A"]], Int[np.ndarray, "E N"]]


class Collector:
    """The running episode: environment, context, returns so far."""

    def __init__(self, env: EpisodeLog, replay: Replay, *, seed: int, acting_context: int) -> None:
        self.env, self.replay = env, replay
        self.seed, self.acting_context = seed, acting_context
        self.context = EpisodeContext(range(env.spec.num_agents), acting_context)
        self.num_episodes = 0
        """Episodes that are over."""
        self.given_up: list[int] = []
        """Those of them, from 0, that ended where training was interrupted, since the environment could not be brought back."""
        self._returns = np.zeros(env.spec.num_agents)
        self._length = 0

    def step(self, choose: Choose, *, env_step: int) -> Episode | None:
        """Take one environment step, which is number `env_step`; return the episode if it ended.

        Episode k starts from seed k of its own stream: nothing carries over from one episode to the next.
        """
        before = self.env.tick or self._begin()
        self.context.see(before.obs[None])
        action = choose(self.context, before.action_mask[None])[0]
        self.context.did(action[None])
        after = self.env.step(action)
        row = Step(before.obs, before.action_mask, action, after.reward, after.terminated, before.alive, self._length == 0, is_last=False)
        self.replay.add(row)
        self._returns += after.reward
        self._length += 1
        return self._end(after, env_step) if after.is_over else None

    def _begin(self) -> Tick:
        self.context.clear()
        self._returns, self._length = np.zeros_like(self._returns), 0
        return self.env.reset(seed_for(self.seed, "episode", self.num_episodes) % 2**31)

    def _end(self, last: Tick, env_step: int) -> Episode:
        """Store the final observation as a row of its own: it is a target of the dynamics, and may start imagination."""
        nothing = np.full(len(self._returns), NO_ACTION)
        self.replay.add(
            Step(last.obs, last.action_mask, nothing, np.zeros_like(last.reward), last.terminated, last.alive, is_first=False, is_last=True)
        )
        self.env.end()
        self.num_episodes += 1
        return Episode(env_step, self._length, tuple(self._returns.tolist()), dict(last.metrics))

    def state_dict(self) -> State:
        """Return the running episode and the number of finished ones; the context lies in the replay."""
        state = {"num_episodes": self.num_episodes, "returns": self._returns.tolist(), "length": self._length, "env": self.env.state_dict()}
        return {**state, "given_up": list(self.given_up)} if self.given_up else state

    def load_state_dict(self, state: State, /) -> None:
        """Bring the running episode back; the replay must have been loaded before.

        Raises:
            ValueError: the environment did not come back to the saved tick.
        """
        saved: Any = state
        self.num_episodes, self._length = saved["num_episodes"], saved["length"]
        self._returns = np.array(saved["returns"], dtype=np.float64)
        self.given_up = list(saved.get("given_up", []))
        self.context.clear()
        tick = self.env.load_state_dict(saved["env"])
        if tick is None and saved["env"]["seed"] is not None:
            self.given_up.append(self.num_episodes)
            self.num_episodes += 1
            self.replay.cut()
        elif tick is not None:
            obs, action = self.replay.recent(min(self._length, self.acting_context))
            for row in range(len(obs)):
                self.context.see(obs[row][None])
                self.context.did(action[row][None])
