"""A family of environments as somebody outside of MATWM would write it: one file, and one line in `matwm.scenarios.FAMILIES`."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Int, UInt8
from pydantic import Field

from matwm.config import EnvConfig
from matwm.scenarios.family import Family, Scenario
from matwm.scenarios.options import Options
from matwm.scenarios.sides import Rule, Side, ruled
from matwm.types import EnvSpec, Tick

LEFT, STAY, RIGHT = range(3)


class BeaconOptions(Options):
    max_cycles: int = Field(6, ge=1, le=100, description="environment steps an episode")
    length: int = Field(5, ge=2, le=50, description="cells of the line")
    goal: Literal["light", "dark"] = Field("light", description="whether to be at the beacon or away from it")


class BeaconEnv:
    """Walkers on a line see where they and the beacon are; each is paid for being near it."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.spec = EnvSpec("beacon", ("walker_0", "walker_1"), (2, 2), (3, 3), max_steps=options["max_cycles"])
        self._length, self._sign = options["length"], 1 if options["goal"] == "light" else -1
        self._time, self._places, self._beacon = 0, np.zeros(2, np.int64), 0

    def reset(self, seed: int) -> Tick:
        rng = np.random.default_rng(seed)
        self._time, self._places, self._beacon = 0, rng.integers(self._length, size=2), int(rng.integers(self._length))
        return self._tick(np.zeros(2))

    def step(self, actions: Int[np.ndarray, " N"]) -> Tick:
        self._time += 1
        self._places = (self._places + np.asarray(actions) - STAY).clip(0, self._length - 1)
        return self._tick(-self._sign * np.abs(self._places - self._beacon) / self._length)

    def render(self) -> UInt8[np.ndarray, "height width 3"]:
        picture = np.full((8, self._length, 3), 255, np.uint8)
        picture[:, self._beacon] = 0
        return picture

    def close(self) -> None:
        pass

    def _tick(self, reward: np.ndarray) -> Tick:
        obs = np.stack([self._places, np.full(2, self._beacon)], 1).astype(np.float32)
        going = np.ones(2, bool)
        is_over = self._time >= (self.spec.max_steps or 0)
        return Tick(obs, np.ones((2, 3), bool), reward.astype(np.float32), ~going, truncated=is_over, alive=going)


def approach(options: Mapping[str, Any]) -> Rule:
    """Walk to the beacon."""
    return lambda obs: np.sign(obs[:, 1] - obs[:, 0]).astype(np.int64) + STAY


def make(config: EnvConfig, render: bool) -> BeaconEnv:
    return BeaconEnv(config.options)


FAMILY = Family(
    meaning="walkers on a line",
    module="numpy",
    install="make venv",
    resume="replay",
    scenarios={"beacon": Scenario(BeaconOptions, (2,), sides=(Side(("walker",), {"approach": {"walker": ruled(approach)}}, ("random",)),))},
    packages=("pytest",),
)
