"""`matwm runs`: lists the runs, newest first, and closes one that nobody trains any more."""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from matwm.spelling import close
from pipeline import project as places
from pipeline import runs, tracking
from pipeline.catalog import overview
from pipeline.catalog.catalog import Catalog
from pipeline.commands.table import printable, table
from pipeline.metrics import best
from pipeline.run import Run
from pipeline.tracking import upkeep

STATES = ("RUNNING", "FINISHED", "KILLED", "FAILED", "SCHEDULED")
SHORT_ID = 8
WIDE = 100
"""Columns of a terminal from which the step of the best evaluation has room."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--segment", action="append", metavar="NAME", help="only runs of this segment; may be given several times")
    parser.add_argument("--status", action="append", type=str.upper, choices=STATES, help="only runs in this state; likewise")
    parser.add_argument("--last", type=_count, metavar="N", help="only the newest N of them")
    parser.add_argument("--json", action="store_true", help="as a list of objects, with everything there is to say")
    parser.add_argument("--close", metavar="RUN", help="mark a run that is RUNNING, and that no process trains any more, as KILLED")


def run(options: argparse.Namespace) -> int:
    """List them.

    Raises:
        TrackingError: MLFLOW_TRACKING_URI names a store that cannot be used.
        ProjectError: the run to be closed is not there, or not to be closed.
    """
    project = places.root()
    tracking.configure(project)
    said = upkeep.settle(project)
    if options.close:
        said.append(_close(project, Catalog(project).find(options.close)))
    catalog = Catalog(project)
    is_selective = options.segment or options.status
    found = catalog.all() if is_selective or not options.last else catalog.recent(options.last)
    entries, excuse = _entries(catalog, [run for run in found if _is_wanted(run, options)][: options.last])
    trouble = str(catalog.mlflow_error) if catalog.mlflow_error else None
    for sentence in dict.fromkeys([*said, *(text for text in (trouble, excuse) if text)]):
        sys.stderr.write(f"{sentence}\n")
    if options.json:
        sys.stdout.write(json.dumps(entries, indent=2, ensure_ascii=False) + "\n")
    elif entries:
        sys.stdout.write(shown(entries, datetime.now(UTC)))
    else:
        sys.stdout.write(_none(options, found) if found else 'no runs yet: "make repro" or "matwm repro" trains\n')
    return 1 if trouble and not entries else 0


def shown(entries: Sequence[Mapping[str, Any]], now: datetime) -> str:
    """Return runs as a table, and below it what is wrong with them."""
    digits = _digits([str(entry[key]) for entry in entries for key in ("run_id", "parent_run_id") if entry[key]])
    is_wide = not sys.stdout.isatty() or shutil.get_terminal_size().columns >= WIDE
    rows = [["run", "segment", "state", "step", "parent", "best", "age", "changed"]]
    for entry in entries:
        parent = f"{entry['parent_run_id'][:digits]}@{entry['parent_step']}" if entry["parent_run_id"] else "-"
        judged = best.shown([best.Best(**one) for one in entry["best"]], with_steps=is_wide)
        state = str(entry["status"]) + " !" * bool(entry["not_reproduced"])
        rows.append([_short(entry, digits), str(entry["segment"]), state, str(entry["step"]), parent, judged])
        rows[-1] += [overview.age(entry["last_sign"], now), _changes(entry["changed"])]
    text = table(rows, whole=range(len(rows[0]) - 1))
    for entry in entries:
        if entry["not_reproduced"]:
            text += f"! {_short(entry, digits)} is not reproduced: {printable(entry['not_reproduced']['first'])}\n"
    return text


def _entries(catalog: Catalog, found: Sequence[Run]) -> tuple[list[dict[str, Any]], str | None]:
    """Return the runs as objects, and why MLflow did not tell everything, if so."""
    trouble = None
    entries: list[dict[str, Any]] = []
    for run in found:
        judged: tuple[best.Best, ...] = ()
        try:
            judged = overview.best_of(run)
        except tracking.TrackingError as error:
            trouble = str(error)
        entries.append(overview.entry(run, judged, catalog.startable(run)))
    return entries, trouble


def _is_wanted(run: Run, options: argparse.Namespace) -> bool:
    return run.segment in (options.segment or [run.segment]) and run.state in (options.status or [run.state])


def _none(options: argparse.Namespace, found: Sequence[Run]) -> str:
    """Return what to say where runs were found and none was asked for."""
    known = sorted({str(run.segment) for run in found})
    meant = [name for asked in options.segment or [] if asked not in known for name in close(asked, known)]
    return f"no such run{f', did you mean --segment {meant[0]}?' if meant else ''}\n"


def _close(project: Path, run: Run) -> str:
    """Close a run because a person says so, who knows more than this machine does; return what was done."""
    who = f"run {run.id[:12]} ({run.segment})"
    if run.status != "RUNNING":
        raise places.ProjectError(f"{who} is {run.state}, not RUNNING: there is nothing to close")
    if run.run_id in upkeep.live(project):
        raise places.ProjectError(f"{who} is being trained here at this moment: stop that process first (Ctrl-C or SIGTERM)")
    runs.close_run(run)
    return f"{who} is KILLED now, since its last sign of life"


def _changes(changed: Mapping[str, str]) -> str:
    """Return `learning_rate=0.0001` for what changed: enough to tell siblings apart."""
    values = {path: text.rpartition(" -> ")[2] for path, text in changed.items()}
    return ", ".join(f"{path.rpartition('.')[2]}={value}" for path, value in values.items()) or "-"


def _short(entry: Mapping[str, Any], digits: int) -> str:
    return str(entry["run_id"] or "-")[:digits]  # None: trained without MLflow


def _digits(ids: Sequence[str]) -> int:
    """Return how much of the IDs tells them apart."""
    there = set(ids)
    return next((digits for digits in range(SHORT_ID, 33) if len({run_id[:digits] for run_id in there}) == len(there)), 32)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)
