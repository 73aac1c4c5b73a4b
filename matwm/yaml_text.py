"""Reads YAML as params.yaml means it: plain data, no key twice, numbers also as DVC writes them; and lays one file over another."""

import re
from typing import Any

import yaml


def read_yaml(text: str) -> Any:
    """Return what a YAML document says.

    Raises:
        yaml.YAMLError: it is none, says a key twice, or refers to itself.
    """
    return yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)


def overlaid(text: str, changes: str) -> str:
    """Return the text of a file with another one's entries, and their comments, in the place of its own.

    As `matwm.config.merge` does it with what they say: section by section, but lists and `options` as one entry. Both have a key a
    line, with comments beside values or above the first key; those above the first key are the second file's.
    """
    return "\n".join(_overlaid(text.splitlines(), changes.splitlines())) + "\n"


def _overlaid(lines: list[str], changes: list[str]) -> list[str]:
    head, entries = _entries(lines)
    own_head, changed = _entries(changes)
    for key, entry in changed.items():
        before = entries.get(key, [])
        if key != "options" and _is_section(before) and _is_section(entry):
            title = entry[0] if "#" in entry[0] else before[0]
            entries[key] = [title, *_overlaid(before[1:], entry[1:])]
        else:
            gap = before[len(_stripped(before)) :]
            entries[key] = [*_stripped(entry), *gap]
    return [*(own_head or head), *(line for entry in entries.values() for line in entry)]


def _entries(lines: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Return what stands above the first key, and each key's own lines, with the blank ones below them."""
    head: list[str] = []
    entries: dict[str, list[str]] = {}
    depth, entry = None, head
    for line in lines:
        if found := _KEY.match(line):
            depth = len(found["indent"]) if depth is None else depth
            if len(found["indent"]) == depth:
                entry = entries[found["key"]] = []
        entry.append(line)
    return head, entries


def _stripped(entry: list[str]) -> list[str]:
    """Return an entry without the blank lines below it."""
    return entry[: max((number for number, line in enumerate(entry, 1) if line), default=0)]


def _is_section(entry: list[str]) -> bool:
    return len(entry) > 1 and bool(_KEY.match(entry[1]))


_KEY = re.compile(r"(?P<indent> *)(?P<key>[A-Za-z_][A-Za-z0-9_]*):( |$)")


class _Loader(yaml.SafeLoader):
    """Refuses a mapping that says a key twice, of which YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key is a list or a section, expected a name", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# `dvc exp run -S …=2.0e-5` rewrites params.yaml with Python's 2e-05, which PyYAML would read as text. What people write,
# 3e-5, stays text: the schema tells them that other readers of YAML would not see a number either.
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"-?[0-9]e[-+][0-9]{2,}$"), list("-0123456789"))
