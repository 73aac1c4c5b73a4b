"""Makes environments by the family and name in params.yaml; the only package that knows PettingZoo and its kin."""

import importlib
import importlib.machinery
import importlib.util
from collections.abc import Mapping

from matwm.config import EnvConfig
from matwm.envs.base import Env, EnvError
from matwm.envs.output import stdout_aside
from matwm.scenarios import FAMILIES as KNOWN

FAMILIES: Mapping[str, str] = {
    "mpe": "matwm.envs.mpe",
    "butterfly": "matwm.envs.butterfly",
    "smax": "matwm.envs.smax",
    "smac": "matwm.envs.smac",
    "meltingpot": "matwm.envs.meltingpot",
    "pettingzoo": "matwm.envs.by_path",
}
"""The module whose `make(config, render)` makes environments of a family, imported when one is wanted; the contract test runs on all."""


def missing(family: str) -> str | None:
    """Return what keeps environments of a family from being made here, None if nothing does."""
    known = KNOWN[family]
    package = known.module.partition(".")[0]
    also = f"; it needs {known.also}, too" if known.also else ""
    if not is_there(package):
        return f"{known.module} is not installed: {known.install}{also}"
    if not is_there(known.module):
        return f"the {package} that is installed is another package ({known.namesake}): {known.install}{also}"
    if family == "smac":
        from matwm.envs.smac import missing_game

        return missing_game()
    return None


def is_installed(family: str) -> bool:
    """Return whether what a family needs is here."""
    return missing(family) is None


def is_there(module: str) -> bool:
    """Return whether a module can be found, without importing the packages that it is in."""
    package, *inner = module.split(".")
    found, name = importlib.util.find_spec(package), package
    for part in inner:
        if found is None:
            break
        name = f"{name}.{part}"
        found = importlib.machinery.PathFinder.find_spec(name, found.submodule_search_locations)
    return found is not None


def make_env(config: EnvConfig, render: bool = False) -> Env:
    """Return the environment of the configuration; with `render`, one that can draw itself. What making it prints goes to stderr.

    Raises:
        EnvError: what it needs is not installed, or it is none that MATWM can play.
    """
    if (problem := missing(config.family)) is not None:
        raise EnvError(f"env.family is {config.family}, but {problem}")
    with stdout_aside():
        return importlib.import_module(FAMILIES[config.family]).make(config, render)
