"""Small environments of known dynamics for everybody's tests; all follow `matwm.envs.base.Env`."""

from dataclasses import replace
from typing import Any

import numpy as np

from matwm.rng import generator_for
from matwm.types import EnvSpec, Tick


class CounterEnv:
    """Counts steps; agents differ in observation size (2, 4) and number of actions (2, 3), and have action masks.

    Observation of agent i: (t, i, seed % 7, -1) as far as it fits. Reward of the action a at t: 10 * t + a + 1000 * i.
    At t, action t % num_actions is illegal. After `length` steps the agents in `ends` end truly; if not all do, they have died and
    the episode is cut.
    """

    def __init__(self, length: int = 5, ends: tuple[bool, bool] = (True, True)) -> None:
        self.spec = EnvSpec("counter", ("short_0", "long_0"), (2, 4), (2, 3), has_action_masks=True)
        self._length, self._ends = length, np.array(ends)
        self._t, self._seed = length, 0

    def reset(self, seed: int) -> Tick:
        self._t, self._seed = 0, seed
        return self._tick(np.zeros(2))

    def step(self, actions: np.ndarray) -> Tick:
        if self._t >= self._length:
            raise RuntimeError("no episode is under way: call reset with a seed first")
        for agent, action in enumerate(actions):
            if not self._mask()[agent, action]:
                raise ValueError(f"action {action} of {self.spec.agents[agent]} is illegal at {self._t}")
        reward = 10 * self._t + np.asarray(actions) + np.array([0, 1000])
        self._t += 1
        return self._tick(reward)

    def render(self) -> np.ndarray:
        return np.full((8, 8, 3), self._t, np.uint8)

    def close(self) -> None:
        pass

    def _mask(self) -> np.ndarray:
        mask = self.spec.action_exists.copy()
        for agent, count in enumerate(self.spec.num_actions):
            mask[agent, self._t % count] = False
        return mask

    def _tick(self, reward: np.ndarray) -> Tick:
        is_end = self._t >= self._length
        entries = np.array([[self._t, agent, self._seed % 7, -1] for agent in range(2)], np.float32)
        obs = np.where(self.spec.obs_exists, entries, np.float32(0))
        ends = self._ends & is_end
        return Tick(obs, self._mask(), reward.astype(np.float32), ends, truncated=is_end and not ends.all(), alive=~ends | ends.all())


class SnapshotCounterEnv(CounterEnv):
    """A counter whose state can be copied."""

    def __init__(self, length: int = 5) -> None:
        super().__init__(length)
        self.spec = replace(self.spec, resume="snapshot")

    def snapshot(self) -> dict[str, Any]:
        return {"t": self._t, "seed": self._seed, "reward": self._told}

    def restore(self, state: Any) -> Tick:
        self._t, self._seed = state["t"], state["seed"]
        return self._tick(np.array(state["reward"]))

    def _tick(self, reward: np.ndarray) -> Tick:
        self._told = reward.tolist()
        return super()._tick(reward)


class ForgetfulCounterEnv(CounterEnv):
    """A counter that cannot be brought back within an episode."""

    def __init__(self, length: int = 5) -> None:
        super().__init__(length)
        self.spec = replace(self.spec, resume="episode")


class RingEnv:
    """Two agents on a ring of cells, each stays (0), goes left (1) or right (2); 1 for both in every step that ends with them together.

    Observation: one-hot of how far the other is to the right. The seed places them apart. Cut after `length` steps.
    Random play meets one step in `cells`; meeting and staying gives nearly `length`.
    """

    def __init__(self, cells: int = 5, length: int = 12) -> None:
        self.spec = EnvSpec("ring", ("walker_0", "walker_1"), (cells, cells), (3, 3))
        self._cells, self._length = cells, length
        self._t, self._at = length, np.zeros(2, np.int64)

    def reset(self, seed: int) -> Tick:
        rng = generator_for(seed, "ring", 0)
        first = int(rng.integers(self._cells))
        self._t, self._at = 0, np.array([first, first + rng.integers(1, self._cells)]) % self._cells
        return self._tick(0.0)

    def step(self, actions: np.ndarray) -> Tick:
        if self._t >= self._length:
            raise RuntimeError("no episode is under way: call reset with a seed first")
        self._t += 1
        self._at = (self._at + np.array([0, -1, 1])[np.asarray(actions)]) % self._cells
        return self._tick(float(self._at[0] == self._at[1]))

    def render(self) -> np.ndarray:
        return np.zeros((8, 8, 3), np.uint8)

    def close(self) -> None:
        pass

    def _tick(self, reward: float) -> Tick:
        distance = (self._at[::-1] - self._at) % self._cells
        obs = np.eye(self._cells, dtype=np.float32)[distance]
        nobody, is_cut = np.zeros(2, bool), self._t >= self._length
        return Tick(obs, self.spec.action_exists.copy(), np.full(2, reward, np.float32), nobody, truncated=is_cut, alive=~nobody)


class AnnouncedEnv:
    """Three agents with 2, 3 and 4 actions; each sees what the *others* are about to do, in the order of `spec.mates`.

    `announced` is the joint action of the next step, drawn from (seed, t); any other is refused. A teammate predictor
    that reads its slots right predicts perfectly; one that has two of them mixed up, or is one step late, cannot.
    Observation: a one-hot of 4 for each mate. Reward: the agent's own action. Cut after `length` steps.
    """

    def __init__(self, length: int = 10) -> None:
        self.spec = EnvSpec("announced", ("two_0", "three_0", "four_0"), (8, 8, 8), (2, 3, 4))
        self._length = length
        self._t, self._seed = length, 0

    @property
    def announced(self) -> np.ndarray:
        return generator_for(self._seed, "announced", self._t).integers(self.spec.num_actions)

    def reset(self, seed: int) -> Tick:
        self._t, self._seed = 0, seed
        return self._tick(np.zeros(3))

    def step(self, actions: np.ndarray) -> Tick:
        if self._t >= self._length:
            raise RuntimeError("no episode is under way: call reset with a seed first")
        if not np.array_equal(actions, self.announced):
            raise ValueError(f"{actions} was played, {self.announced} announced")
        self._t += 1
        return self._tick(np.asarray(actions))

    def render(self) -> np.ndarray:
        return np.zeros((8, 8, 3), np.uint8)

    def close(self) -> None:
        pass

    def _tick(self, reward: np.ndarray) -> Tick:
        one_hots = np.eye(4, dtype=np.float32)[self.announced]
        obs = np.stack([one_hots[self.spec.mates(agent)].reshape(-1) for agent in range(3)])
        nobody, is_cut = np.zeros(3, bool), self._t >= self._length
        return Tick(obs, self.spec.action_exists.copy(), reward.astype(np.float32), nobody, truncated=is_cut, alive=~nobody)
