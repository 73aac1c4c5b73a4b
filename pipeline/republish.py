"""Publishes a checkpoint that retention had dropped when a new segment starts from it: nothing is trained for that."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline import dvc_files
from pipeline import project as places

SHELF = "set-aside"


def can_be_had(project: Path, segment: str, step: int) -> bool:
    """Return whether the work directory or MLflow has a checkpoint of a trained segment that is not published."""
    facts = places.run_record(project, segment)
    if "key" not in facts:
        return False
    if step in places.steps_in(places.work_folder(project, segment, facts["key"]) / "checkpoints"):
        return True
    from pipeline import runs, stores

    try:
        runs.configure(project)
        return bool(facts.get("run_id")) and step in stores.MlflowStore().steps(facts["run_id"])
    except runs.TrackingError:
        return False


def lacking(project: Path, segment: str, needed: Iterable[int], params: Mapping[str, Any]) -> list[int]:
    """Return the steps that other segments start from and a trained, published segment lacks."""
    folder = places.published_folder(project, segment)
    if not folder.is_dir() or not dvc_files.is_trained(dvc_files.lock(project), segment, params):
        return []
    return sorted({*needed} - {*places.steps_in(folder)})


def bring_back(project: Path, segment: str, steps: Iterable[int]) -> None:
    """Give checkpoints their names in `checkpoints/<segment>` again.

    DVC then sees another output than it knows and calls the stage, which publishes what it should: the same, from its work directory.

    Raises:
        CheckpointError, TrackingError: one is damaged or cannot be had.
    """
    from matwm.checkpoint import publish
    from pipeline import runs, stores

    facts = places.run_record(project, segment)
    kept = places.work_folder(project, segment, facts["key"]) / "checkpoints"
    for step in steps:
        folder = kept / places.step_folder(step)
        if step not in places.steps_in(kept):
            runs.configure(project)
            stores.MlflowStore().pull(facts["run_id"], step, kept)
        publish(folder, places.published_folder(project, segment) / folder.name)
        sys.stderr.write(f"segment {segment} publishes step {step} again: another segment starts from it\n")
    stage = dvc_files.lock(project).get(f"train@{segment}", {})
    if md5 := dvc_files.locked_output(stage, f"checkpoints/{segment}"):
        dvc_files.set_aside(project, md5, places.state_folder(project) / SHELF)


def settle(project: Path) -> None:
    """Put back what `bring_back` took out of DVC's cache: to be called when the stage has published."""
    dvc_files.put_back(project, places.state_folder(project) / SHELF)
