"""Makes environments by the family and name in params.yaml; the only package that knows PettingZoo and its kin."""

import importlib
import importlib.util
from collections.abc import Mapping

from matwm.config import EnvConfig
from matwm.envs.base import Env, EnvError
from matwm.scenarios import FAMILIES as KNOWN

FAMILIES: Mapping[str, str] = {
    "mpe": "matwm.envs.mpe",
    "butterfly": "matwm.envs.butterfly",
    "smax": "matwm.envs.smax",
    "pettingzoo": "matwm.envs.by_path",
}
"""The module whose `make(config, render)` makes environments of a family, imported when one is wanted; the contract test runs on all."""


def is_installed(family: str) -> bool:
    """Return whether what a family needs can be imported here."""
    return importlib.util.find_spec(KNOWN[family].module) is not None


def make_env(config: EnvConfig, render: bool = False) -> Env:
    """Return the environment of the configuration; with `render`, one that can draw itself.

    Raises:
        EnvError: what it needs is not installed, or it is none that MATWM can play.
    """
    if not is_installed(config.family):
        known = KNOWN[config.family]
        raise EnvError(f"env.family is {config.family}, which needs {known.module}, and that is not installed: {known.install}")
    return importlib.import_module(FAMILIES[config.family]).make(config, render)
