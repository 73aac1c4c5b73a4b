"""`matwm diff A B`: parameters, code and metrics of two checkpoints, and where their lineages part."""

import argparse
import json
import sys
from collections.abc import Mapping
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


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("first", metavar="A", help=f"{REFERENCE}|DIR: {REFERENCE_HELP}")
    parser.add_argument("second", metavar="B", help="likewise")
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
        "parameters": _pairs(differing(opened[0].config, opened[1].config)),
        "code": _pairs({name: pair for name, pair in differing(code[0], code[1]).items() if None not in pair}),
        "code_stat": compare.code_stat(project, code[0]["commit"], code[1]["commit"]),
        "metrics": _pairs({name: (metrics[0].get(name), metrics[1].get(name)) for name in [*metrics[0], *metrics[1]]}),
        "ancestor": {
            "segment": ancestor.segment if ancestor else None,
            "run_id": ancestor.run_id if ancestor else None,
            "step": step,
        },
    }
    for sentence in catalog.trouble:
        sys.stderr.write(f"{sentence}\n")
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n" if options.json else _drawn(document))
    return 0


def _named(target: Target, checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "segment": target.run.segment if target.run else None,
        "run_id": target.run.run_id if target.run else None,
        "step": checkpoint.step,
        "digest": checkpoint.digest,
        "fingerprint": checkpoint.fingerprint,
    }


def _pairs(values: Mapping[str, tuple[Any, Any]]) -> dict[str, dict[str, Any]]:
    return {path: {"a": first, "b": second} for path, (first, second) in values.items()}


def _drawn(document: Mapping[str, Any]) -> str:
    first, second, ancestor = document["a"], document["b"], document["ancestor"]
    heads = [f"{one['segment'] or 'run'}@{one['step']}" for one in (first, second)]
    same = "the same training state" if first["fingerprint"] == second["fingerprint"] else "different training states"
    fork = f"{ancestor['segment'] or 'run'}@{ancestor['step']}" if ancestor["step"] else "the root only"
    text = f"A  {_line(first)}\nB  {_line(second)}\n{same}; common ancestor: {fork}\n"
    text += _section("parameters", heads, {path: _both(pair, as_yaml) for path, pair in document["parameters"].items()})
    text += _section("code", heads, {name: _both(pair, str) for name, pair in document["code"].items()})
    if document["code_stat"]:
        text += f"\n{document['code_stat']}\n"
    return text + _section("metrics", heads, {name: _both(pair, _number) for name, pair in document["metrics"].items()})


def _section(title: str, heads: list[str], rows: Mapping[str, list[str]]) -> str:
    if not rows:
        return f"\n{title}: no difference\n"
    return "\n" + table([[title, *heads], *([name, *values] for name, values in rows.items())])


def _both(pair: Mapping[str, Any], write: Any) -> list[str]:
    return [write(pair[name]) if pair[name] is not None else "-" for name in "ab"]


def _number(value: float) -> str:
    return f"{value:.6g}"


def _line(one: Mapping[str, Any]) -> str:
    who = f"{one['segment'] or 'run'} ({(one['run_id'] or '-')[:12]})"
    return f"{who}  step {one['step']}  digest {one['digest'][:12]}  fingerprint {one['fingerprint'][:12]}"
