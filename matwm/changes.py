"""Says what differs between two configurations, and which of it training that goes on from a checkpoint may change."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from matwm.config import Branch, Config
from matwm.yaml_text import to_yaml


@dataclass(frozen=True)
class Change:
    """One value that differs, with the marks of its field in the schema."""

    path: str
    before: Any
    after: Any
    branch: Branch
    shapes: bool

    def __str__(self) -> str:
        return f"{self.path} {as_yaml(self.before)} -> {as_yaml(self.after)}"


def changes(before: Config, after: Config) -> list[Change]:
    """Return every value that differs, in the order of the schema; a scenario's options are values of their own."""
    return list(_walk(before, after, ""))


def as_yaml(value: Any) -> str:
    """Return a value as it may be written in params.yaml, on one line."""
    text = to_yaml(value, default_flow_style=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _walk(before: BaseModel, after: BaseModel, prefix: str) -> Iterator[Change]:
    for name, info in type(before).model_fields.items():
        path = f"{prefix}{info.alias or name}"
        old, new = getattr(before, name), getattr(after, name)
        if old == new:
            continue
        marks: Any = info.json_schema_extra or {}
        if isinstance(old, BaseModel):
            yield from _walk(old, new, f"{path}.")
        elif _are_sections(old) and _are_sections(new) and len(old) == len(new):
            for number, (one, other) in enumerate(zip(old, new, strict=True)):
                yield from _walk(one, other, f"{path}.{number}.")
        elif isinstance(old, Mapping) and isinstance(new, Mapping):
            for key in [*old, *(key for key in new if key not in old)]:
                if old.get(key) != new.get(key):
                    yield Change(f"{path}.{key}", old.get(key), new.get(key), marks["branch"], marks["shapes"])
        else:
            yield Change(path, _plain(old), _plain(new), marks["branch"], marks["shapes"])


def _are_sections(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, BaseModel) for item in value)


def _plain(value: Any) -> Any:
    return [item.model_dump(mode="json", by_alias=True) for item in value] if _are_sections(value) else value
