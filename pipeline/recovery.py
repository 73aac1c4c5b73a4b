"""Brings back checkpoints that a segment's work directory lacks: from what is published, from DVC's cache, from MLflow."""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from matwm.checkpoint import CheckpointError, publish, read_manifest
from matwm.store import LocalStore
from pipeline import dvc_files, stores, tracking
from pipeline import project as places
from pipeline.job import Job
from pipeline.retention import retained_by
from pipeline.segments import ResolvedSegment, manifest_key

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Survey:
    """What a segment's work directory has and lacks."""

    wanted: tuple[int, ...]
    """Steps that must have a checkpoint, ascending: what stays of those up to the newest sound one, and all that come after it.

    So a step that retention has dropped is not trained again, and one that it keeps is.
    """
    missing: tuple[int, ...]
    """Those of them that have no sound one."""
    newest: int | None
    """The newest sound one."""


def survey(store: LocalStore, segment: ResolvedSegment) -> Survey:
    """Look at a segment's checkpoints, reading each at most once."""
    sound: dict[int, bool] = {step: False for step in segment.saves if step not in store.steps()}
    newest = None
    for step in reversed([step for step in store.steps() if step <= segment.until]):
        sound[step] = _is_sound(store, step)
        if sound[step]:
            newest = read_manifest(store.folder / places.step_folder(step))
            break
    staying = retained_by(segment, newest) if newest else ()
    wanted = (*staying, *(step for step in segment.saves if newest is None or step > newest.step))
    for step in staying:
        if step not in sound:
            sound[step] = _is_sound(store, step)
    return Survey(wanted, tuple(step for step in wanted if not sound[step]), newest.step if newest else None)


def recover(job: Job, store: LocalStore) -> None:
    """Bring every checkpoint of this very training to the store that it lacks and that is to be had.

    After a raised `until` in a clone, for instance, the lock still says what `checkpoints/<segment>` held, and DVC's cache has it;
    when the machine that trained is gone, MLflow has it.
    """
    cached = store.folder / ".cached"
    shutil.rmtree(cached, ignore_errors=True)
    for folder in _published(job.project, job.segment, cached):
        _take(folder, job.key, job.segment.until, store)
    shutil.rmtree(cached, ignore_errors=True)
    if survey(store, job.segment).missing:
        _pull(job.segment, job.key, store)


def _published(project: Path, segment: ResolvedSegment, cached: Path) -> list[Path]:
    """Return folders of checkpoints that this segment published, or put together from the cache."""
    published = places.published_folder(project, segment.name)
    folders = [published / places.step_folder(step) for step in places.steps_in(published)]
    entry = dvc_files.lock(project).get(f"train@{segment.name}", {})
    files = dvc_files.files_of(project, dvc_files.locked_output(entry, f"checkpoints/{segment.name}"))
    if files:
        folders += dvc_files.linked_steps(files, cached)
    return folders


def _take(folder: Path, key: str, until: int, store: LocalStore) -> None:
    try:
        checkpoint = read_manifest(folder)
        if manifest_key(checkpoint.manifest) == key and checkpoint.step <= until:
            publish(folder, store.folder / folder.name)
    except CheckpointError as error:
        logger.warning("%s: it is not used", error)


def _pull(segment: ResolvedSegment, key: str, store: LocalStore) -> None:
    try:
        run = tracking.find_by_key(segment.name, key)
        if run is None:
            return
        artifacts = stores.MlflowStore()
        for step in artifacts.steps(run.run_id):
            if step <= segment.until and (step not in store.steps() or not _is_sound(store, step)):
                _pull_step(artifacts, run.run_id, step, store)
    except tracking.TrackingError as error:
        logger.warning("%s. What it may have of this segment is trained again", error)


def _pull_step(artifacts: stores.MlflowStore, run_id: str, step: int, store: LocalStore) -> None:
    try:
        artifacts.pull(run_id, step, store.folder)
    except CheckpointError as error:
        logger.warning("%s: it is not used", error)


def _is_sound(store: LocalStore, step: int) -> bool:
    try:
        store.open(step)
    except CheckpointError as error:
        logger.warning("%s: it is made again", error)
        return False
    return True
