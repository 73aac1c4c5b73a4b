"""`matwm tree [R]`: draws the lineage."""

import argparse
import json
import sys
from typing import Any

from pipeline import lookup, tracking
from pipeline import project as places
from pipeline.commands.table import table
from pipeline.lineage import Lineage, Node, read_lineage
from pipeline.metrics.best import Best
from pipeline.reporting import upkeep

DEEPEST_ALIGNED = 40
"""Columns of the drawing up to which the others are aligned."""
BRANCHES = {"├ ": "|-", "└ ": "`-", "│ ": "| ", "→": "->"}


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
    from), `until`, `step` (reached; null if unknown), `state`, `changed` ({path: {before, after}}), `best` ({step, mode, mean,
    measure: "return" or "win"} or null) and `depth`.

    Raises:
        ProjectError: there is no such run.
        TrackingError: MLFLOW_TRACKING_URI names a store that cannot be used.
    """
    project = places.root()
    tracking.configure(project)
    said = upkeep.settle(project)
    lineage = read_lineage(project)
    shown = _selected(lineage, options.run)
    best = {node.id: _best(node, lineage) for node, _ in shown}
    for sentence in dict.fromkeys([*said, *lineage.trouble]):
        sys.stderr.write(f"{sentence}\n")
    if options.json:
        rows = [_as_json(node, depth, best[node.id]) for node, depth in shown]
        sys.stdout.write(json.dumps({"nodes": rows, "trouble": lineage.trouble}, indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(_for_terminal(_drawn(shown, best)))
    return 0


def _selected(lineage: Lineage, text: str | None) -> list[tuple[Node, int]]:
    """Return the nodes to show with their depths, parents first."""
    if text is None:
        return list(lineage.walk())
    *above, node = lineage.ancestors(lineage.find(lookup.whole_run(text)))
    line = [(ancestor, depth) for depth, ancestor in enumerate([*above, node])]
    return [*line, *lineage.walk(node.id, len(line))]


def _best(node: Node, lineage: Lineage) -> Best | None:
    try:
        return node.facts.best() if node.facts else None
    except tracking.TrackingError as error:
        lineage.trouble.append(str(error))
        return None


def _drawn(shown: list[tuple[Node, int]], best: dict[str, Best | None]) -> str:
    if not shown:
        return 'nothing yet: "make repro" or "matwm repro" trains\n'
    rows = [["checkpoints/root", "run", "steps", "state", "best evaluation", "changed"]]
    for number, (node, depth) in enumerate(shown):
        rows.append([_branches(shown, number, depth) + _name(node), *_columns(node, best[node.id])])
    narrow = [[row[0][:DEEPEST_ALIGNED], *row[1:]] for row in rows]
    lines = table(narrow).splitlines()
    return "".join(f"{row[0]}{line[min(len(row[0]), DEEPEST_ALIGNED) :]}\n" for row, line in zip(rows, lines, strict=True))


def _branches(shown: list[tuple[Node, int]], number: int, depth: int) -> str:
    """Return the lines that lead to a node: at each depth, whether another of the same parent follows."""
    text = ""
    for level in range(depth + 1):
        rest = (below for _, below in shown[number + 1 :] if below <= level)
        has_sibling = next(rest, -1) == level
        text += ("├ " if has_sibling else "└ ") if level == depth else ("│ " if has_sibling else "  ")
    return text


def _name(node: Node) -> str:
    return str(node.segment) if node.is_current else f"({node.segment or 'run'})"


def _columns(node: Node, best: Best | None) -> list[str]:
    run_id = node.facts.run_id if node.facts else (None if node.is_current else node.id)
    steps = f"{node.start} → {node.until if node.step is None else node.step}" if node.facts or node.is_current else ""
    if node.step is not None and node.until is not None and node.step < node.until:
        steps += f" of {node.until}"
    state = f"{node.state}, imported" if node.is_imported else node.state
    changed = ", ".join(f"{path} {before!r} → {after!r}" for path, (before, after) in node.changed.items())
    judged = f"{best.shown} ({best.mode}, step {best.step})" if best else "-"
    return [(run_id or "-")[:12], steps or "-", state, judged, changed or "-"]


def _for_terminal(text: str) -> str:
    """Return the text as the terminal can show it; what MLflow's tags say must not command it."""
    text = "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        for line, plain in BRANCHES.items():
            text = text.replace(line, plain)
        text = text.encode("ascii", "replace").decode()
    return text


def _as_json(node: Node, depth: int, best: Best | None) -> dict[str, Any]:
    facts = node.facts
    return {
        "id": node.id,
        "segment": node.segment,
        "run_id": facts.run_id if facts else (None if node.is_current else node.id),
        "key": facts.key if facts else None,
        "is_current": node.is_current,
        "is_imported": node.is_imported,
        "parent": node.parent,
        "from": node.start,
        "until": node.until,
        "step": node.step,
        "state": node.state,
        "changed": {path: {"before": before, "after": after} for path, (before, after) in node.changed.items()},
        "best": best._asdict() if best else None,
        "depth": depth,
    }
