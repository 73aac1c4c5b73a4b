"""Appends a segment or a sweep to the text of params.yaml: every other byte of it stays."""

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
    """Return the parameter file with one more segment, after the last one (see `with_entry`)."""
    return with_entry(text, "segments", name, entry)


def with_entry(text: str, section: str, name: str, entry: Mapping[str, Any]) -> str:
    """Return the parameter file with one more entry of `segments` or `sweeps`, after the last one.

    Raises:
        ProjectError: the section is not written one entry a line, so that a line cannot be added.
    """
    node = _section(yaml.compose(text, Loader=yaml.SafeLoader), section)
    if node is not None and not node.value:  # `sweeps: {}`
        mark, end = node.start_mark, node.end_mark
        line_end = "\r\n" if "\r\n" in text else "\n"
        body = lines(name, entry).replace("\n", line_end).removesuffix(line_end)
        rest = text[end.index :]
        comment = rest.split("\n", 1)[0].rstrip("\r") if rest.lstrip(" ").startswith("#") else ""
        changed = f"{text[: mark.index].rstrip(' ')}{comment}{line_end}{body}{rest[len(comment) :]}"
        return _checked(text, changed, section, name, entry)
    if node is None or node.flow_style:
        raise ProjectError(f"params.yaml: {section} is not written with one entry a line: rewrite it so, or append {name} by hand")
    present = text.splitlines(keepends=True)
    last = _last_line(node.value[-1][1])
    end = "\r\n" if present[0].endswith("\r\n") else "\n"
    if not present[last].endswith(("\n", "\r")):
        present[last] += end
    present.insert(last + 1, lines(name, entry, " " * node.value[0][0].start_mark.column).replace("\n", end))
    return _checked(text, "".join(present), section, name, entry)


def upgraded(text: str) -> str:
    """Return the parameter file with the keys that dvc.yaml asks for and that files of earlier versions lack, at the values they meant."""
    data = read_yaml(text)
    if not isinstance(data, dict):
        return text
    line_end = "\r\n" if "\r\n" in text else "\n"
    changed, expected = text, dict(data)
    evaluation = _section(yaml.compose(text, Loader=yaml.SafeLoader), "evaluation")
    if evaluation is not None and evaluation.value and not evaluation.flow_style and "objective" not in data["evaluation"]:
        present = text.splitlines(keepends=True)
        present.insert(
            _last_line(evaluation.value[-1][1]) + 1, f"{' ' * evaluation.value[0][0].start_mark.column}objective: null{line_end}"
        )
        changed = "".join(present)
        expected["evaluation"] = {**data["evaluation"], "objective": None}
    if "sweeps" not in data:
        changed += f"{line_end * (2 - changed.endswith(line_end))}sweeps: {{}}{line_end}"
        expected["sweeps"] = {}
    return changed if read_yaml(changed) == expected else text


def _checked(text: str, changed: str, section: str, name: str, entry: Mapping[str, Any]) -> str:
    before, after = read_yaml(text), read_yaml(changed)
    before[section][name] = dict(entry)
    if after != before or list(after[section]) != list(before[section]):
        raise ProjectError(f"params.yaml: {section} is written in a way that a line cannot be added to: append {name} by hand")
    return changed


def _section(document: yaml.Node | None, name: str) -> yaml.MappingNode | None:
    if isinstance(document, yaml.MappingNode):
        for key, value in document.value:
            if key.value == name and isinstance(value, yaml.MappingNode):
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
