"""Asks for a training where it may lie besides its work directory: in the other stores, in git; without waiting for ever."""

import logging
import tempfile
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from matwm.manifest import CheckpointError
from pipeline import project as places
from pipeline import runs, source_code
from pipeline.catalog.catalog import Catalog
from pipeline.metrics import times
from pipeline.metrics.journal import TimedPoint
from pipeline.run import Run
from pipeline.stores import remote
from pipeline.stores.protocol import CheckpointStore, is_of
from pipeline.stores.table import STORES, WAITED_FOR

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 60.0
"""For a store to say what it has: training must not wait for a host that is gone."""
FILES = ("run.json", "training.csv", "episodes.csv", times.TIMES, times.EVALUATED)

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Offer:
    """What a store says that it has of a run."""

    store: CheckpointStore
    run: Run
    steps: frozenset[int]


def offers(project: Path, run: Run, kinds: Iterable[str]) -> list[Offer]:
    """Return what the stores of these kinds have of a training, in this order; one that does not answer is left out with a warning."""
    found: list[Offer] = []
    for kind in kinds:
        try:
            offer = _within(partial(_offer, project, run, kind), f"the checkpoint store {kind}")
        except (places.ProjectError, runs.TrackingError) as error:
            logger.warning("%s. What it may have of segment %s is not used", error, run.segment)
            continue
        found += [offer] if offer else []
    return found


def pushed_points(project: Path, run: Run, until: int) -> list[TimedPoint]:
    """Return the metric points that the DVC remote has of a training up to a step; none if it does not answer."""
    try:
        there = remote.default(project)
        return _within(lambda: there.points(run, until), there.name) if there else []
    except places.ProjectError as error:
        logger.warning("%s: the curves of this run begin later than its training", error)
        return []


def committed_points(project: Path, segment: str, key: str) -> list[TimedPoint]:
    """Return the metric points that the last commit has of a training; DVC has deleted the files by the time that a stage runs.

    None without git, or if the commit holds something else: then the curves begin later, and training goes on.
    """
    with tempfile.TemporaryDirectory() as temporary:
        for name in FILES:
            data = source_code.git_output(project, "show", f"HEAD:./metrics/{segment}/{name}")
            if data is not None:
                (Path(temporary) / name).write_bytes(data)
        if (places.read_json(Path(temporary) / "run.json") or {}).get("key") != key:
            return []
        try:
            return times.recorded_points(Path(temporary))
        except places.ProjectError as error:
            logger.warning("metrics/%s in the last commit cannot be read: %s", segment, error)
            return []


def _offer(project: Path, run: Run, kind: str) -> Offer | None:
    """Ask a store; MLflow knows a run by its own ID, for which it is asked by the run's key alone."""
    if kind == "mlflow":
        known = Catalog(project).by_key(str(run.key), str(run.segment))
        if known is None:
            return None
        run = known
    store = STORES[kind](project)
    if store is None:
        return None
    steps = store.steps(run)
    if kind not in WAITED_FOR:  # A name proves nothing, and here a manifest is quickly read.
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
