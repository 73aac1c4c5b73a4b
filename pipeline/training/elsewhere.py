"""Asks for a training where it may lie besides its work directory: in the other stores, in git; without waiting for ever."""

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from matwm.errors import UserError
from matwm.manifest import CheckpointError
from pipeline import project as places
from pipeline import runs
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.sources import merged
from pipeline.metrics.points import TimedPoint, is_record
from pipeline.metrics.recorded import FILES, read_recorded
from pipeline.run import Run
from pipeline.stores.protocol import CheckpointStore, is_of
from pipeline.tracking.local_run import RECORDS
from pipeline.tracking.records import Records

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 60.0
"""For a store to say what it has: training must not wait for a host that is gone."""

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Offer:
    """What a store says that it has of a run."""

    store: CheckpointStore
    run: Run
    steps: frozenset[int]


def offers(project: Path, run: Run, stores: Iterable[type[CheckpointStore]]) -> list[Offer]:
    """Return what the project's stores have of a training, in this order; one that does not answer is left out with a warning."""
    found: list[Offer] = []
    for store in stores:
        try:
            offer = _within(partial(_offer, project, run, store), f"the checkpoint store {store.kind}")
        except UserError as error:
            logger.warning("%s. What it may have of segment %s is not used", error, run.segment)
            continue
        found += [offer] if offer else []
    return found


def inherited_records(project: Path, run_id: str, until: int) -> list[TimedPoint]:
    """Return the records of the run that a segment starts from, up to there: from its work directory, else from git, else from MLflow."""
    run = next((run for run in merged(project, []) if run_id in (run.run_id, run.former_id)), None)
    if run and run.work and (run.work / RECORDS).exists():
        return _until(Records(run.work / RECORDS).points(), until)
    folder = places.metrics_folder(project, str(run.segment)) if run and run.published else None
    if folder and any((folder / name).is_file() for name in FILES):
        return _until(read_recorded(folder), until)
    try:
        return _until(_within(lambda: _records_in_mlflow(run_id), "MLflow"), until)
    except UserError as error:
        logger.warning("%s. The evaluations before step %d are not shown with this run", error, until)
        return []


def _until(points: Iterable[TimedPoint], step: int) -> list[TimedPoint]:
    return sorted((point for point in points if point.step <= step), key=lambda point: point.timestamp_ms)


def _records_in_mlflow(run_id: str) -> list[TimedPoint]:
    runs.ping()
    found = runs.get_run(run_id)
    return runs.metric_history(run_id, keys=[key for key in found.metrics if is_record(key)]) if found else []


def _offer(project: Path, run: Run, kind: type[CheckpointStore]) -> Offer | None:
    """Ask a store; MLflow knows a run by its own ID, for which it is asked by the run's key alone."""
    if kind.needs_run_id:
        known = Catalog(project).by_key(str(run.key), str(run.segment))
        if known is None:
            return None
        run = known
    store = kind.of(project)
    if store is None:
        return None
    steps = store.steps(run)
    if not kind.may_block:  # A name proves nothing, and here a manifest is quickly read.
        steps = [step for step in steps if _may_be_of(store, run, step)]
    return Offer(store, run, frozenset(steps)) if steps else None


def _may_be_of(store: CheckpointStore, run: Run, step: int) -> bool:
    """Return whether a checkpoint is the training's, so far as its manifest can be read; to pull a damaged one says what is wrong."""
    try:
        return is_of(store.open(run, step), run, step)
    except CheckpointError:
        return True


def _within(call: Callable[[], ResultT], who: str) -> ResultT:
    """Return what a call returns, if it does so soon.

    Raises:
        ProjectError: it does not; and whatever the call raises.
    """
    results: list[ResultT] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            results.append(call())
        except Exception as error:  # noqa: BLE001  # It is raised below.
            errors.append(error)

    thread = threading.Thread(target=work, name="elsewhere", daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    if errors:
        raise errors[0]
    if not results:
        raise places.ProjectError(f"{who} has not answered within {PATIENCE_SECONDS:.0f} s")
    return results[0]
