"""Reads and writes the small files of learning jobs: whole or not at all, also when the machine goes down."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matwm import durable
from matwm.errors import UserError

DIGITS = 4


def write(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON object, a line for each value (and for each entry of a list or mapping of lists or mappings)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.replace(path, (_lines(data, depth=2) + "\n").encode())


def read(path: Path) -> dict[str, Any] | None:
    """Return a JSON object, None if there is no file.

    Raises:
        UserError: the file holds something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}): remove it, or bring it back from git") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} holds no JSON object: remove it, or bring it back from git")
    return data


def rounded(value: float) -> float:
    """Return a number with as many significant digits as are of use."""
    return float(f"{value:.{DIGITS}g}")


def _lines(value: Any, depth: int, indent: str = "") -> str:
    inner = f"{indent} "
    if depth and isinstance(value, Mapping) and value:
        entries = [f"{inner}{json.dumps(key, ensure_ascii=False)}: {_lines(item, depth - 1, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(entries) + f"\n{indent}}}"
    if depth and isinstance(value, list) and value and isinstance(value[0], Mapping):
        return "[\n" + ",\n".join(f"{inner}{json.dumps(item, ensure_ascii=False)}" for item in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False)
