"""Reads and writes YAML so that every reader sees the same: plain data, no key twice; and lays one file over another.

PyYAML reads YAML 1.1, DVC 1.2: `010` is 8 or 10, `1e3` a text or a number, `no` false or a text. Such words are refused where people
write them, and quoted where this program does.
"""

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import yaml


class TwofoldError(yaml.YAMLError):
    """A document says what readers of YAML take for different things; `problems` holds a sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def read_yaml(text: str) -> Any:
    """Return what a YAML document says.

    Raises:
        yaml.YAMLError: it is none, says a key twice, refers to itself, or says what is not the same to every reader.
        ValueError, RecursionError: a number has too many digits, or it is nested too deeply.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if problems := list(_twofold(loader, node, "", set())):
            raise TwofoldError(problems)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def read_dvc_yaml(text: str) -> Any:
    """Return what a file says that DVC wrote, and reads by YAML 1.2.

    Raises:
        yaml.YAMLError, ValueError, RecursionError: it is no YAML.
    """
    return yaml.load(text, _LoaderOf12)  # noqa: S506 (a SafeLoader)


def to_yaml(value: Any, **style: Any) -> str:
    """Return plain data as YAML that is the same to every reader."""
    return yaml.dump(value, Dumper=_Dumper, width=10**9, allow_unicode=True, sort_keys=False, **style)


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


_FastLoader = yaml.SafeLoader if TYPE_CHECKING else getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _LoaderOf12(_FastLoader):
    """Reads plain words by the core schema of YAML 1.2."""

    yaml_implicit_resolvers = {}


class _Dumper(yaml.SafeDumper):
    """Quotes a text that some reader would take for something else."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        node = super().represent_str(data)
        if node.style is None and (_tag_of_12(data) != _TEXT or _LOOSE.match(data) or data.lower() in ("y", "n")):
            node.style = "'"
        return node


_LOOSE = re.compile(r"[-+]?(0x[0-9a-fA-F]*_[0-9a-fA-F_]*|(0[bo])?[0-9.]*_[0-9_.]*([eE][-+]?[0-9]+)?)$")
"""What DVC's reader takes for a number, or tries to, beyond what YAML 1.2 says."""
_TEXT = "tag:yaml.org,2002:str"
_INT = "tag:yaml.org,2002:int"
_Dumper.add_representer(str, _Dumper.represent_str)
for _kind, _pattern, _first in (
    ("null", r"(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"(true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", list("-+0123456789")),
    (
        "float",
        r"([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
):
    _LoaderOf12.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), _first)
_LoaderOf12.add_constructor(_INT, lambda _, node: int(node.value, {"0o": 8, "0x": 16}.get(node.value[:2], 10)))


def _tag_of_12(text: str) -> str:
    """Return what a plain word is by YAML 1.2."""
    known: dict[str, list[tuple[str, re.Pattern[str]]]] = _LoaderOf12.yaml_implicit_resolvers
    return next((tag for tag, pattern in known.get(text[:1], []) if pattern.match(text)), _TEXT)


def _twofold(loader: "_Loader", node: yaml.Node, path: str, seen: set[int]) -> Iterator[str]:
    """Yield a sentence for each plain word that readers take for different things."""
    if id(node) in seen:  # what is referred to
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        if found := _twofold_word(loader, node):
            readings = " or ".join(_shown(value) for value in found if isinstance(value, bool | int | float) and value == value)  # noqa: PLR0124
            what = f"{path} is {node.value}" if path else node.value
            yield f"{what}, {_to_readers(found)}: put it in quotes{f', or write {readings}' if readings else ''}"
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _twofold(loader, item, f"{path}.{number}" if path else str(number), seen)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = f"{path}.{key.value}" if path else str(key.value)
            if isinstance(key, yaml.ScalarNode) and (found := _twofold_word(loader, key)):
                yield f"{path + ': ' if path else ''}the key {key.value}, {_to_readers(found)}: put it in quotes"
            yield from _twofold(loader, value, below, seen)


def _twofold_word(loader: "_Loader", node: yaml.ScalarNode) -> tuple[Any, Any] | None:
    """Return what a plain word is by YAML 1.1 and by 1.2, None if that is the same."""
    if node.style is not None or node.tag == "tag:yaml.org,2002:merge":
        return None
    tag = _tag_of_12(node.value)
    if node.tag == tag == _TEXT and _LOOSE.match(node.value):
        return node.value, math.nan
    if node.tag == tag and not (tag == _INT and node.value.lstrip("-+").startswith("0")):
        return None
    found = loader.construct_object(node), read_dvc_yaml(node.value)
    return None if type(found[0]) is type(found[1]) and found[0] == found[1] else found


def _to_readers(found: tuple[Any, Any]) -> str:
    return f"which is {_shown(found[0])} to some readers of YAML and {_shown(found[1])} to others"


def _shown(value: Any) -> str:
    if value != value:  # noqa: PLR0124
        return "no text"
    if isinstance(value, bool | int | float):
        return to_yaml(value).split("\n")[0]
    return f"the text {value!r}" if isinstance(value, str) else f"a {type(value).__name__}"


# `dvc exp run -S …=2.0e-5` rewrites params.yaml with Python's 2e-05, which PyYAML would read as text.
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"-?[0-9]e[-+][0-9]{2,}$"), list("-0123456789"))
