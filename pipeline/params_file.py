"""Appends a segment to the text of params.yaml: every other byte of it stays."""

from collections.abc import Mapping
from typing import Any

import yaml

from pipeline.project import ProjectError


def with_segment(text: str, name: str, entry: Mapping[str, Any]) -> str:
    """Return the parameter file with one more line, after the last segment.

    Raises:
        ProjectError: `segments` is not written one entry a line, so that a line cannot be added.
    """
    node = _segments(yaml.compose(text, Loader=yaml.SafeLoader))
    if node is None or node.flow_style or not node.value:
        raise ProjectError("params.yaml: segments is not written with one segment a line: rewrite it so, or append the segment by hand")
    lines = text.splitlines(keepends=True)
    last = _last_line(node.value[-1][1])
    if not lines[last].endswith("\n"):
        lines[last] += "\n"
    indent = " " * node.value[0][0].start_mark.column
    flow = yaml.safe_dump({name: dict(entry)}, default_flow_style=True, sort_keys=False, width=10**9, allow_unicode=True).strip()
    lines.insert(last + 1, f"{indent}{flow.removeprefix('{').removesuffix('}')}\n")
    changed = "".join(lines)
    before, after = yaml.safe_load(text), yaml.safe_load(changed)
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
