"""Applies changed values to the configuration of the checkpoint that a segment starts from, as far as its state bears them."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from matwm.changes import Change, changes
from matwm.config import Config, ConfigError, EnvConfig, merge
from matwm.params_yaml import LINEAGE, parse_config


def apply(parent: Config, override: Mapping[str, Any], where: str) -> Config:
    """Return the parent's configuration with the override's values, checked by the schema and by what a branch may change.

    `where` goes before a path in the sentences and ends in what joins the two: `params.yaml: segments.s01.override.`

    Raises:
        ConfigError: one sentence for each value that is wrong, does not fit the others, or cannot change.
    """
    allowed, forbidden = _split(parent, override, "")
    problems = [_refusal(change, where) for change in forbidden]
    try:
        config = begin(parent, allowed, where)
        problems += [_refusal(change, where) for change in changes(parent, config) if change.branch == "fixed"]
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from None
    if problems:
        raise ConfigError(problems)
    return config


def begin(base: Config, override: Mapping[str, Any], where: str) -> Config:
    """Return a configuration with the override's values, checked by the schema alone: at the start of a lineage all may change.

    Raises:
        ConfigError: one sentence for each value that is wrong or does not fit the others.
    """
    problems: list[str] = []
    for key in [key for key in LINEAGE if key in override]:
        problems.append(f"{where}{key} is unknown: an override holds sections such as world_model or actor_critic")
    try:
        config = parse_config(merge(base.resolved(), override), source="")
    except ConfigError as error:
        raise ConfigError(problems + [_located(line.removeprefix(": "), where, override) for line in error.problems]) from None
    if problems:
        raise ConfigError(problems)
    return config


def _split(section: BaseModel, override: Mapping[str, Any], prefix: str) -> tuple[dict[str, Any], list[Change]]:
    """Return the override without what a branch cannot change, and that: what is left is judged as if nobody had tried."""
    allowed, forbidden = dict(override), list[Change]()
    for name, info in type(section).model_fields.items():
        key = info.alias or name
        if key not in override:
            continue
        path, old, new = f"{prefix}{key}", getattr(section, name), override[key]
        marks: Any = info.json_schema_extra or {}
        if isinstance(old, BaseModel):
            if isinstance(new, Mapping):
                allowed[key], found = _split(old, new, f"{path}.")
                forbidden += found
        elif isinstance(section, EnvConfig) and key == "options":
            found = list(_changed_options(section, override, path))
            forbidden += found
            if found or "name" not in allowed and "name" in override:
                del allowed[key]
        elif marks["branch"] == "fixed" and new != old:
            forbidden.append(Change(path, old, new, marks["branch"], marks["shapes"]))
            del allowed[key]
    return allowed, forbidden


def _changed_options(env: EnvConfig, override: Mapping[str, Any], path: str) -> Iterator[Change]:
    """Yield the options that would differ; with another scenario they say nothing, and wrong ones are the schema's business."""
    if override.get("name", env.name) != env.name:
        return
    try:
        options = EnvConfig.model_validate({**env.model_dump(), "options": override["options"]}).options
    except ValidationError:
        return
    for key, before in env.options.items():
        if options[key] != before:
            yield Change(f"{path}.{key}", before, options[key], "fixed", shapes=True)


def _refusal(change: Change, where: str) -> str:
    return (
        f"{where}{change.path} is {change.after!r}, but the checkpoint it starts from has {change.before!r}, "
        "which a continued segment cannot change: start a segment from checkpoints/root for that"
    )


def _located(line: str, where: str, override: Mapping[str, Any]) -> str:
    """Return a sentence about a configuration as one about the override that made it: most begin with one of its paths."""
    is_its_own = any(line.startswith((f"{path} ", f"{path}.", f"{path}:")) for path in _paths(override))
    return f"{where}{line}" if is_its_own else f"{where[:-1]}: {line}"


def _paths(override: Mapping[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key, value in override.items():
        found += _paths(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else [f"{prefix}{key}"]
    return found
