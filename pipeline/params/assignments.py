"""Turns `KEY=VALUE` words of a command line into an override: KEY is a dotted path in params.yaml, VALUE is YAML."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from matwm.config import Config
from matwm.spelling import close
from matwm.yaml_text import TwofoldError, read_yaml
from pipeline.project import ProjectError

EXAMPLE = "actor_critic.learning_rate=1.0e-4"
OPTIONS = {"until": "--until", "name": "--name", "from": "RUN@STEP"}
"""What belongs to a segment and has a place of its own on the command line."""


class _ProblemError(Exception):
    """What is wrong with one word, as it goes on after `--set `."""


def override_of(words: Sequence[str], parent: Config) -> tuple[dict[str, Any], list[str], list[str]]:
    """Return what the words change of a configuration, nested as in params.yaml, the paths they name, and what is wrong with others.

    A list is one value to params.yaml, so an entry given by its number (`actor_critic.imagination.regimes.0.horizon=10`) comes
    with all others. Values are not judged here.
    """
    data = parent.resolved()
    override: dict[str, Any] = {}
    named: list[str] = []
    problems: list[str] = []
    found: list[tuple[str, list[str | int], Any]] = []
    unclear: set[str] = set()
    for word in words:
        try:
            path, value = _split(word)
            parts = _locate(path, data)
            if twin := next((other for other in named if f"{other}.".startswith(f"{path}.") or f"{path}.".startswith(f"{other}.")), None):
                unclear |= {path, twin}
                raise _ProblemError(f"{path} is given twice: once is enough" if twin == path else f"{path} and {twin} overlap: give one")
            named.append(path)
            found.append((path, parts, value))
        except _ProblemError as problem:
            problems.append(f"--set {problem}")
    for path, parts, value in found:
        if path not in unclear:  # which of the values is meant is not known, so none is judged
            _put(override, data, parts, value)
    return override, named, problems


def several(word: str) -> tuple[str, list[Any]]:
    """Return the path and the values of `KEY=VALUE[,VALUE…]`; commas within brackets are their list's.

    Raises:
        ProjectError: it is not written so.
    """
    path, equals, text = word.partition("=")
    try:
        _, values = _split(f"{path}{equals}[{text}]" if text.strip() else word)
    except _ProblemError as problem:
        raise ProjectError(f"--set {problem}") from None
    return path.strip(), values


def value_at(data: Any, path: str) -> Any:
    """Return the value at a dotted path of plain data."""
    for part in path.split("."):
        data = data[int(part)] if isinstance(data, list) else data[part]
    return data


def _split(word: str) -> tuple[str, Any]:
    path, equals, text = word.partition("=")
    path = path.strip()
    if path in OPTIONS:
        raise _ProblemError(f"{path}: that is no parameter but the segment's own, which {OPTIONS[path]} says")
    if path == "segments" or path.startswith("segments."):
        raise _ProblemError(f"{path} is unknown: a branch changes parameters; segments are appended, not changed")
    if not equals or not path:
        raise _ProblemError(f"{word}: expected KEY=VALUE, for example {EXAMPLE}")
    if not text.strip():
        raise _ProblemError(f"{path}= has no value: write one behind the =, or null where that is meant")
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise _ProblemError(f"{path} is {text!r}: write the value itself, without a reference")
        return path, read_yaml(text)
    except TwofoldError as error:
        raise _ProblemError(f"{path} is {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        why = " ".join((getattr(error, "problem", None) or str(error)).split())
        raise _ProblemError(f"{path} is {text!r}, which is not valid YAML ({why}): put quotes around a text") from None


def _locate(path: str, data: Mapping[str, Any]) -> list[str | int]:
    """Return the parts of a path to a value of the configuration."""
    node: Any = data
    parts: list[str | int] = []
    for part in path.split("."):
        above = ".".join(map(str, parts))
        if isinstance(node, list):
            if part not in map(str, range(len(node))):
                raise _ProblemError(f"{path}: {above} has the entries 0 to {len(node) - 1}, and no {part!r}")
            parts.append(int(part))
        elif not isinstance(node, Mapping):
            raise _ProblemError(f"{path}: {above} is a value ({node!r}) and has no parts")
        elif part not in node:
            raise _ProblemError(f"{path} is unknown{_likely(path, above, part, node, data)}")
        else:
            parts.append(part)
        node = node[int(part)] if isinstance(node, list) else node[part]
    if isinstance(node, Mapping):
        raise _ProblemError(f"{path} is a section: set its values one by one, such as {next(_paths(node, f'{path}.'))}")
    return parts


def _likely(path: str, above: str, part: str, node: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    everything = list(_paths(data))
    alike = [other for other in everything if other.rpartition(".")[2] == path.rpartition(".")[2]]
    if not alike:
        prefix = f"{above}." if above else ""
        alike = [f"{prefix}{key}" for key in close(part, list(node))] or close(path, everything)
    return f", did you mean {' or '.join(alike)}?" if alike else f" (known: {', '.join(node)})"


def _paths(data: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _put(override: dict[str, Any], data: Mapping[str, Any], parts: Sequence[Any], value: Any) -> None:
    """Put a value into the override, with what must stand beside it: the rest of its list, or the scenario's other options."""
    node: Any = override
    source: Any = data
    for part in parts[:-1]:
        source = source[part]
        if isinstance(node, dict) and part not in node:
            node[part] = copy.deepcopy(source) if isinstance(source, list) or part == "options" else {}
        node = node[part]
    node[parts[-1]] = value
