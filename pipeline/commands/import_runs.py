"""`matwm import`: makes MLflow show the runs that a clone has from git and the DVC remote."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pipeline import project as places
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.references import whole_run
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
    catalog = Catalog(project, asks_mlflow=False)
    known = sorted(str(run.segment) for run in catalog.all() if run.record.get("run_id"))
    if not places.run_records(project):
        raise ProjectError("metrics/ has no run to import: check out a commit in which a segment is trained")
    chosen = [str(catalog.find(whole_run(reference)).segment) for reference in references]
    places.check_records(project, chosen)
    for name in chosen:
        if name not in known:
            raise ProjectError(f"metrics/{name}/run.json names no run to import; there are {', '.join(known)}")
    return list(dict.fromkeys(chosen)) or known


def _shown(rows: list[dict[str, Any]]) -> str:
    lines = [["run", "was", "segment", "", "points", "checkpoints"]]
    for row in rows:
        what = "imported" if row["imported"] else "is there already"
        steps = ", ".join(map(str, row["checkpoints"]))
        lines.append([row["run_id"][:12], row["original_run"][:12], row["segment"], what, str(row["points"]), steps])
    return table(lines)
