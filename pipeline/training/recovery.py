"""Brings back checkpoints that a segment's work directory lacks from the other stores (see `pipeline/stores/table.py`)."""

import contextlib
import logging
import shutil
import sys
from dataclasses import dataclass

from matwm.checkpoint import CheckpointError, read_manifest
from matwm.errors import UserError
from matwm.store import LocalStore
from pipeline import project as places
from pipeline.job import Job
from pipeline.params.retention import retained_by
from pipeline.params.segments import ResolvedSegment
from pipeline.run import Run
from pipeline.stores.folders import WorkStore
from pipeline.stores.protocol import is_of, pulled
from pipeline.stores.table import STORES
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
            if not is_of(checkpoint, Run(key=key), step):
                target = store.folder.with_name("foreign") / f"{path.name}-{checkpoint.digest[:12]}"
                target.parent.mkdir(exist_ok=True)
                shutil.rmtree(target, ignore_errors=True)  # the same one, which came again
                path.rename(target)
                logger.warning("%s is a checkpoint of another training: it is not used, and lies in %s now", path, target)


def recover(job: Job, store: LocalStore) -> None:
    """Bring to the work directory what it lacks of this very training and what another store has: the newest sound checkpoint, and all
    that stay.

    After a raised `until` in a clone, for instance, the lock still says what `checkpoints/<segment>` held, and DVC's cache has it;
    when the machine that trained is gone, the DVC remote or MLflow has it.
    """
    others = [store for store in STORES if store is not WorkStore]
    for asked in ([store for store in others if not store.may_block], [store for store in others if store.may_block]):
        found = survey(store, job.segment)
        if not found.missing:
            return
        offered = elsewhere.offers(job.project, _run_of(job), asked)
        there = sorted({step for offer in offered for step in offer.steps if step <= job.segment.until})
        untried = set(there)
        for step in reversed(there):
            if step <= (found.newest or 0):
                break
            untried.discard(step)
            if _bring(step, offered, store):
                break
        for step in survey(store, job.segment).missing if there else ():
            if step in untried:
                _bring(step, offered, store)


def _run_of(job: Job) -> Run:
    """Return the training as stores on this machine and the DVC remote know it: by segment and key."""
    published = places.published_folder(job.project, job.segment.name)
    return Run(segment=job.segment.name, key=job.key, work=job.work, published=published)


def _bring(step: int, offered: list[elsewhere.Offer], store: LocalStore) -> bool:
    """Pull a checkpoint from the first store that has a sound one; say what is wrong with the others."""
    near = [store.folder / places.step_folder(other) for other in store.steps()]
    for offer in offered:
        if step in offer.steps:
            try:
                pulled(offer.store, offer.run, step, store.folder, near)
            except UserError as error:
                logger.warning("%s: it is not used", error)
            else:
                sys.stderr.write(f"the checkpoint of step {step} comes from {offer.store.name}\n")
                return True
    return False


def _is_sound(store: LocalStore, step: int) -> bool:
    try:
        store.open(step)
    except CheckpointError as error:
        logger.warning("%s: it is made again", error)
        return False
    return True
