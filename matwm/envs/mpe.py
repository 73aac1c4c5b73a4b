"""Makes the scenarios of MPE2."""

import importlib

from matwm.config import EnvConfig
from matwm.envs.pettingzoo import PettingZooEnv


def make(config: EnvConfig, render: bool) -> PettingZooEnv:
    """Return one MPE2 scenario, with discrete actions and the options of the configuration."""
    module = importlib.import_module(f"mpe2.{config.name}")
    return PettingZooEnv(
        config.name,
        lambda: module.parallel_env(**config.options, continuous_actions=False, render_mode="rgb_array" if render else None),
        draws=render,
        max_steps=config.options["max_cycles"],
    )
