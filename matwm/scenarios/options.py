"""Checks the options of a scenario against its pydantic model, completes them, and writes a sentence for each that is wrong."""

from collections.abc import Iterator, Mapping, Sequence
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from matwm.spelling import close

LARGEST_INT = 2**31 - 1
"""What JAX and others that environments are made of can count to."""
_CONTINUOUS = {"continuous_actions", "continuous"}
_OURS = {"render_mode", "dynamic_rescaling", "benchmark_data"}
_EXPECTED = {
    int: "a whole number",
    float: "a number (which YAML reads in 5.0e-1, not in 5e-1)",
    bool: "true or false",
    str: "text",
    NoneType: "null",
}


class Options(BaseModel):
    """The options of a scenario, each with its default and its meaning: immutable, no unknown keys, no silent conversion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Definition = tuple[Any, Any]
"""The type of an option, and its default, limits and meaning."""


def option(kind: Any, default: float | str | None, meaning: str, *, low: float | None = None, high: float | None = None) -> Definition:
    """Return an option of the type `kind`, from `low` to `high`; whole numbers have 32 bits all the same."""
    if high is None and int in _kinds(kind):
        high = LARGEST_INT
    return kind, Field(default=default, description=meaning, ge=low, le=high)


def count(default: int, meaning: str, *, low: int = 1, high: int | None = 128) -> Definition:
    """Return an option that is a number of things."""
    return option(int, default, meaning, low=low, high=high)


def options(**definitions: Definition) -> type[Options]:
    """Return the model of these options in this order, which scenarios share in part and so do not inherit."""
    fields: dict[str, Any] = dict(definitions)
    return create_model("ScenarioOptions", __base__=Options, **fields)


def complete(scenario: str, model: type[Options], given: Mapping[Any, Any]) -> dict[str, Any]:
    """Return every option of a scenario explicitly, in the order of its model, with the defaults for those that are not given.

    Raises:
        ValueError: one sentence a line for each option that the scenario does not have, or not with this value.
    """
    try:
        valid = model.model_validate({key: value for key, value in given.items() if key in model.model_fields})
    except ValidationError as error:
        wrong, valid = {(entry["loc"] or ("",))[0]: entry for entry in error.errors()}, None
    else:
        wrong = {}
    sentences = list(_problems(scenario, model, given, wrong))
    if sentences or valid is None:
        raise ValueError("\n".join(sentences))
    return valid.model_dump()


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
    found = close(word, known)
    return f", did you mean {found[0]}?" if found else ";"


def _problems(scenario: str, model: type[Options], given: Mapping[Any, Any], wrong: Mapping[Any, Any]) -> Iterator[str]:
    """Yield a sentence for each option that is wrong, in the order in which they are given; `wrong`: what pydantic found, by option."""
    known = list(model.model_fields)
    for key, value in given.items():
        if key in _CONTINUOUS and value is False and key not in known:
            continue
        if complaint := not_yours(key, value):
            yield complaint
        elif key not in known:
            yield f"env.options.{key} is unknown{nearest(str(key), known)} {scenario} has: {', '.join(known)}"
        elif key in wrong:
            field = model.model_fields[key]
            meaning = f" ({field.description})" if field.description else ""
            yield f"env.options.{key} is {value!r}, expected {_expected(field, wrong[key])}{meaning}"
    for key, entry in wrong.items():
        if key not in given:  # A check of the model's own, of several options together or of one that is missing.
            yield f"env.options{f'.{key}' if key else ''}: {entry['msg']}"


def _expected(field: FieldInfo, entry: Mapping[str, Any]) -> str:
    """Return what a value should be that pydantic refused."""
    kinds, limits = _kinds(field.annotation), _limits(field)
    kind = " or ".join(_EXPECTED[kind] for kind in sorted(kinds, key=lambda kind: kind is not NoneType) if kind in _EXPECTED)
    match entry["type"]:
        case "literal_error":
            return f"one of {', '.join(map(str, get_args(field.annotation)))}"
        case "finite_number":
            return "a finite number of at most 308 digits"
        case "float_type" if isinstance(entry["input"], int) and not isinstance(entry["input"], bool):  # of more digits than a float has
            return "a finite number of at most 308 digits"
        case "less_than_equal" | "greater_than_equal" if float in kinds:
            return f"a number{_range(limits)}"
        case "less_than_equal" if limits.get("le") == LARGEST_INT:
            return f"a whole number of at most {LARGEST_INT}"
        case "less_than_equal" | "greater_than_equal":
            return f"{kind}{_range(limits)}"
    return kind if kind and entry["type"].endswith("_type") else str(entry["msg"])


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """Return the types that an option may have."""
    return (annotation,) if get_origin(annotation) in (None, Literal) else get_args(annotation)


def _limits(field: FieldInfo) -> dict[str, float]:
    """Return the limits of an option, by pydantic's names."""
    return {name: getattr(mark, name) for mark in field.metadata for name in ("ge", "le") if hasattr(mark, name)}


def _range(limits: Mapping[str, float]) -> str:
    low, high = limits.get("ge"), limits.get("le")
    if high is None or high == LARGEST_INT:
        return f" of at least {low}"
    return f" of at most {high}" if low is None else f" from {low} to {high}"
