"""`matwm tree [R]`: draws the lineage."""

import argparse
import json
import sys
from typing import Any

from pipeline import project as places
from pipeline import tracking
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.overview import best_of
from pipeline.catalog.references import whole_run
from pipeline.commands.table import encodable, printable, table
from pipeline.metrics.best import Best, shown
from pipeline.run import Run
from pipeline.tracking import upkeep

DEEPEST_ALIGNED = 40
"""Columns of the drawing up to which the others are aligned."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "run", nargs="?", metavar="RUN|SEGMENT", help="beginning of a run's ID, or a segment: only its ancestors and what is below it"
    )
    parser.add_argument("--json", action="store_true", help="as one object; `nodes` lists parents before children")


def run(options: argparse.Namespace) -> int:
    """Draw it: with MLflow down, in a clone, with a broken params.yaml, as much as can be known.

    With --json: `{"nodes": [...], "trouble": [sentences]}`, each node an object with `id`, `segment`, `run_id` (null if there is
    none), `key`, `is_current` (params.yaml describes it), `is_imported`, `parent` (an id, or "root"), `from` (the step it starts
    from), `until`, `step` (reached; null if unknown), `state`, `changed` ({path: {before, after}}), `best` (a list of
    {step, mode, mean, objective}) and `depth`.

    Raises:
        ProjectError: there is no such run.
        TrackingError: MLFLOW_TRACKING_URI names a store that cannot be used.
    """
    project = places.root()
    tracking.configure(project)
    said = upkeep.settle(project)
    catalog = Catalog(project)
    nodes = _selected(catalog, options.run)
    best = {run.id: _best(run, catalog) for run, _ in nodes}
    for sentence in dict.fromkeys([*said, *catalog.trouble]):
        sys.stderr.write(f"{sentence}\n")
    if options.json:
        rows = [_as_json(run, depth, best[run.id], catalog) for run, depth in nodes]
        sys.stdout.write(json.dumps({"nodes": rows, "trouble": catalog.trouble}, indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(_drawn(nodes, best, catalog))
    return 0


def _selected(catalog: Catalog, text: str | None) -> list[tuple[Run, int]]:
    """Return the runs to show with their depths, parents first."""
    lineage = catalog.lineage
    if text is None:
        return list(lineage.walk())
    run = catalog.find(whole_run(text))
    line = [(ancestor, depth) for depth, ancestor in enumerate(lineage.ancestors(run))]
    return [*line, *lineage.walk(run.id, len(line))]


def _best(run: Run, catalog: Catalog) -> tuple[Best, ...]:
    try:
        return best_of(run)
    except tracking.TrackingError as error:
        catalog.note(str(error))
        return ()


def _drawn(nodes: list[tuple[Run, int]], best: dict[str, tuple[Best, ...]], catalog: Catalog) -> str:
    if not nodes:
        return 'nothing yet: "make repro" or "matwm repro" trains\n'
    rows = [["checkpoints/root", "run", "steps", "state", "best evaluation", "changed"]]
    for branches, (run, _) in zip(_branches([depth for _, depth in nodes]), nodes, strict=True):
        rows.append([branches + _name(run), *_columns(run, best[run.id], catalog)])
    if sys.stdout.isatty():
        return table(rows, whole=(0, 1, 2, 3))
    narrow = [[row[0][:DEEPEST_ALIGNED], *row[1:]] for row in rows]
    lines = table(narrow).splitlines()
    heads = [encodable(printable(row[0])) for row in rows]
    return "".join(f"{head}{line[min(len(head), DEEPEST_ALIGNED) :]}\n" for head, line in zip(heads, lines, strict=True))


def _branches(depths: list[int]) -> list[str]:
    """Return the lines that lead to each run: at each depth, whether another of the same parent follows."""
    followed: list[bool] = []
    texts: list[str] = []
    for depth in reversed(depths):
        followed = followed[: depth + 1] + [False] * (depth + 1 - len(followed))
        texts.append("".join("│ " if is_followed else "  " for is_followed in followed[:depth]) + ("├ " if followed[depth] else "└ "))
        followed[depth] = True
    return texts[::-1]


def _name(run: Run) -> str:
    return str(run.segment) if run.is_current else f"({run.segment or 'run'})"


def _columns(run: Run, best: tuple[Best, ...], catalog: Catalog) -> list[str]:
    start = run.parent_step or 0
    steps = f"{start} → {run.step or run.until}" if run.is_recorded or run.is_current else ""
    if run.step and run.until is not None and run.step < run.until:
        steps += f" of {run.until}"
    state = f"{run.state}, imported" if run.is_imported else run.state
    changed = ", ".join(f"{path} {before!r} → {after!r}" for path, (before, after) in catalog.changes(run).items())
    steps_judged = ", ".join(dict.fromkeys(f"step {one.step}" for one in best))
    judged = f"{shown(best)} ({best[0].mode}, {steps_judged})" if best else "-"
    return [(run.run_id or run.unknown_as or "-")[:12], steps or "-", state, judged, changed or "-"]


def _as_json(run: Run, depth: int, best: tuple[Best, ...], catalog: Catalog) -> dict[str, Any]:
    return {
        "id": run.id,
        "segment": run.segment,
        "run_id": run.run_id,
        "key": run.key,
        "is_current": run.is_current,
        "is_imported": run.is_imported,
        "parent": catalog.lineage.parent_id(run),
        "from": run.parent_step or 0,
        "until": run.until,
        "step": run.step or None,
        "state": run.state,
        "changed": {path: {"before": before, "after": after} for path, (before, after) in catalog.changes(run).items()},
        "best": [one._asdict() for one in best],
        "depth": depth,
    }
