"""The family of any parallel environments of PettingZoo by their import path, such as `package.module:parallel_env`.

Nothing is known of such an environment: it is made anew for each episode, since whether its `reset(seed)` forgets everything is unknown,
and a resumed episode is played again from its seed. One that draws randomness which `reset(seed)` does not seed must say so by
`metadata["nondeterministic"] = True`; then a resumed run begins a fresh episode. One of which no two can be open at a time says
`metadata["one_at_a_time"] = True`.
"""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matwm.config import EnvConfig
from matwm.envs.base import EnvError, blaming
from matwm.scenarios.family import Family
from matwm.scenarios.options import nearest

if TYPE_CHECKING:
    from matwm.envs.pettingzoo import PettingZooEnv

FAMILY = Family("any parallel environment of PettingZoo by import path", "pettingzoo", "make venv", "replay", packages=("pettingzoo",))


def make(config: EnvConfig, render: bool) -> "PettingZooEnv":
    """Return the environment.

    Raises:
        EnvError: it cannot be imported or made, or is none that MATWM can play.
    """
    from matwm.envs.guest import Guest, Stay
    from matwm.envs.pettingzoo import PettingZooEnv

    with Stay(0).visit(f"importing {config.name}", config.seconds_per_call):
        factory = _factory(config.name)
    limit = config.options.get("max_cycles")
    with blaming(f"env.name is {config.name}, and reading it"):
        return PettingZooEnv(
            config.name,
            lambda seed: Guest(config.name, lambda: _made(config, factory), seed=seed, seconds=config.seconds_per_call),
            draws=render,
            fresh_each_episode=True,
            max_steps=limit if isinstance(limit, int) else None,
        )


def _factory(name: str) -> Callable[..., Any]:
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # A project's own environments lie beside its params.yaml.
    with blaming(f"env.name is {name}, and importing {module_name}"):
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
                raise EnvError(
                    f"env.name is {name}, but there is no module {error.name} among the installed packages or in {here}"
                ) from None
            raise
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [known for known in dir(found) if not known.startswith("_")]
            raise EnvError(f"env.name is {name}, but {module_name} has no {part}{nearest(part, public).rstrip(';')}")
        found = getattr(found, part)
    if not callable(found):
        raise EnvError(f"env.name is {name}, which is no function or class that makes an environment but {found!r}")
    return found


def _made(config: EnvConfig, factory: Callable[..., Any]) -> Any:
    """Make it with pictures if it can: some observe nothing without."""
    from matwm.envs.base import OverdueError

    given = ", ".join(f"{key}={value!r}" for key, value in config.options.items())
    what = f"env.name is {config.name}, and making it with ({given})"
    try:
        with blaming(what):
            return factory(**config.options, render_mode="rgb_array")
    except OverdueError:
        raise
    except EnvError:  # If it is not for the pictures, it happens again.
        with blaming(what):
            return factory(**config.options)
