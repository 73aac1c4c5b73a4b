"""Appends a segment to the text of params.yaml: every other byte of it stays."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from matwm.yaml_text import read_yaml, to_yaml
from pipeline.project import ProjectError

LONGEST_LINE = 140


def read(path: Path) -> str:
    """Return a parameter file's text with its line ends as they are."""
    return path.read_bytes().decode("utf-8")


def lines(name: str, entry: Mapping[str, Any], indent: str = "  ") -> str:
    """Return a segment as it stands in params.yaml: one line, or a block where that would be long."""
    flow = to_yaml({name: dict(entry)}, default_flow_style=True).strip()
    line = f"{indent}{flow.removeprefix('{').removesuffix('}')}\n"
    if len(line) <= LONGEST_LINE:
        return line
    block = to_yaml({name: dict(entry)}, default_flow_style=None, indent=len(indent) or 2)
    return "".join(f"{indent}{line}" for line in block.splitlines(keepends=True))


def with_segment(text: str, name: str, entry: Mapping[str, Any]) -> str:
    """Return the parameter file with one more segment, after the last one.

    Raises:
        ProjectError: `segments` is not written one entry a line, so that a line cannot be added.
    """
    node = _segments(yaml.compose(text, Loader=yaml.SafeLoader))
    if node is None or node.flow_style or not node.value:
        raise ProjectError("params.yaml: segments is not written with one segment a line: rewrite it so, or append the segment by hand")
    present = text.splitlines(keepends=True)
    last = _last_line(node.value[-1][1])
    end = "\r\n" if present[0].endswith("\r\n") else "\n"
    if not present[last].endswith(("\n", "\r")):
        present[last] += end
    present.insert(last + 1, lines(name, entry, " " * node.value[0][0].start_mark.column).replace("\n", end))
    changed = "".join(present)
    before, after = read_yaml(text), read_yaml(changed)
    before["segments"][name] = dict(entry)
    if after != before or list(after["segments"]) != list(before["segments"]):
        raise ProjectError("params.yaml: segments is written in a way that a line cannot be added to: append the segment by hand")
    return changed


def _segments(document: yaml.Node | None) -> yaml.MappingNode | None:
    if isinstance(document, yaml.MappingNode):
        for key, value in document.value:
            if key.value == "segments" and isinstance(value, yaml.MappingNode):
                return value
    return None


def _last_line(node: yaml.Node) -> int:
    """Return the line on which a value's text ends; a block's own mark is already past the comments that follow it."""
    if isinstance(node, (yaml.MappingNode, yaml.SequenceNode)) and not node.flow_style and node.value:
        last = node.value[-1]
        return _last_line(last[1] if isinstance(last, tuple) else last)
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        return node.end_mark.line - 1
    return node.end_mark.line
