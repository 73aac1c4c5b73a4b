"""MkDocs hooks: generate the tables of parameters and commands, and bring documents from outside docs/ into the site.

A page of docs/ has a comment `<!-- generated: NAME -->` where the site shows what `GENERATED` makes; nothing of it is committed.
Links lead to files as they lie in the repository, so that they work there, too; `rewritten` turns them into the site's.
"""

import argparse
import html
import json
import posixpath
import re
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from matwm.config import Config, PopulationConfig, RangeConfig, SearchConfig, SegmentConfig, SweepConfig
from matwm.params_yaml import load_config, preset_path
from pipeline.commands import COMMANDS, parser_of

REPOSITORY = Path(__file__).resolve().parents[2]
OUTSIDE = (
    "benchmarks/RESULTS.md",
    "benchmarks/results/scaling.md",
    "benchmarks/results/scaling.png",
    "benchmarks/results/learning/diagnosis.md",
    "benchmarks/results/together/tuning.json",
    "examples/tour.ipynb",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
)
"""Files of the repository that the site has at the same path."""
PRESETS = ("cpu-small", "simple-tag", "paper", "image-small", "smax-easy")
"""Whose values the table of parameters shows."""
LINK = re.compile(r"(\]\()([^)\s:#]+)(#[^)\s]*)?\)")


def parameters() -> str:
    """Return a table of each section of params.yaml: type, range, values of some presets, what a branch may do, meaning."""
    configs = {name: load_config(preset_path(name)).resolved() for name in PRESETS}
    parts = [_section("", Config, configs)] + [
        _section(f"{path}.", model, {name: _at(values, path) for name, values in configs.items()}) for path, model in _models(Config)
    ]
    parts += [_section("segments.NAME.", SegmentConfig, {}), _section("sweeps.NAME.", SweepConfig, {})]
    parts += [_section("sweeps.NAME.search.", SearchConfig, {}), _section("sweeps.NAME.search.space.KEY.", RangeConfig, {})]
    parts += [_section("sweeps.NAME.population.", PopulationConfig, {})]
    return "\n\n".join(part for part in parts if part) + "\n"


def commands() -> str:
    """Return a section for each command of `matwm`: usage and arguments, from its parser."""
    return "\n".join(map(_command, COMMANDS))


GENERATED: dict[str, Callable[[], str]] = {"parameters": parameters, "commands": commands}


def rewritten(markdown: str, page: str) -> str:
    """Return a page's text with links that lead to files of the repository as the site has them.

    `page` is its path in the repository; the site has `docs/X` at `X` and all of `OUTSIDE` at its path.
    """

    def moved(link: re.Match[str]) -> str:
        before, target, anchor = link.group(1), link.group(2), link.group(3) or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
        if path == "README.md":
            path = "docs/index.md"
        return f"{before}{posixpath.relpath(_in_site(path), posixpath.dirname(_in_site(page)) or '.')}{anchor})"

    return LINK.sub(moved, markdown)


def _in_site(path: str) -> str:
    return path.removeprefix("docs/")


def _models(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    for name, info in model.model_fields.items():
        if child := _model(info):
            path = f"{prefix}{info.alias or name}"
            yield path, child
            yield from _models(child, f"{path}.")


def _model(info: FieldInfo) -> type[BaseModel] | None:
    """Return the section that a field is; a list of sections has its keys beside its own row."""
    inner = info.annotation
    if get_origin(inner) is list:
        inner = get_args(inner)[0]
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None


def _at(values: Mapping[str, Any], path: str) -> Any:
    node: Any = values
    for key in path.split("."):
        node = node[0] if isinstance(node, list) else node
        node = node[key]
    return node[0] if isinstance(node, list) else node


def _section(prefix: str, model: type[BaseModel], values: Mapping[str, Mapping[str, Any]]) -> str:
    fields = [(info.alias or name, info) for name, info in model.model_fields.items()]
    rows = [_row(key, info, values) for key, info in fields if _model(info) is None or get_origin(info.annotation) is list]
    if not rows:
        return ""
    title = prefix.removesuffix(".") or "params.yaml itself"
    columns = ["key", "meaning and unit", "type and range", "branch", *(f"`{name}`" for name in values)]
    head = [f"## {title}", "", (model.__doc__ or "").strip().splitlines()[0], ""] if prefix else [f"## {title}", ""]
    return "\n".join([*head, _line(columns), f"|{' --- |' * len(columns)}", *rows])


def _row(key: str, info: FieldInfo, values: Mapping[str, Mapping[str, Any]]) -> str:
    marks = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    branch = str(marks.get("branch", "free"))
    kind = "list of sections" if _model(info) else _kind(info)
    shown = ["list" if _model(info) else _value(section[key]) for section in values.values()]
    return _line([f"`{key}`", info.description or "", kind, branch, *shown])


def _kind(info: FieldInfo) -> str:
    """Return a field's type and limits, in words."""
    kind, limits = _type(info.annotation), []
    for limit in info.metadata:
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            if isinstance(limit, getattr(annotated_types, name.capitalize())):
                limits.append(f"{sign} {_number(getattr(limit, name))}")
        if isinstance(limit, annotated_types.MinLen):
            limits.append(f"at least {limit.min_length} long")
    return ", ".join([kind, *limits])


def _number(value: float) -> str:
    return f"2^{value.bit_length() - 1}" if isinstance(value, int) and value > 10**9 and not value & (value - 1) else f"{value:,}"


def _type(kind: Any) -> str:
    if kind is None or kind is type(None):
        return "null"
    if hasattr(kind, "__metadata__"):
        return _type(get_args(kind)[0])
    origin = get_origin(kind)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in get_args(kind))
    if origin in (Union, types.UnionType):
        return " or ".join(_type(one) for one in get_args(kind))
    if origin is list:
        return f"list of {_type(get_args(kind)[0])}"
    return {int: "integer", float: "number", str: "text", bool: "true or false"}.get(kind, "mapping")


def _value(value: Any) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`" if not isinstance(value, dict) else "its own"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _command(name: str) -> str:
    parser, purpose = parser_of(name), COMMANDS[name].purpose
    below = [child for action in parser._actions if isinstance(action, argparse._SubParsersAction) for child in action.choices.values()]
    usage = "\n".join(" ".join(one.format_usage().split()).removeprefix("usage: ") for one in [parser, *below])
    rows = [
        _line([_argument(action), (action.help or "").replace("%%", "%")])
        for action in parser._actions  # argparse has no public list of them
        if action.help != argparse.SUPPRESS and not isinstance(action, argparse._HelpAction)
    ]
    text = [f"## matwm {name}", "", f"{purpose[:1].upper()}{purpose[1:]}.", "", "```text", usage, parser.epilog or "", "```", ""]
    return "\n".join([*text, *(["| argument | |", "| --- | --- |", *rows] if rows else ["It takes no arguments."]), ""])


def _argument(action: argparse.Action) -> str:
    what = ",".join(map(str, action.choices or [])) or str(action.metavar or action.dest.upper())
    if not action.option_strings:
        return _code(str(action.metavar or action.dest))
    return _code(f"{', '.join(action.option_strings)}{'' if action.nargs == 0 else f' {what}'}")


def _code(text: str) -> str:
    """Return code for a table's cell: Python-Markdown shows the backslash of an escaped bar in backticks."""
    return f"<code>{html.escape(text).replace('|', '&#124;')}</code>" if "|" in text else f"`{text}`"


def on_files(files: Any, config: Any) -> Any:
    """Add the documents from outside docs/."""
    from mkdocs.structure.files import File

    for path in OUTSIDE:
        if (REPOSITORY / path).is_file():
            files.append(File.generated(config, path, abs_src_path=str(REPOSITORY / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in what is generated, and let links lead to where the site has files."""
    path = page.file.src_uri
    for name, make in GENERATED.items():
        mark = f"<!-- generated: {name} -->"
        if mark in markdown:
            markdown = markdown.replace(mark, make())
    return rewritten(markdown, path if path in OUTSIDE else f"docs/{path}")
