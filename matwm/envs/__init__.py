"""Makes environments by the family and name in params.yaml; the only package that knows PettingZoo."""

from collections.abc import Callable, Mapping

from matwm.config import EnvConfig
from matwm.envs.base import Env
from matwm.envs.mpe import MpeEnv

FAMILIES: Mapping[str, Callable[[EnvConfig, bool], Env]] = {"mpe": MpeEnv}
"""What makes the environments of each family: a new family is one line here, and the contract test runs on it."""


def make_env(config: EnvConfig, render: bool = False) -> Env:
    """Return the environment of the configuration; with `render`, one that can draw itself."""
    return FAMILIES[config.family](config, render)
