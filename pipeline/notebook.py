"""Runs, curves, evaluations and policies of a project for notebooks, as pandas frames: `from pipeline import notebook`.

A reference is what commands take: the beginning of a run's ID or a segment's name, with @STEP behind it where a checkpoint is meant. The
project is the nearest folder with a dvc.yaml at or above the notebook's, or at or above `project`.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from matwm.checkpoint import Checkpoint, read_manifest
from matwm.policy import Policies
from matwm.policy import load_policies as loaded
from pipeline import project as places
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.checkpoints import Checkpoints
from pipeline.catalog.overview import best_of, entry
from pipeline.catalog.references import whole_run
from pipeline.metrics.points import EVALUATION, ON_DEMAND, TimedPoint, curves_of
from pipeline.metrics.recorded import read_recorded
from pipeline.run import Run
from pipeline.runs import TrackingError, metric_history

STAGE = re.compile(rf"{EVALUATION}(?P<mode>[^/]+)/(?P<matchup>[^/]+)/(?P<who>(metrics/)?[^/]+?)(?P<stderr>/stderr)?")
ASKED = re.compile(
    rf"{ON_DEMAND}(?P<mode>[^/]+)/(?P<matchup>[^/]+)/(?P<episodes>\d+)_from_(?P<seed>\d+)/(?P<who>(metrics/)?[^/]+?)(?P<stderr>/stderr)?"
)
RUNS = ["run_id", "segment", "status", "step", "until", "best", "best_step", "best_mode", "best_objective", "changed", "parent_run_id"]
RUNS += ["parent_step", "started", "ended", "experiment", "git_commit", "key", "not_reproduced", "is_in_mlflow"]
EVALUATED = ["step", "mode", "matchup", "who", "mean", "stderr", "by", "episodes", "seed", "time"]

logger = logging.getLogger(__name__)


def runs(project: str | Path | None = None) -> pd.DataFrame:
    """Return a row for each run, the newest first: among others `run_id`, `segment`, `status`, `step`, `parent_run_id`, `changed`, `best`.

    `best` is the mean of the best evaluation (`best_step`, `best_mode`) by the first of what the run is judged by (`best_objective`).
    """
    with _catalog(project) as catalog:
        frame = pd.DataFrame([_row(catalog, run) for run in catalog.all()], columns=RUNS)
    return frame.astype({"until": "Int64", "parent_step": "Int64", "best_step": "Int64"})


def curves(reference: str, project: str | Path | None = None) -> pd.DataFrame:
    """Return the training curves up to a checkpoint (default: the run's latest), ancestors' included: a row a step, a column a metric.

    NaN where a metric has no value. `episode/return/AGENT` and `episode/length` stand at the step at which their episode ended.

    Raises:
        ProjectError: there is no such run or step.
        CheckpointError: it is damaged.
    """
    with _catalog(project) as catalog, _opened(catalog, reference) as checkpoint:
        points = curves_of(checkpoint.history(), checkpoint.spec.agents)
    index = pd.MultiIndex.from_tuples(list(points), names=["metric", "step"])
    frame = pd.Series(list(points.values()), index=index, dtype=float).unstack("metric")
    assert isinstance(frame, pd.DataFrame)
    return frame.sort_index()


def evaluations(reference: str, project: str | Path | None = None) -> pd.DataFrame:
    """Return the evaluations of a run: a row for each step, mode, match-up and agent, or role, or metric such as `metrics/win`.

    Those of training and of the stage `evaluate` (`by` is "pipeline") are of agents; those of `matwm eval` (its name) are of roles, with
    `episodes` and `seed`. Of one that was done again the last counts. From MLflow, else from git.

    Raises:
        ProjectError: there is no such run, or the reference names a step.
    """
    with _catalog(project) as catalog:
        points = _evaluated(catalog, catalog.find(whole_run(reference)))
    rows: dict[tuple[object, ...], dict[str, object]] = {}
    for point in sorted(points, key=lambda point: point.timestamp_ms):
        if match := ASKED.fullmatch(point.key) or STAGE.fullmatch(point.key):
            told = match.groupdict()
            is_stderr = told.pop("stderr") is not None
            number = {name: int(told[name]) if told.get(name) else None for name in ("episodes", "seed")}
            row = rows.setdefault(
                (point.step, *told.values()), {"step": point.step, **told, "by": "matwm eval" if "seed" in told else "pipeline", **number}
            )
            row["stderr" if is_stderr else "mean"] = point.value
            row["time"] = pd.Timestamp(point.timestamp_ms, unit="ms", tz="UTC")
    frame = pd.DataFrame(list(rows.values()), columns=EVALUATED).astype({"episodes": "Int64", "seed": "Int64"})
    return frame.sort_values(["step", "mode", "matchup", "who"], ignore_index=True)


def load_policies(reference: str, project: str | Path | None = None, *, seed: int = 0) -> Policies:
    """Return all agents of RUN@STEP, ready to act in batches of episodes (see `matwm.load_policies`).

    Raises:
        ProjectError: there is no such run or step.
        CheckpointError: it is damaged.
    """
    with _catalog(project) as catalog, _opened(catalog, reference) as checkpoint:
        return loaded(checkpoint, seed=seed)


@contextmanager
def _catalog(project: str | Path | None) -> Iterator[Catalog]:
    """Give the runs of a project, and log afterwards what could not be asked."""
    catalog = Catalog(places.root(Path(project) if project else None))
    yield catalog
    for sentence in catalog.trouble:
        logger.warning("%s", sentence)


@contextmanager
def _opened(catalog: Catalog, reference: str) -> Iterator[Checkpoint]:
    """Give a checkpoint; one that had to be brought from a server is gone afterwards."""
    with places.scratch_folder(catalog.project) as scratch:
        yield read_manifest(Checkpoints(catalog).target(reference).first().whole(scratch))


def _row(catalog: Catalog, run: Run) -> Mapping[str, object]:
    try:
        judged = best_of(run)
    except TrackingError as error:
        catalog.note(str(error))
        judged = ()
    first = judged[0]._asdict() if judged else {}
    best = {"best": first.get("mean")} | {f"best_{name}": first.get(name) for name in ("step", "mode", "objective")}
    return entry(run, (), ()) | best


def _evaluated(catalog: Catalog, run: Run) -> list[TimedPoint]:
    """Return the points of a run's evaluations."""
    if run.run_id and run.status is not None:
        try:
            return metric_history(run.run_id, keys=[key for key in run.metrics if key.startswith((EVALUATION, ON_DEMAND))])
        except TrackingError as error:
            catalog.note(str(error))
    return read_recorded(places.metrics_folder(catalog.project, run.segment)) if run.segment and run.record else []
