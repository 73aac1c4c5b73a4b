"""Looks for a training where other machines may have left it: on the DVC remote, in MLflow, in git."""

import logging
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from matwm.checkpoint import Checkpoint
from pipeline import project as places
from pipeline import runs, source_code, stores, tracking
from pipeline.metrics import times
from pipeline.metrics.journal import TimedPoint
from pipeline.storage import remote

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 60.0
"""For a DVC remote to say what it has: training must not wait for a host that is gone."""
FILES = ("run.json", "training.csv", "episodes.csv", times.TIMES, times.EVALUATED)

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Source:
    """A place that has checkpoints of one training."""

    name: str
    steps: frozenset[int]
    pull: Callable[[int, Path, Sequence[Path]], Checkpoint]
    """Brings the checkpoint of a step to a folder, verified; chunks that lie in the given checkpoints need not be fetched."""


def sources(project: Path, segment: str, key: str) -> list[Source]:
    """Return the places that have checkpoints of a training, the quickest first; one that does not answer is left out with a warning."""
    return [found for look in (_on_remote, _in_mlflow) if (found := look(project, segment, key))]


def pushed_points(project: Path, key: str, until: int) -> list[TimedPoint]:
    """Return the metric points that the DVC remote has of a training up to a step; none if it does not answer."""
    try:
        there = _within(lambda: remote.default(project))
        return _within(lambda: there.points(key, until)) if there else []
    except remote.RemoteError as error:
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


def _on_remote(project: Path, segment: str, key: str) -> Source | None:
    try:
        there = _within(lambda: remote.default(project))
        if there is None:
            return None
        steps = frozenset(_within(lambda: there.steps(key)))
        return Source(there.shown, steps, lambda step, folder, near: there.pull(key, step, folder, near))
    except remote.RemoteError as error:
        logger.warning("%s. What it may have of segment %s is not used", error, segment)
        return None


def _in_mlflow(project: Path, segment: str, key: str) -> Source | None:
    try:
        runs.knock()
        store = stores.MlflowStore()
        late = runs.TrackingError(f"MLflow at {runs.shown(store.uri)} has not answered within {PATIENCE_SECONDS:.0f} s")
        run = _within(lambda: tracking.find_by_key(segment, key), late)
        if run is None:
            return None
        name = f"run {run.run_id[:12]} in MLflow at {runs.shown(store.uri)}"
        return Source(
            name, frozenset(_within(lambda: store.steps(run.run_id), late)), lambda step, folder, near: store.pull(run.run_id, step, folder)
        )
    except runs.TrackingError as error:
        logger.warning("%s. What it may have of segment %s is not used", error, segment)
        return None


def _within(call: Callable[[], ResultT], late: Exception | None = None) -> ResultT:
    """Return what a call returns, if it does so soon.

    Raises:
        RemoteError: it does not (or else `late`); and whatever the call raises.
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
        raise late or remote.RemoteError(f"the default DVC remote has not answered within {PATIENCE_SECONDS:.0f} s")
    return results[0]
