"""Checks the options of a scenario against what it has, and completes them."""

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from matwm.types import AgentSpec

Kind = Literal["int", "int or null", "float", "bool", "word"]


@dataclass(frozen=True)
class Option:
    """One keyword of a scenario: its default, what it may be, and what it means."""

    default: int | float | str | None
    kind: Kind
    meaning: str
    low: int | float | None = None
    high: int | float | None = None
    """None: no limit of its own; whole numbers have 32 bits all the same."""
    words: tuple[str, ...] = ()
    """What an option of kind "word" may be."""


@dataclass(frozen=True)
class Scenario:
    """What can be known of a scenario without importing it."""

    options: Mapping[str, Option]
    team: tuple[int | str, ...]
    """Numbers of agents to be added up: a fixed number, or the option that holds one."""
    agent: AgentSpec | None = None
    """Every agent's with the default options, where that is known without the package; its name lacks the number."""


_CONTINUOUS = {"continuous_actions", "continuous"}
_OURS = {"render_mode", "dynamic_rescaling", "benchmark_data"}
_EXPECTED = {
    "int": "a whole number",
    "int or null": "null or a whole number",
    "float": "a number (which YAML reads in 5.0e-1, not in 5e-1)",
    "bool": "true or false",
}
_LARGEST_INT = 2**31 - 1
"""What JAX and others that environments are made of can count to."""


def count(default: int, meaning: str, *, low: int = 1, high: int | None = 128) -> Option:
    """Return an option that is a number of things."""
    return Option(default, "int", meaning, low, high)


def completed(known: Mapping[str, Option], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return every option explicitly, in a fixed order, with the defaults for those that are not given."""
    complete = {key: options.get(key, option.default) for key, option in known.items()}
    return {key: float(value) if known[key].kind == "float" else value for key, value in complete.items()}


def problems(name: str, known: Mapping[str, Option], options: Mapping[Any, Any]) -> Iterator[str]:
    """Yield a sentence for each option that a scenario does not have, or not with this value."""
    for key, value in options.items():
        if key in _CONTINUOUS and value is False:
            continue
        if complaint := not_yours(key, value):
            yield complaint
        elif key not in known:
            yield f"env.options.{key} is unknown{nearest(str(key), list(known))} {name} has: {', '.join(known)}"
        elif expected := _misfit(known[key], value):
            yield f"env.options.{key} is {value!r}, expected {expected} ({known[key].meaning})"


def not_yours(key: Any, value: Any) -> str | None:
    """Return why an option is none that a person sets, None if it may be one."""
    path = f"env.options.{key}"
    if key in _CONTINUOUS and value is not False:
        return f"{path} is {value!r}, but MATWM has discrete actions only: remove it"
    if key in _OURS:
        return f"{path} is not yours to set, since MATWM decides when to draw: remove it"
    return None


def nearest(word: str, known: Sequence[str]) -> str:
    """Return how a sentence about an unknown word goes on: with the likeliest one that is known, if one is."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f", did you mean {close[0]}?" if close else ";"


def _misfit(option: Option, value: Any) -> str | None:
    """Return what was expected, or None if the value is that."""
    if option.kind == "word":
        return None if value in option.words else f"one of {', '.join(option.words)}"
    expected = _EXPECTED[option.kind]
    if option.kind == "bool":
        return None if isinstance(value, bool) else expected
    if value is None and option.kind == "int or null":
        return None
    # A bool is an int to Python, not to a person.
    if isinstance(value, bool) or not isinstance(value, (int, float) if option.kind == "float" else int):
        return expected
    if option.kind == "float" and not _is_finite(value):
        return "a finite number of at most 308 digits"
    if option.kind != "float" and option.high is None and value > _LARGEST_INT:
        return f"a whole number of at most {_LARGEST_INT}"
    within = (option.low is None or value >= option.low) and (option.high is None or value <= option.high)
    return None if within else (expected if option.kind != "float" else "a number") + _limits(option)


def _is_finite(value: float) -> bool:
    """Return whether a number, also a whole one of any length, is finite as a float."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _limits(option: Option) -> str:
    if option.high is None:
        return f" of at least {option.low}"
    return f" from {option.low} to {option.high}"
