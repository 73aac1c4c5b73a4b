"""Turns a scenario's name and options, as params.yaml has them, into complete and checked options, without importing an environment."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["int", "int or null", "float", "bool"]


@dataclass(frozen=True)
class Option:
    """One keyword of a scenario: its default, what it may be, and what it means."""

    default: int | float | None
    kind: Kind
    meaning: str
    low: int | float | None = None
    high: int | float | None = None


@dataclass(frozen=True)
class Scenario:
    """What can be known of a scenario without importing it."""

    options: Mapping[str, Option]
    team: tuple[int | str, ...]
    """Numbers of agents to be added up: a fixed number, or the option that holds one."""


def _count(default: int, meaning: str, *, low: int = 1, high: int | None = 128) -> Option:
    return Option(default, "int", meaning, low, high)


_MAX_CYCLES = {"max_cycles": _count(25, "environment steps an episode", high=None)}
_LOCAL_RATIO = {"local_ratio": Option(0.5, "float", "share of an agent's own reward against the team's", 0, 1)}
_TERMINATE = {"terminate_on_success": Option(False, "bool", "end the episode when its goal is reached")}
# Nothing in MATWM advances the curriculum, so true means the first, easiest stage throughout.
_CURRICULUM = {"curriculum": Option(False, "bool", "stay on the scenario's easiest stage")}
_NEIGHBORS = {
    "num_agent_neighbors": Option(None, "int or null", "nearest agents that are observed; null: all", 1),
    "num_landmark_neighbors": Option(None, "int or null", "nearest landmarks that are observed; null: all", 1),
}
_CHASE = {
    "num_good": _count(1, "agents that are chased"),
    "num_adversaries": _count(3, "agents that chase"),
    "num_obstacles": _count(2, "landmarks in the way", low=0),
}

SCENARIOS: Mapping[str, Scenario] = {
    "simple_v3": Scenario(_MAX_CYCLES, (1,)),
    "simple_adversary_v3": Scenario({"N": _count(2, "good agents, and landmarks"), **_MAX_CYCLES, **_NEIGHBORS}, (1, "N")),
    "simple_crypto_v3": Scenario(_MAX_CYCLES, (3,)),
    "simple_formation_v1": Scenario({"N": _count(4, "agents"), **_MAX_CYCLES, **_TERMINATE}, ("N",)),
    "simple_line_v1": Scenario({"N": _count(4, "agents"), **_MAX_CYCLES, **_TERMINATE}, ("N",)),
    "simple_push_v3": Scenario(_MAX_CYCLES, (2,)),
    "simple_reference_v3": Scenario({**_LOCAL_RATIO, **_MAX_CYCLES}, (2,)),
    "simple_speaker_listener_v4": Scenario(_MAX_CYCLES, (2,)),
    "simple_spread_v3": Scenario(
        {"N": _count(3, "agents, and landmarks"), **_LOCAL_RATIO, **_MAX_CYCLES, **_CURRICULUM, **_TERMINATE, **_NEIGHBORS}, ("N",)
    ),
    "simple_tag_v3": Scenario({**_CHASE, **_MAX_CYCLES, **_CURRICULUM, **_TERMINATE, **_NEIGHBORS}, ("num_good", "num_adversaries")),
    "simple_world_comm_v3": Scenario(
        {
            "num_good": _count(2, "agents that are chased"),
            "num_adversaries": _count(4, "agents that chase, with their leader"),
            "num_obstacles": _count(1, "landmarks in the way", low=0),
            "num_food": _count(2, "pieces of food"),
            **_MAX_CYCLES,
            "num_forests": _count(2, "forests that hide those within"),
        },
        ("num_good", "num_adversaries"),
    ),
    "collect_treasure_v1": Scenario(
        {
            "num_collectors": _count(6, "agents that collect"),
            "num_deposits": _count(2, "agents that take in, and kinds of treasure", high=6),
            "num_treasures": _count(6, "pieces of treasure"),
            **_MAX_CYCLES,
        },
        ("num_collectors", "num_deposits"),
    ),
}
"""The scenarios of MPE2 1.1 by name; a test compares options and defaults with the package."""

_OURS = {"render_mode", "dynamic_rescaling", "benchmark_data"}
_EXPECTED = {
    "int": "a whole number",
    "int or null": "null or a whole number",
    "float": "a number (which YAML reads in 5.0e-1, not in 5e-1)",
    "bool": "true or false",
}


def names() -> list[str]:
    """Return the names of all scenarios."""
    return sorted(SCENARIOS)


def complete_options(name: str, options: Any) -> dict[str, Any]:
    """Return every option of a scenario explicitly, in a fixed order, with the scenario's defaults for those that the raw `options` lack.

    Raises:
        ValueError: one sentence a line, each with the full path of what is wrong.
    """
    if name not in SCENARIOS:
        raise ValueError(f"env.name {name!r} is unknown{_nearest(name, names())} known: {', '.join(names())}")
    if not isinstance(options, Mapping):
        raise ValueError(f"env.options is {options!r}: expected a section with keys")
    known = SCENARIOS[name].options
    if problems := list(_problems(name, known, options)):
        raise ValueError("\n".join(problems))
    complete = {key: options.get(key, option.default) for key, option in known.items()}
    return {key: float(value) if known[key].kind == "float" else value for key, value in complete.items()}


def num_agents(name: str, options: Mapping[str, Any]) -> int:
    """Return how many agents a scenario has with these (complete) options."""
    return sum(part if isinstance(part, int) else options[part] for part in SCENARIOS[name].team)


def _problems(name: str, known: Mapping[str, Option], options: Mapping[Any, Any]) -> Iterator[str]:
    for key, value in options.items():
        path = f"env.options.{key}"
        if key == "continuous_actions":
            if value is not False:
                yield f"{path} is {value!r}, but MATWM has discrete actions only: remove it"
        elif key in _OURS:
            yield f"{path} is not yours to set, since MATWM decides when to draw: remove it"
        elif key not in known:
            yield f"{path} is unknown{_nearest(str(key), list(known))} {name} has: {', '.join(known)}"
        elif problem := _misfit(known[key], value):
            yield f"{path} is {value!r}, expected {problem} ({known[key].meaning})"


def _misfit(option: Option, value: Any) -> str | None:
    """Return what was expected, or None if the value is that."""
    expected = _EXPECTED[option.kind]
    if option.kind == "bool":
        return None if isinstance(value, bool) else expected
    if value is None and option.kind == "int or null":
        return None
    # A bool is an int to Python, not to a person.
    if isinstance(value, bool) or not isinstance(value, (int, float) if option.kind == "float" else int):
        return expected
    within = (option.low is None or value >= option.low) and (option.high is None or value <= option.high)
    return None if within else (expected if option.kind != "float" else "a number") + _limits(option)


def _limits(option: Option) -> str:
    if option.high is None:
        return f" of at least {option.low}"
    return f" from {option.low} to {option.high}"


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f", did you mean {close[0]}?" if close else ";"
