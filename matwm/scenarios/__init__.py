"""Knows the families of environments by name: one line each in `FAMILIES`; validates and completes the options of their scenarios.

The module of a family declares `FAMILY`, a `Family`, and `make(config, render)`, which returns an environment (matwm/envs/base.py). It is
imported when its family is named, also to validate a configuration, so it imports what its environments need inside of functions.
"""

import importlib
import re
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Annotated, Any

from pydantic import AfterValidator
from pydantic_core import PydanticKnownError

from matwm.scenarios import objective
from matwm.scenarios.family import Family, Scenario
from matwm.scenarios.objective import Objective
from matwm.scenarios.options import complete, nearest, not_yours
from matwm.scenarios.sides import ONE_TEAM, Side

__all__ = [
    "FAMILIES",
    "OWN",
    "Family",
    "FamilyName",
    "Objective",
    "Scenario",
    "Side",
    "complete_options",
    "families",
    "family",
    "module",
    "names",
    "num_agents",
    "objectives",
    "sides",
]

FAMILIES: dict[str, str] = {
    "mpe": "matwm.envs.mpe",
    "butterfly": "matwm.envs.butterfly",
    "smax": "matwm.envs.smax",
    "smac": "matwm.envs.smac",
    "meltingpot": "matwm.envs.meltingpot",
    "pettingzoo": "matwm.envs.by_path",
}
"""Name of a family: its module; the contract test runs on all."""
OWN = "pettingzoo"
"""The family of environments by import path, of which nothing else is known."""

_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def module(family_name: str) -> ModuleType:
    """Return the module of a family: it has `make(config, render)`."""
    return importlib.import_module(FAMILIES[family_name])


def family(name: str) -> Family:
    """Return what the module of a family declares."""
    declared = module(name).FAMILY
    assert isinstance(declared, Family), f"FAMILY of {FAMILIES[name]} is {declared!r}"
    return declared


def families() -> dict[str, Family]:
    """Return what all families declare, by name."""
    return {name: family(name) for name in FAMILIES}


def _known(name: str) -> str:
    if name not in FAMILIES:
        *others, last = map(repr, FAMILIES)
        raise PydanticKnownError("literal_error", {"expected": f"{', '.join(others)} or {last}" if others else last})
    return name


FamilyName = Annotated[str, AfterValidator(_known)]
"""The name of a family in a pydantic model."""


def names(family_name: str) -> list[str]:
    """Return the names of a family's scenarios; there are none where any import path is one."""
    return sorted(family(family_name).scenarios)


def complete_options(family_name: str, name: str, options: Any) -> dict[str, Any]:
    """Return every option of a scenario explicitly, in a fixed order, with the scenario's defaults for those that the raw `options` lack.

    Of an environment by import path nothing is known: its options are those that were given.

    Raises:
        ValueError: one sentence a line, each with the full path of what is wrong.
    """
    known = family(family_name).scenarios
    if known and name not in known:
        listed = sorted(known)
        raise ValueError(f"env.name {name!r} is unknown{nearest(name, listed)} known: {', '.join(listed)}")
    if not known and not _IMPORT_PATH.fullmatch(name):
        raise ValueError(f"env.name is {name!r}: expected an import path like package.module:parallel_env")
    if not isinstance(options, Mapping):
        raise ValueError(f"env.options is {options!r}: expected a section with keys")
    if not known:
        if sentences := list(_unknowable(options)):
            raise ValueError("\n".join(sentences))
        return dict(options)
    completed = complete(name, known[name].options, options)
    if num_agents(family_name, name, completed) == 0:
        team = [f"env.options.{part}" for part in known[name].team]
        raise ValueError(f"{' and '.join(team)} are 0: expected at least one agent")
    return completed


def num_agents(family_name: str, name: str, options: Mapping[str, Any]) -> int | None:
    """Return how many agents a scenario has with these (complete) options; None where only the environment itself knows."""
    known = family(family_name).scenarios
    return sum(part if isinstance(part, int) else options[part] for part in known[name].team) if known else None


def sides(family_name: str, name: str) -> tuple[Side, ...]:
    """Return the sides of a scenario; where nobody has written them down, all agents are one."""
    known = family(family_name).scenarios
    return known[name].sides if known else ONE_TEAM


def objectives(family_name: str, name: str) -> tuple[Objective, ...]:
    """Return what runs of a scenario are judged by; nothing where agents have interests of their own, or nobody has written it down."""
    known = family(family_name).scenarios
    return tuple(map(objective.parse, known[name].objectives)) if known else ()


def _unknowable(options: Mapping[Any, Any]) -> Iterator[str]:
    """Yield what can be wrong with options of which nothing is known."""
    for key, value in options.items():
        if not isinstance(key, str) or not key.isidentifier():
            yield f"env.options has the key {key!r}: expected the name of one of the environment's arguments"
        elif complaint := not_yours(key, value):
            yield complaint
        elif not _is_plain(value):
            yield f"env.options.{key} is {value!r}: expected a number, text, true, false, null, or lists and sections of them"


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and value - value == 0)
