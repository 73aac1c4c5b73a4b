"""`matwm push`: carries finished checkpoints to the DVC remote, also while their stage is still running."""

import argparse
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matwm.spelling import close
from pipeline import project as places
from pipeline.catalog import pushing
from pipeline.catalog.current import current_runs, described
from pipeline.catalog.sources import in_work
from pipeline.commands.table import table
from pipeline.run import Run
from pipeline.stores import remote

LOWEST_PRIORITY = 19


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("trainings", nargs="*", metavar="RUN|SEGMENT", help="default: the segments of params.yaml")
    parser.add_argument("--remote", metavar="NAME", help="of the DVC remote (default: the default one)")
    parser.add_argument("--verify", action="store_true", help="read back what is there, and replace what is damaged")
    parser.add_argument("--json", action="store_true", help="as a list of objects")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)  # the trainer's own call, in the background
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--steps", default="", help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Send what the remote lacks, and say what it was.

    Raises:
        ProjectError: there is no such training or no remote, or the remote does not take it.
    """
    project = places.root()
    if options.work:
        return _in_background(project, options)
    wanted = _chosen(project, options.trainings)
    there = remote.named(project, options.remote)
    rows: list[dict[str, Any]] = []
    for training in wanted:
        for step, sent in pushing.push_all(project, training, there, verify=options.verify):
            facts = {"segment": training.segment, "run_id": training.run_id, "key": training.key, "step": step}
            rows.append({**facts, "objects_sent": sent.objects, "bytes_sent": sent.bytes, "objects_there": sent.present})
    sys.stdout.write(json.dumps(rows, indent=2) + "\n" if options.json else _shown(rows, there))
    return 0


def _in_background(project: Path, options: argparse.Namespace) -> int:
    from pipeline.process import end_with

    if options.parent:
        end_with(options.parent)
    os.nice(LOWEST_PRIORITY)
    steps = {int(step) for step in options.steps.split(",") if step}
    for _ in pushing.push_new(project, in_work(options.work), remote.named(project, options.remote), steps):
        pass
    return 0


def _chosen(project: Path, references: list[str]) -> list[Run]:
    known = pushing.trainings(project)
    current = _current(project, known)
    if not references:
        return current
    chosen: list[Run] = []
    for reference in references:
        found = [each for each in known if each.is_called(reference) or each.segment == reference]
        if len(found) > 1:
            found = [each for each in current if each in found] or found
        if len(found) > 1:
            raise places.ProjectError(f"{len(found)} trainings here are called {reference!r}: {_listed(found)}: give more of the run's ID")
        if not found:
            meant = close(reference, [str(each.segment) for each in known])
            what = f"is called {reference!r}{f', did you mean {meant[0]}?' if meant else ';'}"
            raise places.ProjectError(f"no training here has a checkpoint and {what} there are {_listed(known)}")
        chosen += found
    return chosen


def _current(project: Path, known: list[Run]) -> list[Run]:
    """Return those that params.yaml describes.

    Raises:
        ConfigError: params.yaml is not valid.
    """
    params = described(project)
    if params.error:
        raise params.error
    ids = {run.id for run in current_runs(params, known).values()}
    return [run for run in known if run.id in ids]


def _shown(rows: list[dict[str, Any]], there: remote.Remote) -> str:
    if not rows:
        return f"nothing to push to {there.name}: no checkpoint is finished yet\n"
    lines = [["segment", "run", "step", "sent", "bytes", "there"]]
    for row in rows:
        facts = (row["segment"], (row["run_id"] or "-")[:12], row["step"], row["objects_sent"], row["bytes_sent"], row["objects_there"])
        lines.append([str(fact) for fact in facts])
    return f"{table(lines)}to {there.name}\n"


def _listed(found: Iterable[Run]) -> str:
    return ", ".join(f"{(each.run_id or str(each.key))[:12]} ({each.segment})" for each in found) or "none"
