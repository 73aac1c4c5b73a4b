"""`matwm runs`: lists the runs, newest first."""

import argparse
import json
import sys

from pipeline import lookup, tracking, upkeep
from pipeline import project as places
from pipeline.commands.table import table


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="as a list of objects")


def run(options: argparse.Namespace) -> int:
    """List them.

    Raises:
        TrackingError: MLFLOW_TRACKING_URI names a store that cannot be used.
    """
    project = places.root()
    tracking.configure(project)
    said = upkeep.settle(project)
    found, trouble = lookup.runs_of(project)
    for sentence in dict.fromkeys([*said, *([trouble] if trouble else [])]):
        sys.stderr.write(f"{sentence}\n")
    rows = [
        {
            "run_id": run.run_id,
            "segment": run.segment,
            "parent_run_id": run.parent_run_id,
            "parent_step": run.parent_step,
            "status": run.status,
            "step": run.step,
        }
        for run in found
    ]
    sys.stdout.write(json.dumps(rows, indent=2) + "\n" if options.json else _shown(rows))
    return 1 if trouble and not rows else 0


def _shown(rows: list[dict[str, object]]) -> str:
    if not rows:
        return 'no runs yet: "make repro" or "matwm repro" trains\n'
    lines = [["run", "segment", "parent", "status", "step"]]
    for row in rows:
        parent = f"{str(row['parent_run_id'])[:12]}@{row['parent_step']}" if row["parent_run_id"] else "-"
        lines.append([str(row["run_id"])[:12], str(row["segment"]), parent, str(row["status"]), str(row["step"])])
    return table(lines)
