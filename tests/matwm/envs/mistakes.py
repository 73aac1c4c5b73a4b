"""Environments as people write them by mistake, and some that only look odd."""

import os
import sys
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv
from pettingzoo.utils.conversions import parallel_to_aec

NO_ENVIRONMENT = 7


class Plain(ParallelEnv):
    """Two agents that count to `length`; both are rewarded by their action."""

    metadata: dict[str, Any] = {"name": "plain"}
    observed: Any = spaces.Box(-100, 100, (2,), np.float32)
    choices: Any = spaces.Discrete(3)

    def __init__(self, length: int = 5) -> None:
        self.possible_agents = ["left", "right"]
        self._length = length

    def observation_space(self, agent):
        return self.observed

    def action_space(self, agent):
        return self.choices

    def reset(self, seed=None, options=None):
        self.agents, self._time = list(self.possible_agents), 0
        return self._all(self._observation), self._all(lambda agent: {})

    def step(self, actions):
        self._time += 1
        is_over = self._time >= self._length
        told = self._all(self._observation), {name: float(action) for name, action in actions.items()}
        told = (*told, self._all(lambda agent: False), self._all(lambda agent: is_over), self._all(lambda agent: {}))
        self.agents = [] if is_over else self.agents
        return told

    def _observation(self, agent):
        return np.array([self._time, agent == "left"], np.float32)

    def _all(self, value):
        return {agent: value(agent) for agent in self.agents}


class Continuous(Plain):
    choices = spaces.Box(0, 1, (2,), np.float32)


class SeveralActions(Plain):
    choices = spaces.MultiDiscrete([2, 3])


class OtherDict(Plain):
    observed = spaces.Dict({"position": spaces.Box(0, 1, (2,)), "speed": spaces.Box(0, 1, (1,))})


class Texts(Plain):
    observed = spaces.Text(5)


class Nobody(Plain):
    def __init__(self):
        super().__init__()
        self.possible_agents = []


class BadName(Plain):
    def __init__(self):
        super().__init__()
        self.possible_agents = ["left/right"]


class LongName(Plain):
    def __init__(self, letters=65):
        super().__init__()
        self.possible_agents = ["x" * letters, "right"]


class Mixed(Plain):
    def observation_space(self, agent):
        return spaces.Box(0, 255, (16, 16, 3), np.uint8) if agent == "left" else self.observed


class OldReset(Plain):
    def reset(self, seed=None, options=None):
        return super().reset(seed)[0]


class OtherShape(Plain):
    def _observation(self, agent):
        return np.zeros(3, np.float32)


class NotFinite(Plain):
    def _observation(self, agent):
        return np.array([self._time, np.nan], np.float32)


class NotFiniteReward(Plain):
    def step(self, actions):
        seen, _, *flags = super().step(actions)
        return seen, dict.fromkeys(seen, np.inf), *flags


class LeavesSilently(Plain):
    def step(self, actions):
        told = super().step(actions)
        self.agents = ["left"]
        return told


class ComesLate(Plain):
    def reset(self, seed=None, options=None):
        told = super().reset(seed)
        self.agents = ["left"]
        return told

    def step(self, actions):
        self.agents = ["left", "right"]
        return super().step(actions)


class ComesBack(Plain):
    """The left one dies in step 2, and is there again from step `again` on: as an agent once more, or never taken from them."""

    def __init__(self, again=4, leaves=True, length=8):
        super().__init__(length)
        self._again, self._leaves = again, leaves

    def step(self, actions):
        if self._time + 1 == self._again:
            self.agents = list(self.possible_agents)
        seen, rewards, ended, cut, infos = super().step({agent: actions.get(agent, 0) for agent in self.agents})
        if self._time == 2:
            ended = {**ended, "left": True}
            self.agents = ["right"] if self._leaves else self.agents
        return seen, rewards, ended, cut, infos


class NothingLegal(Plain):
    observed = spaces.Dict({"observation": spaces.Box(-100, 100, (2,), np.float32), "action_mask": spaces.MultiBinary(3)})

    def _observation(self, agent):
        return {"observation": super()._observation(agent), "action_mask": np.array([self._time < 2] * 3, np.int8)}


class LosesMask(Plain):
    def reset(self, seed=None, options=None):
        seen, _ = super().reset(seed)
        return seen, {agent: {"action_mask": np.ones(3, np.int8)} for agent in seen}


class Unseeded(Plain):
    def _observation(self, agent):
        return np.random.default_rng().random(2).astype(np.float32)


class UnseededAndSaysSo(Unseeded):
    metadata = {"name": "unseeded", "nondeterministic": True}


class Hashes(Plain):
    """The same in one process, and another in the next."""

    def _observation(self, agent):
        return np.array([self._time, hash(agent) / 2**60], np.float32)


class HashesAndSaysSo(Hashes):
    metadata = {"name": "hashes", "nondeterministic": True}


class Late(Plain):
    """Fails at a step that nobody tries before training."""

    def __init__(self):
        super().__init__(length=100)

    def step(self, actions):
        if self._time == 60:
            raise LookupError("nobody is there")
        return super().step(actions)


class LateReward(Late):
    def step(self, actions):
        seen, rewards, *rest = Plain.step(self, actions)
        return seen, {name: np.inf if self._time > 60 else reward for name, reward in rewards.items()}, *rest


class Breaks(Plain):
    def step(self, actions):
        return {}["missing"]


class OneHots(Plain):
    """Sees a number and a pair, as one-hots; actions begin at 4."""

    observed = spaces.MultiDiscrete([3, 2])
    choices = spaces.Discrete(2, start=4)

    def _observation(self, agent):
        return np.array([self._time % 3, agent == "left"])


class Numbers(OneHots):
    observed = spaces.Discrete(4)

    def _observation(self, agent):
        return self._time % 4


class Bits(Plain):
    observed = spaces.MultiBinary([2, 2])

    def _observation(self, agent):
        return np.array([[1, 0], [0, self._time % 2]], np.int8)


class Table(Plain):
    """A table of bytes is no picture."""

    observed = spaces.Box(0, 255, (4, 4, 3), np.uint8)

    def _observation(self, agent):
        return np.full((4, 4, 3), self._time, np.uint8)


class GreyPictures(Plain):
    """Channels first, one of them, not square."""

    observed = spaces.Box(0, 255, (1, 20, 40), np.uint8)

    def _observation(self, agent):
        picture = np.zeros((1, 20, 40), np.uint8)
        picture[:, :, 20:] = 50 * self._time
        return picture


class Lingers(Plain):
    """The left one ends first, and stays among the agents, as some do."""

    def step(self, actions):
        seen, rewards, ended, cut, infos = super().step(actions)
        return seen, rewards, {**ended, "left": self._time >= 2}, cut, infos


class CutOne(Plain):
    """The left one is cut while the other goes on."""

    def step(self, actions):
        seen, rewards, ended, cut, infos = super().step(actions)
        if self._time >= 2:
            cut = {**cut, "left": True}
            self.agents = [agent for agent in self.agents if agent != "left"]
        return seen, rewards, ended, cut, infos


class Reserve(Plain):
    """The third one is there in one of `every` episodes, by its seed; in none if 0."""

    def __init__(self, every=0):
        super().__init__()
        self.possible_agents = ["left", "right", "third"]
        self._every = every

    def reset(self, seed=None, options=None):
        super().reset(seed)
        if not self._every or seed % self._every:
            self.agents = ["left", "right"]
        return self._all(self._observation), self._all(lambda agent: {})


class Prints(Plain):
    """Prints wherever it can, in every way there is."""

    def __init__(self):
        super().__init__()
        print("made", end="")

    def reset(self, seed=None, options=None):
        os.write(1, b"reset")
        return super().reset(seed)

    def step(self, actions):
        sys.__stdout__.write("step")
        os.system("echo step")
        return super().step(actions)


def turn_based():
    return parallel_to_aec(Plain())


def something_else():
    return {}
