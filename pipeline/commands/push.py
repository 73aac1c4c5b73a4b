"""`matwm push`: carries finished checkpoints to the DVC remote, also while their stage is still running."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from pipeline import project as places
from pipeline.catalog import pushing
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.references import whole_run
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
    """Return the runs that are meant: without references, those that params.yaml describes.

    Raises:
        ConfigError: params.yaml is not valid, and is needed.
        ProjectError: there is no such run, or it has no checkpoint here.
    """
    catalog = Catalog(project, asks_mlflow=False)
    if not references:
        if catalog.params.error:
            raise catalog.params.error
        return sorted((run for run in catalog.all() if run.is_current), key=lambda run: str(run.segment))
    chosen = {run.id: run for run in (catalog.find(whole_run(reference)) for reference in references)}
    for run in chosen.values():
        if not pushing.checkpoints_of(project, run):
            raise places.ProjectError(f"{run.name} has no checkpoint here: it is {run.state}")
    return list(chosen.values())


def _shown(rows: list[dict[str, Any]], there: remote.Remote) -> str:
    if not rows:
        return f"nothing to push to {there.name}: no checkpoint is finished yet\n"
    lines = [["segment", "run", "step", "sent", "bytes", "there"]]
    for row in rows:
        facts = (row["segment"], (row["run_id"] or "-")[:12], row["step"], row["objects_sent"], row["bytes_sent"], row["objects_there"])
        lines.append([str(fact) for fact in facts])
    return f"{table(lines)}to {there.name}\n"
