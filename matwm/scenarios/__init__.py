"""Says what families of environments and scenarios there are and what they are told, without importing an environment."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from matwm.scenarios import butterfly, meltingpot, mpe, smac, smax
from matwm.scenarios.option import Option, Scenario, completed, nearest, not_yours, problems

__all__ = ["FAMILIES", "Family", "Option", "Scenario", "complete_options", "names", "num_agents"]

_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True)
class Family:
    """Environments that come from one place."""

    meaning: str
    module: str
    """What must be there to import for its environments to run."""
    install: str
    """The command that installs that."""
    resume: Literal["replay", "snapshot", "episode"]
    """How its episodes come back (matwm/types.py); an environment by import path may say otherwise of itself."""
    scenarios: Mapping[str, Scenario] = field(default_factory=dict)
    """By name; none where a name is an import path."""
    note: str = ""
    """What to know before its numbers are compared with anybody's."""
    also: str = ""
    """What must be there besides the package."""
    namesake: str = ""
    """What the package index has under the name of the package."""
    is_heavy: bool = False
    """Each environment is a game with gigabytes of its own: no two are run side by side."""


FAMILIES: Mapping[str, Family] = {
    "mpe": Family("particles in a plane (MPE2)", "mpe2", "make venv", "replay", mpe.SCENARIOS),
    "butterfly": Family(
        "cooperative games with pictures (PettingZoo Butterfly)",
        "pymunk",
        ".venv/bin/pip install -e '.[butterfly]'",
        "replay",
        butterfly.SCENARIOS,
    ),
    "smax": Family(
        "battles like StarCraft's, in JAX (JaxMARL)",
        "jaxmarl",
        "make smax",
        "snapshot",
        smax.SCENARIOS,
        note="not StarCraft II: win rates do not compare with SMAC's",
    ),
    "smac": Family(
        "battles in StarCraft II (SMAC)",
        "smac.env",
        ".venv/bin/pip install --no-deps git+https://github.com/oxwhirl/smac.git pysc2 s2clientprotocol absl-py websocket-client "
        "portpicker mpyq",
        "episode",
        smac.SCENARIOS,
        note="tested against an imitation of SMAC's interface, never with the game itself",
        also="StarCraft II in $SC2PATH (else ~/StarCraftII) with SMAC's maps in Maps/SMAC_Maps, and "
        "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python in the environment",
        namesake="the smac of the package index is SMAC3, an optimiser of hyper-parameters",
        is_heavy=True,
    ),
    "meltingpot": Family(
        "social dilemmas with pictures (Melting Pot)",
        "meltingpot",
        "make meltingpot",
        "episode",
        meltingpot.SCENARIOS,
        note="players see RGB only; returns depend on max_cycles, 1,000 steps unless told otherwise: state it with every number",
    ),
    "pettingzoo": Family("any parallel environment of PettingZoo by import path", "pettingzoo", "make venv", "replay"),
}


def names(family: str) -> list[str]:
    """Return the names of a family's scenarios; there are none where any import path is one."""
    return sorted(FAMILIES[family].scenarios)


def complete_options(family: str, name: str, options: Any) -> dict[str, Any]:
    """Return every option of a scenario explicitly, in a fixed order, with the scenario's defaults for those that the raw `options` lack.

    Of an environment by import path nothing is known: its options are those that were given.

    Raises:
        ValueError: one sentence a line, each with the full path of what is wrong.
    """
    known = FAMILIES[family].scenarios
    if known and name not in known:
        raise ValueError(f"env.name {name!r} is unknown{nearest(name, names(family))} known: {', '.join(names(family))}")
    if not known and not _IMPORT_PATH.fullmatch(name):
        raise ValueError(f"env.name is {name!r}: expected an import path like package.module:parallel_env")
    if not isinstance(options, Mapping):
        raise ValueError(f"env.options is {options!r}: expected a section with keys")
    found = problems(name, known[name].options, options) if known else _unknowable(options)
    if sentences := list(found):
        raise ValueError("\n".join(sentences))
    complete = completed(known[name].options, options) if known else dict(options)
    if num_agents(family, name, complete) == 0:
        team = [f"env.options.{part}" for part in known[name].team]
        raise ValueError(f"{' and '.join(team)} are 0: expected at least one agent")
    return complete


def num_agents(family: str, name: str, options: Mapping[str, Any]) -> int | None:
    """Return how many agents a scenario has with these (complete) options; None where only the environment itself knows."""
    known = FAMILIES[family].scenarios
    return sum(part if isinstance(part, int) else options[part] for part in known[name].team) if known else None


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
