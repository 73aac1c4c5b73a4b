"""`matwm import`: makes MLflow show the runs that a clone has from git and the DVC remote."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from matwm.spelling import close
from pipeline import project as places
from pipeline.commands.table import table
from pipeline.project import ProjectError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("runs", nargs="*", metavar="RUN|SEGMENT", help="beginning of a run's ID, or a segment (default: all of metrics/)")
    parser.add_argument("--json", action="store_true", help="as a list of objects")


def run(options: argparse.Namespace) -> int:
    """Import what MLflow lacks; a run that is there is left as it is.

    Raises:
        ConfigError, ProjectError, CheckpointError, TrackingError: one sentence that says what to do.
    """
    from matwm.params_yaml import load_config
    from pipeline import tracking
    from pipeline.tracking.importing import import_all, read_record

    project = places.root()
    tracking.configure(project)
    base = load_config(project / places.PARAMS)
    records = [read_record(project, segment, base) for segment in _chosen(project, options.runs)]  # all, before any is written
    found = import_all(project, records, base.tracking.experiment)
    rows: list[dict[str, Any]] = [
        {
            "run_id": found[record.segment].run_id,
            "original_run": record.run_id,
            "segment": record.segment,
            "imported": found[record.segment].is_new,
            "points": found[record.segment].number_of_points,
            "checkpoints": record.steps,
        }
        for record in records
    ]
    sys.stdout.write(json.dumps(rows, indent=2) + "\n" if options.json else _shown(rows))
    return 0


def _chosen(project: Path, references: list[str]) -> list[str]:
    """Return the segments whose runs are meant."""
    known = {segment: facts.get("run_id", "") for segment, facts in places.run_records(project).items()}
    if not known:
        raise ProjectError("metrics/ has no run to import: check out a commit in which a segment is trained")
    listed = ", ".join(f"{run_id[:12] or 'no run'} ({segment})" for segment, run_id in known.items())
    chosen: list[str] = []
    for reference in references:
        found = (
            [reference] if reference in known else [name for name, run_id in known.items() if reference and run_id.startswith(reference)]
        )
        if len(found) > 1:
            raise ProjectError(f"{len(found)} runs begin with {reference!r}: {listed}: give more of the ID")
        if not found:
            meant = close(reference, list(known))
            raise ProjectError(
                f"metrics/ has no run or segment {reference!r}{f', did you mean {meant[0]}?' if meant else ';'} it has {listed}"
            )
        chosen += [name for name in found if name not in chosen]
    return chosen or [name for name, run_id in known.items() if run_id]


def _shown(rows: list[dict[str, Any]]) -> str:
    lines = [["run", "was", "segment", "", "points", "checkpoints"]]
    for row in rows:
        what = "imported" if row["imported"] else "is there already"
        steps = ", ".join(map(str, row["checkpoints"]))
        lines.append([row["run_id"][:12], row["original_run"][:12], row["segment"], what, str(row["points"]), steps])
    return table(lines)
