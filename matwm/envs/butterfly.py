"""Makes the games of PettingZoo's Butterfly."""

import importlib
from collections.abc import Mapping
from functools import partial
from typing import Any

from matwm.config import EnvConfig
from matwm.envs.pettingzoo import PettingZooEnv


def make(config: EnvConfig, render: bool) -> PettingZooEnv:
    """Return one game with discrete actions; without `rgb_array` two of the three would show blank pictures."""
    module = importlib.import_module(f"pettingzoo.butterfly.{config.name}")
    options: dict[str, Any] = {**config.options, "render_mode": "rgb_array"}
    if config.name == "pistonball_v6":
        options["continuous"] = False
    is_knights = config.name == "knights_archers_zombies_v11"
    more: dict[str, Any] = {"fresh_each_episode": True, "rewards": scores} if is_knights else {}
    return PettingZooEnv(config.name, partial(module.parallel_env, **options), draws=render, max_steps=config.options["max_cycles"], **more)


def scores(env: Any, given: Mapping[str, float]) -> dict[str, float]:
    """Return what the knights and archers scored in this step, and forget it.

    The package gives the same numbers to all but the first agent a step late, and none for the last step of who dies. It forgets a score
    when who has it acts, which the dead do not; an arrow that hits after its archer's death is still the archer's.
    """
    players: Mapping[str, Any] = env.unwrapped.agent_map
    scored = {name: float(player.score) for name, player in players.items()}
    for player in players.values():
        player.score = 0
    return scored
