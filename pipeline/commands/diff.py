"""`matwm diff A B`: parameters, code and metrics of two checkpoints, and where their lineages part."""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from matwm.changes import as_yaml
from matwm.checkpoint import Checkpoint, read_manifest
from matwm.tree_diff import differing
from pipeline import project as places
from pipeline.catalog import compare
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.checkpoints import Checkpoints, Target
from pipeline.catalog.references import REFERENCE, REFERENCE_HELP
from pipeline.commands.table import table

STDERR = "/stderr"
LEAST_SHARE, MANYFOLD = 0.0005, 100.0
"""Less than the first is 0.0 % and more than the second a number of no use."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("first", metavar="A", help=f"{REFERENCE}|DIR: {REFERENCE_HELP}")
    parser.add_argument("second", metavar="B", help="likewise")
    parser.add_argument("--only", metavar="PATTERN", help="only what has this in its name; *, ? and [ ] stand for others, as for files")
    parser.add_argument("--json", action="store_true", help="as one object")


def run(options: argparse.Namespace) -> int:
    """Compare them.

    With --json: `{"a", "b" ({segment, run_id, step, digest, fingerprint}), "parameters" {path: {a, b}}, "code" {name: {a, b}} (what is
    known of both and differs: commit, dirty, code, numerics, device, threads, libraries), "code_stat" (`git diff --stat`, null if a
    commit is not here), "metrics" {name: {a, b}} (all; null where one has no such curve), "ancestor" {segment, run_id, step}}`.

    Raises:
        ProjectError: there is no such run or step.
        CheckpointError, TrackingError: one of them is damaged or cannot be had.
    """
    project = places.root()
    catalog = Catalog(project)
    checkpoints = Checkpoints(catalog)
    with places.scratch_folder(project) as scratch:
        targets = [checkpoints.target(text) for text in (options.first, options.second)]
        opened = [read_manifest(target.first().whole(scratch)) for target in targets]
        both = list(zip(targets, opened, strict=True))
        metrics = [compare.metrics_of(catalog, target.run, one) for target, one in both]
    code = [compare.code_of(target.run, one) for target, one in both]
    ancestor, step = compare.common_ancestor(catalog, *((target.run, target.step) for target in targets))
    document = {
        **{name: _named(target, one) for name, (target, one) in zip("ab", both, strict=True)},
        "parameters": _pairs(differing(opened[0].config, opened[1].config), options.only),
        "code": _pairs({name: pair for name, pair in differing(code[0], code[1]).items() if None not in pair}, options.only),
        "code_stat": compare.code_stat(project, code[0]["commit"], code[1]["commit"]),
        "metrics": _pairs({name: (metrics[0].get(name), metrics[1].get(name)) for name in [*metrics[0], *metrics[1]]}, options.only),
        "ancestor": {
            "segment": ancestor.segment if ancestor else None,
            "run_id": ancestor.run_id if ancestor else None,
            "step": step,
        },
    }
    for sentence in catalog.trouble:
        sys.stderr.write(f"{sentence}\n")
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n" if options.json else _drawn(document, _roles(opened)))
    return 0


def _named(target: Target, checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "segment": target.run.segment if target.run else None,
        "run_id": target.run.run_id if target.run else None,
        "step": checkpoint.step,
        "digest": checkpoint.digest,
        "fingerprint": checkpoint.fingerprint,
    }


def _pairs(values: Mapping[str, tuple[Any, Any]], only: str | None) -> dict[str, dict[str, Any]]:
    wanted = only if only and set(only) & set("*?[") else f"*{only or ''}*"
    return {path: {"a": first, "b": second} for path, (first, second) in values.items() if fnmatchcase(path, wanted)}


def _roles(opened: Sequence[Checkpoint]) -> dict[str, str]:
    """Return the role of each agent of both checkpoints."""
    return {one.spec.agents[number]: role for one in opened for role, numbers in one.spec.roles().items() for number in numbers}


def _drawn(document: Mapping[str, Any], roles: Mapping[str, str]) -> str:
    first, second, ancestor = document["a"], document["b"], document["ancestor"]
    heads = [f"{one['segment'] or 'run'}@{one['step']}" for one in (first, second)]
    same = "the same training state" if first["fingerprint"] == second["fingerprint"] else "different training states"
    fork = f"{ancestor['segment'] or 'run'}@{ancestor['step']}" if ancestor["step"] else "the root only"
    text = f"A  {_line(first)}\nB  {_line(second)}\n{same}; common ancestor: {fork}\n"
    text += _section("parameters", heads, {path: [*_both(pair, as_yaml), _delta(pair)] for path, pair in document["parameters"].items()})
    text += _section("code", heads, {name: [*_both(pair, str), ""] for name, pair in document["code"].items()})
    if document["code_stat"]:
        text += f"\n{document['code_stat']}\n"
    return text + _metrics(document["metrics"], heads, roles)


def _metrics(pairs: Mapping[str, Mapping[str, Any]], heads: list[str], roles: Mapping[str, str]) -> str:
    """Return a table for each role, then one for each other subject, what changed most first; what is equal is counted."""
    groups: dict[str, dict[str, Mapping[str, Any]]] = {role: {} for role in roles.values()}
    errors = {name for name in pairs if name.endswith(STDERR) and name.removesuffix(STDERR) in pairs}
    for name, pair in pairs.items():
        if name not in errors:
            agent = next((part for part in name.split("/") if part in {*roles, *roles.values()}), None)
            groups.setdefault(roles.get(str(agent), agent or name.partition("/")[0]), {})[name] = pair
    text = ""
    for group, members in groups.items():
        differing = {name: pair for name, pair in members.items() if not _is_equal(pair)}
        rows: dict[str, list[str]] = {}
        for name in sorted(differing, key=lambda name: -_size(differing[name])):
            with_errors = {side: _number(members[name][side], pairs.get(f"{name}{STDERR}", {}).get(side)) for side in "ab"}
            rows[name] = [with_errors["a"], with_errors["b"], _delta(members[name])]
        text += _section(f"metrics: {group}", heads, rows) if rows else ""
        if equal := len(members) - len(differing):
            text += f"and {equal} equal\n" if rows else f"\nmetrics: {group}: {equal} equal\n"
    return text or "\nmetrics: no difference\n"


def _section(title: str, heads: list[str], rows: Mapping[str, list[str]]) -> str:
    if not rows:
        return f"\n{title}: no difference\n"
    return "\n" + table([[title, *heads, "delta"], *([name, *values] for name, values in rows.items())], whole=(1, 2, 3))


def _both(pair: Mapping[str, Any], write: Any) -> list[str]:
    return [write(pair[name]) if pair[name] is not None else "-" for name in "ab"]


def _is_equal(pair: Mapping[str, Any]) -> bool:
    first, second = pair["a"], pair["b"]
    return first == second or (first != first and second != second)  # noqa: PLR0124  # NaN


def _size(pair: Mapping[str, Any]) -> float:
    """Return how large a change is, from 0 to 2: the difference by the larger of both magnitudes; -1 where there is none to speak of."""
    if not all(_is_number(pair[side]) for side in "ab"):
        return -1.0
    return abs(pair["b"] - pair["a"]) / (max(abs(pair["a"]), abs(pair["b"])) or 1.0)


def _delta(pair: Mapping[str, Any]) -> str:
    if not all(_is_number(pair[side]) for side in "ab"):
        return ""
    change = pair["b"] - pair["a"]
    share = change / abs(pair["a"]) if pair["a"] else 0.0
    return f"{change:+.4g}" + (f" ({share:+.1%})" if LEAST_SHARE <= abs(share) < MANYFOLD else "")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: float | None, error: float | None) -> str:
    return "-" if value is None else f"{value:.6g}" + (f" ± {error:.2g}" if error is not None else "")


def _line(one: Mapping[str, Any]) -> str:
    who = f"{one['segment'] or 'run'} ({(one['run_id'] or '-')[:12]})"
    return f"{who}  step {one['step']}  digest {one['digest'][:12]}  fingerprint {one['fingerprint'][:12]}"
