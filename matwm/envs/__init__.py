"""Makes environments by the family and name in params.yaml; the only package that knows PettingZoo and its kin."""

import importlib.machinery
import importlib.util

from matwm import scenarios
from matwm.config import EnvConfig
from matwm.envs.base import Env, EnvError
from matwm.envs.output import stdout_aside


def missing(family: str) -> str | None:
    """Return what keeps environments of a family from being made here, None if nothing does."""
    known = scenarios.family(family)
    package = known.module.partition(".")[0]
    also = f"; it needs {known.also}, too" if known.also else ""
    if not is_there(package):
        return f"{known.module} is not installed: {known.install}{also}"
    if not is_there(known.module):
        return f"the {package} that is installed is another package ({known.namesake}): {known.install}{also}"
    return known.lacks()


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
        return scenarios.module(config.family).make(config, render)
