"""Environments of every family, which the contract test plays; a family whose packages are missing is skipped.

SMAC is always an imitation (tests/matwm/fakes), since the game is nowhere to be had in tests; Melting Pot is one if it is not installed.
"""

import importlib.util
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matwm import scenarios
from matwm.acting import random_actions
from matwm.config import EnvConfig
from matwm.envs import is_installed, make_env
from matwm.envs.base import Env
from matwm.types import Tick

FAKES = Path(__file__).parents[1] / "fakes"
sys.path.insert(0, str(FAKES / "smac"))
os.environ["SC2PATH"] = str(FAKES / "smac" / "StarCraftII")
if importlib.util.find_spec("meltingpot") is None:
    sys.path.insert(0, str(FAKES / "meltingpot"))
ARENA = "tests.matwm.arena:parallel_env"


@dataclass(frozen=True)
class Example:
    """One environment, the options that cut its episodes after three steps, and what can be seen in it."""

    family: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)
    limit: str = "max_cycles"
    has_deaths: bool = False
    """Random play sees an agent go while others go on."""
    has_endings: bool = False
    """Random play sees an episode end of itself."""

    def config(self, **more: Any) -> EnvConfig:
        return EnvConfig(family=self.family, name=self.name, options={**self.options, **more})  # type: ignore[arg-type]

    def make(self, render: bool = False, **more: Any) -> Env:
        return make_env(self.config(**more), render)

    @property
    def label(self) -> str:
        return "-".join([self.family, self.name.partition(":")[0].rpartition(".")[2], *map(str, self.options.values())])


EXAMPLES = [
    *(Example("mpe", name) for name in scenarios.names("mpe")),
    Example("mpe", "simple_spread_v3", {"N": 2, "terminate_on_success": True}),
    Example("butterfly", "cooperative_pong_v6", has_endings=True),
    Example("butterfly", "pistonball_v6", {"n_pistons": 6}),
    Example("butterfly", "knights_archers_zombies_v11", {"spawn_delay": 3}, has_deaths=True, has_endings=True),
    Example("butterfly", "knights_archers_zombies_v11", {"obs_method": "image", "spawn_delay": 3}),
    Example("smax", "3m", limit="max_steps", has_deaths=True, has_endings=True),
    Example("smax", "2m_vs_1z", limit="max_steps", has_endings=True),
    Example("smac", "3m", limit="max_steps", has_deaths=True, has_endings=True),
    Example("smac", "MMM", {"obs_last_action": True}, limit="max_steps"),
    Example("meltingpot", "pure_coordination_in_the_matrix__repeated"),
    Example("meltingpot", "chicken_in_the_matrix__arena", {"max_cycles": 7}),
    Example("pettingzoo", ARENA, {"masks": "observation"}, has_deaths=True, has_endings=True),
    Example("pettingzoo", ARENA, {"masks": "info", "see": "image"}, has_deaths=True, has_endings=True),
    Example("pettingzoo", ARENA, {"masks": "none", "knights": 1}, has_endings=True),
]
EXACT = [example for example in EXAMPLES if scenarios.family(example.family).resume != "episode"]
"""Those whose episodes follow from their seed and their actions."""


def each(examples: list[Example]) -> Any:
    """Run a test on every example whose packages are here."""
    marks = {
        family: [] if is_installed(family) else [pytest.mark.skip(reason=known.install)] for family, known in scenarios.families().items()
    }
    return pytest.mark.parametrize("example", [pytest.param(one, marks=marks[one.family], id=one.label) for one in examples])


def played(env: Env, seed: int, steps: int) -> list[tuple[np.ndarray | None, Tick]]:
    """Play at random among what is legal; return each joint action with what followed, the reset first, up to the end of the episode."""
    rng = np.random.default_rng(seed)
    told: list[tuple[np.ndarray | None, Tick]] = [(None, env.reset(seed))]
    while len(told) <= steps and not told[-1][1].is_over:
        actions = random_actions(rng, told[-1][1].action_mask)
        told.append((actions, env.step(actions)))
    return told
