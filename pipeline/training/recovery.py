"""Brings back checkpoints that a segment's work directory lacks: published, in DVC's cache, on the DVC remote, in MLflow."""

import contextlib
import logging
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from matwm.checkpoint import Checkpoint, CheckpointError, publish, read_manifest
from matwm.store import LocalStore
from pipeline import dvc_files, tracking
from pipeline import project as places
from pipeline.job import Job
from pipeline.metrics.journal import TimedPoint
from pipeline.params.retention import retained_by
from pipeline.segments import ResolvedSegment, manifest_key
from pipeline.training import elsewhere

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
    present = store.steps()
    sound = dict.fromkeys({*segment.saves} - {*present}, False)
    newest = None
    for step in reversed([step for step in present if step <= segment.until]):
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


def set_aside(store: LocalStore, key: str) -> None:
    """Move checkpoints of other trainings out of a segment's store, to `foreign/` beside it, so that nothing goes on from them.

    Nor can they stay where they are: what this training makes of those steps needs the place.
    """
    for step in store.steps():
        path = store.folder / places.step_folder(step)
        with contextlib.suppress(CheckpointError):  # A damaged one is not of anybody: it is made again.
            checkpoint = read_manifest(path)
            if not _is_of(checkpoint, key, step):
                target = store.folder.with_name("foreign") / f"{path.name}-{checkpoint.digest[:12]}"
                target.parent.mkdir(exist_ok=True)
                shutil.rmtree(target, ignore_errors=True)  # the same one, which came again
                path.rename(target)
                logger.warning("%s is a checkpoint of another training: it is not used, and lies in %s now", path, target)


def recover(job: Job, store: LocalStore) -> None:
    """Bring to the store what it lacks of this very training and what is to be had: the newest sound checkpoint, and all that stay.

    After a raised `until` in a clone, for instance, the lock still says what `checkpoints/<segment>` held, and DVC's cache has it;
    when the machine that trained is gone, the DVC remote or MLflow has it.
    """
    cached = store.folder / ".cached"
    shutil.rmtree(cached, ignore_errors=True)
    for folder in _published(job.project, job.segment, cached):
        _take(folder, job.key, job.segment.until, store)
    shutil.rmtree(cached, ignore_errors=True)
    found = survey(store, job.segment)
    if not found.missing:
        return
    sources = elsewhere.sources(job.project, job.segment.name, job.key)
    there = sorted({step for source in sources for step in source.steps if step <= job.segment.until})
    for step in reversed(there):
        if step <= (found.newest or 0) or _bring(step, job.key, sources, store):
            break
    for step in survey(store, job.segment).missing:
        if step in there and step < there[-1]:
            _bring(step, job.key, sources, store)


def earlier_points(job: Job, until: int) -> list[TimedPoint]:
    """Return the metric points of this very training up to a step that another machine left in git or on the DVC remote."""
    points = elsewhere.committed_points(job.project, job.segment.name, job.key)
    points = points if any(point.step >= until for point in points) else elsewhere.pushed_points(job.project, job.key, until)
    return [point for point in points if point.step <= until]


def _bring(step: int, key: str, sources: list[elsewhere.Source], store: LocalStore) -> bool:
    """Pull a checkpoint from the first source that has a sound one; say what is wrong with the others."""
    near = [store.folder / places.step_folder(other) for other in store.steps()]
    for source in sources:
        if step in source.steps:
            try:
                checkpoint = source.pull(step, store.folder, near)
                if not _is_of(checkpoint, key, step):
                    shutil.rmtree(checkpoint.path)
                    raise CheckpointError(f"what {source.name} has as step {step} of this segment is a checkpoint of another training")
            except (CheckpointError, tracking.TrackingError, places.ProjectError) as error:
                logger.warning("%s: it is not used", error)
            else:
                sys.stderr.write(f"the checkpoint of step {step} comes from {source.name}\n")
                return True
    return False


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
        if _is_of(checkpoint, key, checkpoint.step) and folder.name == places.step_folder(checkpoint.step) and checkpoint.step <= until:
            publish(folder, store.folder / folder.name)
    except CheckpointError as error:
        logger.warning("%s: it is not used", error)


def _is_of(checkpoint: Checkpoint, key: str, step: int) -> bool:
    """Return whether a checkpoint is of a training's step, as its own manifest says; its name and its place prove nothing."""
    return (manifest_key(checkpoint.manifest), checkpoint.step) == (key, step)


def _is_sound(store: LocalStore, step: int) -> bool:
    try:
        store.open(step)
    except CheckpointError as error:
        logger.warning("%s: it is made again", error)
        return False
    return True
