"""The family of PettingZoo 1.27's Butterfly; a test compares options and defaults with the package."""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Int, UInt8

from matwm.config import EnvConfig
from matwm.scenarios.family import Family, Scenario
from matwm.scenarios.options import Definition, count, option, options
from matwm.scenarios.sides import Side, ruled

if TYPE_CHECKING:
    from matwm.envs.pettingzoo import PettingZooEnv

DOWN, UP = 0, 2
ABOVE = 54
"""Rows of the picture, from the top, that no piston reaches."""
PASSED = 26
"""Column of the picture: a ball whose middle is left of it has its slope towards the wall over the piston, which spans 21 to 43."""
BALL = 80
"""How much more blue than red the ball is, at least; all else above the pistons is grey."""
SPECK = 3
"""Pixels of the ball fewer than which say nothing."""


def make(config: EnvConfig, render: bool) -> "PettingZooEnv":
    """Return one game with discrete actions; without `rgb_array` two of the three would show blank pictures."""
    from matwm.envs.pettingzoo import PettingZooEnv

    module = importlib.import_module(f"pettingzoo.butterfly.{config.name}")
    chosen: dict[str, Any] = {**config.options, "render_mode": "rgb_array"}
    if config.name == "pistonball_v6":
        chosen["continuous"] = False
    is_knights = config.name == "knights_archers_zombies_v11"
    more: dict[str, Any] = {"fresh_each_episode": True, "rewards": scores} if is_knights else {}
    limit = config.options["max_cycles"]
    return PettingZooEnv(config.name, lambda seed: module.parallel_env(**chosen), draws=render, max_steps=limit, **more)


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


def lift_behind(obs: UInt8[np.ndarray, "E channels height width"]) -> Int[np.ndarray, " E"]:
    """Play a piston of Pistonball: rise where the ball has passed to the left, so that it rolls on, else make way."""
    red, blue = (obs[:, channel, :ABOVE].astype(np.int64) for channel in (0, 2))
    columns = (blue - red > BALL).sum(1)
    pixels = columns.sum(1)
    middle = (columns * np.arange(obs.shape[-1])).sum(1) / np.maximum(pixels, 1)
    return np.where((pixels >= SPECK) & (middle < PASSED), UP, DOWN)


def _max_cycles(default: int) -> dict[str, Definition]:
    return {"max_cycles": count(default, "environment steps an episode", high=None)}


def _number(default: float, meaning: str, low: float | None = None, high: float | None = None) -> Definition:
    return option(float, default, meaning, low=low, high=high)


SCENARIOS: Mapping[str, Scenario] = {
    "cooperative_pong_v6": Scenario(
        options(
            ball_speed=_number(9.0, "pixels a step", 1, 100),
            left_paddle_speed=_number(12.0, "pixels a step", 1, 100),
            right_paddle_speed=_number(12.0, "pixels a step", 1, 100),
            cake_paddle=option(bool, True, "the right paddle has steps like a cake"),
            **_max_cycles(900),
            bounce_randomness=option(bool, False, "the ball leaves a paddle at a random angle"),
            max_reward=_number(100.0, "return of an episode that reaches its time limit"),
            off_screen_penalty=_number(-10.0, "reward when the ball is lost"),
            render_ratio=count(2, "screen pixels a pixel of the picture", high=8),
        ),
        (2,),
        objectives=("self_play/paddle",),
    ),
    "pistonball_v6": Scenario(
        options(
            # The ball of the package starts at the wall that it is to reach where there are fewer.
            n_pistons=count(20, "agents", low=4),
            time_penalty=_number(-0.1, "reward of each step"),
            random_drop=option(bool, True, "the ball starts anywhere"),
            random_rotate=option(bool, True, "the ball starts spinning"),
            ball_mass=_number(0.75, "mass of the ball", 0.01, 100),
            ball_friction=_number(0.3, "friction of the ball", 0, 10),
            ball_elasticity=_number(1.5, "elasticity of the ball", 0, 10),
            **_max_cycles(125),
        ),
        ("n_pistons",),
        sides=(Side(None, {"lift": {"piston": ruled(lambda options: lift_behind)}}, frozen=("random",)),),
        objectives=("self_play/piston",),
    ),
    "knights_archers_zombies_v11": Scenario(
        options(
            spawn_delay=count(20, "steps between new zombies", high=10_000),
            num_archers=count(2, "agents that shoot", low=0, high=10),
            num_knights=count(2, "agents that strike", low=0, high=10),
            max_zombies=count(10, "zombies at a time"),
            max_arrows=count(10, "arrows at a time"),
            killable_knights=option(bool, True, "zombies kill knights"),
            killable_archers=option(bool, True, "zombies kill archers"),
            line_death=option(bool, False, "agents die at the upper and lower edge"),
            **_max_cycles(900),
            # Its fourth, vector-sequence, changes length from step to step.
            obs_method=option(Literal["vector", "vector-masked", "image"], "vector", "what agents see"),
        ),
        ("num_archers", "num_knights"),
        objectives=("self_play/archer", "self_play/knight"),
    ),
}
"""By name; actions are discrete throughout."""

FAMILY = Family(
    "cooperative games with pictures (PettingZoo Butterfly)",
    "pymunk",
    ".venv/bin/pip install -e '.[butterfly]'",
    "replay",
    SCENARIOS,
    packages=("pettingzoo", "pygame-ce", "pymunk"),
)
