"""Gives MLflow a run back that git and the DVC remote have: `metrics/<segment>/` and `checkpoints/<segment>/` hold all that it was told."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matwm.checkpoint import read_manifest
from matwm.params_yaml import parse_config, read_params
from pipeline import project as places
from pipeline import runs
from pipeline.keys import manifest_key
from pipeline.metrics.evaluated import read_evaluated
from pipeline.metrics.points import TimedPoint, curves_of
from pipeline.params import imports
from pipeline.run import Run
from pipeline.stores.mlflow import MlflowStore
from pipeline.tracking import labels
from pipeline.tracking.local_run import milliseconds
from pipeline.tracking.sync import LABELS_PER_CALL, LONGEST_PARAM, LONGEST_TAG, POINTS_PER_CALL, batches, cut

UNFINISHED = "matwm.importing"
"""A run with this tag is one that an import was killed in the middle of; it is completed by the next."""


@dataclass(frozen=True)
class Record:
    """What is here of one run."""

    segment: str
    facts: Mapping[str, Any]
    checkpoints: dict[int, Path]
    points: list[TimedPoint]
    params: Mapping[str, str]

    @property
    def run_id(self) -> str:
        """The run's ID where it was trained."""
        return self.facts["run_id"]


def read_record(project: Path, segment: str) -> Record:
    """Return what is here of the run that trained a published segment.

    Raises:
        ProjectError: something of it is not here, or is of another training.
        CheckpointError: a checkpoint is damaged.
    """
    metrics, published = places.metrics_folder(project, segment), places.published_folder(project, segment)
    facts = places.run_record(project, segment)
    if not facts.get("run_id"):
        raise places.ProjectError(f"metrics/{segment}/run.json names no run: the segment was trained without MLflow, or not at all")
    checkpoints = {step: published / places.step_folder(step) for step in places.steps_in(published)}
    last = (places.read_json(metrics / "train.json") or {}).get("step")
    if last not in checkpoints:
        raise places.ProjectError(f'checkpoints/{segment}/ is not here, or has no step {last}: run "dvc pull" first')
    for folder in checkpoints.values():
        if manifest_key(read_manifest(folder).manifest) != facts["key"]:
            raise places.ProjectError(f"{folder} is of another training than metrics/{segment}/run.json: check both out of one commit")
    base = parse_config(read_params(project / places.PARAMS), source=places.PARAMS)
    try:
        config = imports.from_manifest(read_manifest(checkpoints[last]).manifest, base, f"checkpoints/{segment}")
    except imports.ImportedError as error:
        raise places.ProjectError(str(error)) from None
    newest = read_manifest(checkpoints[last])
    began, curves = milliseconds(facts.get("started")), curves_of(newest.history(), newest.spec.agents)
    points = [TimedPoint(key, step, value, began + step) for (key, step), value in curves.items()]
    return Record(segment, facts, checkpoints, [*points, *read_evaluated(metrics)], labels.params_of(config))


def give_back(project: Path, record: Record, experiment: str) -> bool:
    """Make the run with its own ID, or complete one that was begun; return False, and change nothing, if it is there.

    Raises:
        TrackingError: the store is a server, which gives runs IDs of its own, or it does not answer, or the run is deleted there.
        CheckpointError: a checkpoint is damaged.
    """
    uri = runs.configured_uri()
    there = _raw_run(uri, record.run_id)
    if there is not None and UNFINISHED not in there.data.tags:
        if there.info.lifecycle_stage != "active":
            raise runs.TrackingError(
                f"MLflow at {runs.shown(uri)} has run {record.run_id}, but deleted: `mlflow runs restore --run-id {record.run_id}`"
            )
        return False
    started, finished = (milliseconds(record.facts[name]) for name in ("started", "finished"))
    if there is None:
        _create(uri, record, str(record.facts.get("experiment") or experiment), started)
    with runs.explained(uri):
        _fill(uri, record)
        for path, folder in _files(project, record.segment):
            runs.client(uri).log_artifact(record.run_id, str(path), folder)
    run = runs.get_run(record.run_id, uri) or Run(record.run_id)
    for step in sorted(record.checkpoints):
        MlflowStore(uri).put(run, record.checkpoints[step])
    with runs.explained(uri):
        runs.client(uri).set_terminated(record.run_id, "FINISHED", end_time=finished)
        runs.client(uri).delete_tag(record.run_id, UNFINISHED)
    return True


def _raw_run(uri: str, run_id: str) -> Any:
    """Return MLflow's run, also a deleted one, or None."""
    from mlflow.exceptions import MlflowException

    with runs.explained(uri):
        try:
            return runs.client(uri).get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise


def _create(uri: str, record: Record, experiment: str, started_ms: int) -> None:
    """Make the run under its own ID, which MLflow's interface cannot: `run.json` and the tags of children name it.

    Raises:
        TrackingError: the store is no database that we may write to.
    """
    from mlflow.entities import LifecycleStage, RunStatus, SourceType
    from mlflow.store.tracking.dbmodels.models import SqlRun, SqlTag
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = runs.client(uri)._tracking_client.store
    if not isinstance(store, SqlAlchemyStore):
        raise runs.TrackingError(
            f"MLflow at {runs.shown(uri)} is a server, which gives every run an ID of its own, and has no run {record.run_id}: "
            "unset MLFLOW_TRACKING_URI to import into this folder's own store"
        )
    with runs.explained(uri):
        home = runs.client(uri).get_experiment(runs.experiment_id(uri, experiment))
        row = SqlRun(
            run_uuid=record.run_id, name=record.segment, experiment_id=int(home.experiment_id), user_id="unknown", source_name="",
            artifact_uri=f"{home.artifact_location.rstrip('/')}/{record.run_id}/artifacts", entry_point_name="", source_version="",
            source_type=SourceType.to_string(SourceType.UNKNOWN), status=RunStatus.to_string(RunStatus.SCHEDULED),
            start_time=started_ms, end_time=None, deleted_time=None, lifecycle_stage=LifecycleStage.ACTIVE,
        )  # fmt: skip
        row.tags = [SqlTag(key=key, value=value) for key, value in {"mlflow.runName": record.segment, UNFINISHED: "true"}.items()]
        with store.ManagedSessionMaker(read_only=False) as session:
            session.add(row)


def _fill(uri: str, record: Record) -> None:
    """Send points, parameters and tags; what is there already stays as it is."""
    from mlflow.entities import Metric, Param, RunTag

    client, run_id = runs.client(uri), record.run_id
    for points in batches(record.points, POINTS_PER_CALL):
        metrics = [Metric(point.key, point.value, point.timestamp_ms, point.step) for point in points]
        client.log_batch(run_id, metrics=metrics, synchronous=True)
    params = cut({f"train.{key}": value for key, value in record.params.items()}, LONGEST_PARAM)
    for some in batches([Param(key, value) for key, value in params.items()], LABELS_PER_CALL):
        client.log_batch(run_id, params=some, synchronous=True)
    for some in batches([RunTag(key, value) for key, value in cut(_tags(record), LONGEST_TAG).items()], LABELS_PER_CALL):
        client.log_batch(run_id, tags=some, synchronous=True)


def _tags(record: Record) -> dict[str, str]:
    """Return the tags that the run had, and where this one comes from."""
    facts, parent = record.facts, record.facts.get("parent") or {}
    tags = {"matwm.segment": record.segment, "matwm.key": facts["key"], "matwm.numerics": str(facts.get("numerics"))}
    tags |= {str(key): str(value) for key, value in (facts.get("tags") or {}).items()}
    if parent.get("run_id"):
        tags |= {"matwm.parent_run": parent["run_id"], "mlflow.parentRunId": parent["run_id"], "matwm.parent_step": str(parent["step"])}
    commit = (facts.get("git") or {}).get("commit")
    return {
        **tags,
        "matwm.step": str(max(record.checkpoints)),
        "matwm.imported_from": f"git, trained at commit {commit}" if commit else "git",
    }


def _files(project: Path, segment: str) -> list[tuple[Path, str | None]]:
    """Return what the stage `evaluate` gave the run, with the artifact folder of each."""
    metrics = places.metrics_folder(project, segment)
    found = [
        (metrics / "evaluation.json", None),
        (metrics / "evaluation.csv", None),
        (project / "plots" / segment / "episode.gif", "plots"),
    ]
    return [(path, folder) for path, folder in found if path.is_file()]
