"""Environments whose own code fails, or that say what none may."""

import sys

import numpy as np
from gymnasium import spaces

from tests.matwm.envs.mistakes import Plain

WITH_MASK = spaces.Dict({"observation": spaces.Box(-100, 100, (2,), np.float32), "action_mask": spaces.MultiBinary(3)})


class Telling(Plain):
    """Its infos hold `told` at each step."""

    told = {}

    def reset(self, seed=None, options=None):
        seen, _ = super().reset(seed)
        return seen, self._all(lambda agent: self.told)

    def step(self, actions):
        *others, infos = super().step(actions)
        return *others, dict.fromkeys(infos, self.told)


class ResetRaises(Plain):
    def reset(self, seed=None, options=None):
        raise RuntimeError("the simulator\nis not licensed")


class ResetExits(Plain):
    def reset(self, seed=None, options=None):
        sys.exit("no display")


class ResetTakesNoSeed(Plain):
    def reset(self):
        return super().reset()


class Exits(Plain):
    def __init__(self):
        sys.exit(3)


class IsStopped(Plain):
    """As if a signal came while it is made."""

    def __init__(self):
        sys.exit(143)


class SpaceRaises(Plain):
    def observation_space(self, agent):
        raise NotImplementedError


class NoSpaces(Plain):
    def action_space(self, agent):
        return self.action_spaces[agent]


class NoAgents(Plain):
    def __init__(self):
        super().__init__()
        self.possible_agents = None


class AgentsRaise(Plain):
    @property
    def possible_agents(self):
        raise ValueError("call setup first")

    @possible_agents.setter
    def possible_agents(self, value):
        pass


class Metadata(Plain):
    metadata = ["human"]


class NoInfos(Telling):
    told = None


class Length(Telling):
    told = {"metrics": {"length": 7}}


class Slash(Telling):
    told = {"metrics": {"return/left": 7}}


class LongMetric(Telling):
    told = {"metrics": {"x" * 65: 7}}


class NoNumber(Telling):
    told = {"metrics": {"score": float("nan")}}


class Text(Telling):
    told = {"metrics": {"outcome": "win"}}


class NoRender(Plain):
    def render(self):
        raise ValueError("no display found")


class RenderExits(Plain):
    def render(self):
        sys.exit("no display found")


class FloatPicture(Plain):
    observed = spaces.Box(0, 255, (16, 16, 3), np.uint8)

    def _observation(self, agent):
        return np.full((16, 16, 3), 0.9)


class NoArray(Plain):
    def _observation(self, agent):
        return {"position": 1}


class NoDict(Plain):
    observed = WITH_MASK


class OtherKeys(Plain):
    observed = WITH_MASK

    def _observation(self, agent):
        return {"obs": super()._observation(agent), "action_mask": np.ones(3, np.int8)}


class DictWithoutMask(Plain):
    observed = WITH_MASK

    def _observation(self, agent):
        return {"observation": super()._observation(agent)}


class EndsUnseen(Plain):
    def step(self, actions):
        seen, *others = super().step(actions)
        return (seen if self.agents else {}, *others)


class Penalties(Telling):
    """Added to logits, as some do."""

    told = {"action_mask": np.array([-np.inf, 0, 0])}


class Indices(Telling):
    told = {"action_mask": [0, 1, 2]}


class NoMask(Telling):
    told = {"action_mask": None}


class LongMask(Telling):
    told = {"action_mask": [1, 1, 1, 1]}


class LateMask(Telling):
    told = {"action_mask": [1, 1, 0]}

    def reset(self, seed=None, options=None):
        seen, infos = super().reset(seed)
        return seen, dict.fromkeys(infos, {})


class LeftHasMasks(Plain):
    """In its infos; and the right one in its observations, if `right`."""

    def __init__(self, right=False):
        super().__init__()
        self._right = right

    def observation_space(self, agent):
        return WITH_MASK if self._right and agent == "right" else self.observed

    def _observation(self, agent):
        seen = super()._observation(agent)
        return {"observation": seen, "action_mask": np.array([0, 1, 1])} if self._right and agent == "right" else seen

    def reset(self, seed=None, options=None):
        seen, infos = super().reset(seed)
        return seen, {**infos, "left": {"action_mask": [1.0, 0.0, 1.0]}}

    def step(self, actions):
        *others, infos = super().step(actions)
        return *others, {**infos, "left": {"action_mask": [True, False, False]}}


class ManyActions(Plain):
    choices = spaces.Discrete(32_768)


class Answering(Plain):
    """Its step returns what `answer` makes of what it should."""

    def step(self, actions):
        return self.answer(*super().step(actions))


class FourValues(Answering):
    def answer(self, seen, rewards, ended, cut, infos):
        return seen, rewards, ended, infos


class Nothing(Answering):
    def answer(self, *told):
        pass


class NoneForInfos(Answering):
    def answer(self, seen, rewards, ended, cut, infos):
        return seen, rewards, ended, cut, None


class OneReward(Answering):
    def answer(self, seen, rewards, *rest):
        return seen, 1.0, *rest


class UpperCase(Answering):
    def answer(self, seen, rewards, *rest):
        return seen, {name.upper(): reward for name, reward in rewards.items()}, *rest


class OnlyLeftRewarded(Answering):
    def answer(self, seen, rewards, *rest):
        return seen, {"left": 1.0}, *rest


class FlagForAll(Answering):
    def answer(self, seen, rewards, ended, cut, infos):
        return seen, rewards, {"__all__": False}, {"__all__": not self.agents}, infos


class NoTruncations(Answering):
    def answer(self, seen, rewards, ended, cut, infos):
        return seen, rewards, cut, {}, infos


class Rewards(Answering):
    """By name: what the right one gets."""

    kinds = {
        "none": None,
        "text": "1",
        "complex": 1 + 0j,
        "array": np.array([1.0]),
        "nan": np.float32("nan"),
        "huge": 1e308,
        "integer": np.int64(2),
        "truth": True,
        "zero_dimensional": np.array(0.5, np.float16),
    }

    def __init__(self, kind):
        super().__init__()
        self._kind = kind

    def answer(self, seen, rewards, *rest):
        return seen, {"left": 1e308 if self._kind == "huge" else 0, "right": self.kinds[self._kind]}, *rest


class Seeing(Plain):
    """By name: its observation space, and what it observes."""

    pairs = {
        "complex": (spaces.Box(-9, 9, (2,), np.float32), np.array([1 + 2j, 1])),
        "texts": (spaces.Box(-9, 9, (2,), np.float32), ["1", "2"]),
        "objects": (spaces.Box(-9, 9, (2,), np.float32), np.array([1, None])),
        "truths": (spaces.Box(0, 1, (2,), np.int8), [True, False]),
        "huge": (spaces.Box(-np.inf, np.inf, (2,), np.float64), np.array([0, 1e300])),
        "fraction": (spaces.Discrete(9), 0.5),
        "digit": (spaces.Discrete(9), "1"),
        "no_number": (spaces.Discrete(9), float("nan")),
        "pair_of_texts": (spaces.MultiDiscrete([3, 4]), "ab"),
        "whole_float": (spaces.Discrete(3, start=-1), 1.0),
        "grey": (spaces.Box(0, 255, (84, 84), np.uint8), np.zeros((84, 84), np.uint8)),
        "four_channels": (spaces.Box(0, 255, (84, 84, 4), np.uint8), np.zeros((84, 84, 4), np.uint8)),
        "float_picture": (spaces.Box(0, 1, (64, 64, 3), np.float32), np.zeros((64, 64, 3), np.float32)),
        "large_table": (spaces.Box(0, 1, (64, 64), np.float32), np.zeros((64, 64), np.float32)),
        "long_vector": (spaces.Box(0, 1, (5000,), np.float32), np.zeros(5000, np.float32)),
        "many_numbers": (spaces.Discrete(4097), 0),
    }

    def __init__(self, kind):
        super().__init__()
        self.observed, self._seen = self.pairs[kind]

    def _observation(self, agent):
        return self._seen


class Stranger(Plain):
    def reset(self, seed=None, options=None):
        told = super().reset(seed)
        self.agents = [*self.agents, "third"]
        return told


class LateStranger(Plain):
    def step(self, actions):
        told = super().step(actions)
        self.agents = [*self.agents, "third"] if self._time == 2 else self.agents
        return told
