"""`matwm runs`, `fingerprint`, `envs` and `validate`: say what is there."""

import json
import sys
import tempfile
from pathlib import Path

from matwm import scenarios
from matwm.config import ConfigError, read_params
from pipeline import lookup, tracking
from pipeline import project as places
from pipeline.segments import resolve_all
from pipeline.validate import validate


def validate_params() -> int:
    """Say that params.yaml is valid, and what it describes.

    Raises:
        ConfigError: it is not.
    """
    segments = validate(places.root())
    for segment in segments.values():
        sys.stdout.write(f"{segment.name}: from {segment.origin.folder} to step {segment.until}\n")
    return 0


def envs() -> int:
    """List the scenarios."""
    sys.stdout.write("".join(f"{name}\n" for name in scenarios.names()))
    return 0


def runs(*, as_json: bool) -> int:
    """List the runs, newest first.

    Raises:
        TrackingError: MLFLOW_TRACKING_URI names a store that cannot be used.
    """
    found, trouble = _known_runs(places.root())
    if trouble:
        sys.stderr.write(f"{trouble}\n")
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
    sys.stdout.write(json.dumps(rows, indent=2) + "\n" if as_json else _table(rows))
    return 1 if trouble and not rows else 0


def fingerprint(reference: str) -> int:
    """Print the fingerprint of a checkpoint, every byte of which is verified on the way.

    Raises:
        CheckpointError: it is damaged.
        ProjectError: there is none.
    """
    from matwm.checkpoint import open_checkpoint

    if Path(reference).is_dir():
        checkpoint = open_checkpoint(reference)
        sys.stdout.write(f"{checkpoint.fingerprint}\n")
        return 0
    if "@" not in reference:
        raise places.ProjectError(f"{reference!r} is neither a checkpoint's folder nor RUN@STEP")
    project = places.root()
    prefix, wanted = lookup.split_reference(reference)
    run = lookup.find(prefix, *_known_runs(project))
    work = places.home(project) / ".matwm"
    work.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        checkpoint = lookup.bring(run, lookup.choose_step(run, wanted), Path(scratch))
    sys.stdout.write(f"{checkpoint.fingerprint}\n")
    return 0


def _known_runs(project: Path) -> tuple[list[lookup.Run], str | None]:
    """Return all runs, also with a params.yaml that is being edited: only what it describes is then not recognised."""
    tracking.configure(project)
    try:
        params = read_params(project / places.PARAMS)
        graph = resolve_all(params, project)
    except ConfigError:
        params, graph = {}, {}
    return lookup.known_runs(project, graph, params)


def _table(rows: list[dict[str, object]]) -> str:
    if not rows:
        return 'no runs yet: "make repro" or "matwm repro" trains\n'
    lines = [["run", "segment", "parent", "status", "step"]]
    for row in rows:
        parent = f"{str(row['parent_run_id'])[:12]}@{row['parent_step']}" if row["parent_run_id"] else "-"
        lines.append([str(row["run_id"])[:12], str(row["segment"]), parent, str(row["status"]), str(row["step"])])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines)
