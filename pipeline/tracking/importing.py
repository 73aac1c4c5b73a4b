"""Makes MLflow show a run that git and the DVC remote have: `metrics/<segment>/` and `checkpoints/<segment>/` hold all that is needed.

They become a work directory, which `sync` brings MLflow up to date with, a server too. MLflow gives the run an ID of its own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matwm.config import Config
from pipeline import project as places
from pipeline import runs
from pipeline.metrics import best
from pipeline.metrics.points import TimedPoint
from pipeline.metrics.recorded import read_recorded
from pipeline.params import imports
from pipeline.process import exclusive
from pipeline.run import ORIGINAL, PARENT, SHOWN_BELOW, Run
from pipeline.stores.folders import PublishedStore
from pipeline.stores.protocol import is_of
from pipeline.tracking.labels import params_of
from pipeline.tracking.local_run import LocalRun, milliseconds
from pipeline.tracking.sync import sync


@dataclass(frozen=True)
class Record:
    """What git and `checkpoints/` have of one run."""

    segment: str
    facts: Mapping[str, Any]
    store: PublishedStore
    run: Run
    """The run as git knows it."""
    steps: list[int]
    """Of its checkpoints."""
    resume: str
    points: list[TimedPoint]
    params: Mapping[str, str]

    @property
    def run_id(self) -> str:
        """The run's ID where it was trained."""
        return self.facts["run_id"]

    @property
    def parent(self) -> Mapping[str, Any]:
        """The checkpoint that it starts from: `run_id` and `step`."""
        return self.facts.get("parent", {})


@dataclass(frozen=True)
class Imported:
    """A run as MLflow has it now."""

    run_id: str
    is_new: bool
    number_of_points: int


def read_record(project: Path, segment: str, base: Config) -> Record:
    """Return what is here of the run that trained a published segment; `base` has the values of params.yaml that shape no training.

    Raises:
        ProjectError: something of it is not here, or is of another training.
        CheckpointError: a checkpoint is damaged.
    """
    metrics = places.metrics_folder(project, segment)
    facts = places.run_record(project, segment)
    if not facts.get("run_id"):
        raise places.ProjectError(f"metrics/{segment}/run.json names no run: the segment was trained without MLflow, or not at all")
    places.check_records(project, [segment])
    store = PublishedStore(project)
    run = Run(facts["run_id"], segment, facts["key"], published=places.published_folder(project, segment))
    steps = store.steps(run)
    last = (places.read_json(metrics / "train.json") or {}).get("step")
    if last not in steps:
        raise places.ProjectError(f'checkpoints/{segment}/ is not here, or has no step {last}: run "dvc pull" first')
    for step in steps:
        checkpoint = store.open(run, step)
        if not is_of(checkpoint, run, step):
            raise places.ProjectError(
                f"{checkpoint.path} is of another training than metrics/{segment}/run.json: check both out of one commit"
            )
    newest = store.open(run, last)
    try:
        config = imports.from_manifest(newest.manifest, base, f"checkpoints/{segment}")
    except imports.ImportedError as error:
        raise places.ProjectError(str(error)) from None
    return Record(segment, facts, store, run, steps, newest.spec.resume, read_recorded(metrics), params_of(config))


def import_all(project: Path, records: Iterable[Record], experiment: str) -> dict[str, Imported]:
    """Bring MLflow up to date with runs, parents first; return each by its segment. To repeat it changes nothing.

    Raises:
        TrackingError: the store does not answer, or a run is deleted there.
        CheckpointError: a checkpoint is damaged.
        ProjectError: a run is being trained here.
    """
    found: dict[str, Imported] = {}
    ids: dict[str, str] = {}
    """Of the runs imported, by their IDs in git and by the digests of their checkpoints: a parent may have had an ID that git never saw."""
    for record in sorted(records, key=lambda record: record.parent.get("step", 0)):  # A parent begins before its children do.
        parent = record.parent.get("run_id")
        there = ids.get(parent or "") or ids.get(record.parent.get("digest", ""))
        found[record.segment] = _import(project, record, experiment, there or (parent and runs.id_today(parent)))
        digests = [record.store.open(record.run, step).digest for step in record.steps]
        ids |= dict.fromkeys([record.run_id, *digests], found[record.segment].run_id)
    return found


def _import(project: Path, record: Record, experiment: str, parent: str | None) -> Imported:
    uri, key = runs.configured_uri(), record.facts["key"]
    work = places.work_folder(project, record.segment, key)
    with exclusive(work / "lock", f"the run of segment {record.segment}"), runs.explained(uri):
        run = LocalRun(work)
        there = _run_of(record, run.run_id or record.run_id, uri)
        if run.state.now.name is None:  # Else it was trained here, or an earlier import has filled it.
            _fill(run, project, record, experiment, parent, there)
        sync(run, uri)
        run.close()
        assert run.run_id
        points = len(run.training_points(-1, run.last_step())) + len(run.records)
        # Nobody has trained a run that is RUNNING without a heartbeat: an import was killed in the midst of it.
        is_new = there is None or (there.status == "RUNNING" and there.heartbeat is not None and not there.heartbeat.time_ms)
        return Imported(run.run_id, is_new, points)


def _run_of(record: Record, run_id: str, uri: str) -> Run | None:
    """Return the run as MLflow has it, under its own ID or another.

    Raises:
        TrackingError: it is deleted there.
    """
    found = runs.get_run(run_id, uri)
    if found is None and runs.is_deleted(run_id, uri):
        raise runs.TrackingError(f"MLflow at {runs.shown(uri)} has run {run_id}, but deleted: `mlflow runs restore --run-id {run_id}`")
    return found or runs.find_by_key(record.segment, record.facts["key"], uri)


def _fill(run: LocalRun, project: Path, record: Record, experiment: str, parent: str | None, there: Run | None) -> None:
    """Make a work directory of what git and `checkpoints/` have; the run's name, which comes last, says that it is whole."""
    facts = record.facts
    for step in record.steps:
        record.store.pull(record.run, step, run.work / "checkpoints")
    run.records.take(record.points, is_revision=True)
    run.records.flush()
    with run.state.change() as contents:
        contents.forget_store()  # A stage may have found before that MLflow lacks the run.
        contents.segment, contents.key, contents.run_id = record.segment, facts["key"], there.run_id if there else None
        contents.name, contents.experiment = record.segment, facts.get("experiment") or experiment
        contents.started, contents.finished = facts.get("started"), facts.get("finished")
        contents.resume, contents.until, contents.has_inherited = record.resume, record.steps[-1], True
        contents.resumed_at = facts.get("resumed_at", [])
        contents.machine = {name: facts.get(name) for name in ("libraries", "device", "threads")}
        contents.params = {f"train.{key}": value for key, value in record.params.items()}
        contents.tags = _tags(record, parent, there)
        contents.status, contents.ended_ms = "FINISHED", milliseconds(facts.get("finished")) or None
        contents.artifacts |= _artifacts(project, record.segment)


def _tags(record: Record, parent: str | None, there: Run | None) -> dict[str, str]:
    """Return the tags that the run had, with its parent's ID of today, and where it comes from."""
    facts = record.facts
    tags = {"matwm.segment": record.segment, "matwm.key": facts["key"], "matwm.numerics": str(facts.get("numerics"))}
    tags |= facts.get("tags", {})
    if parent:
        tags |= {PARENT: parent, SHOWN_BELOW: parent, "matwm.parent_step": str(record.parent.get("step", 0))}
    if mode := best.mode_of({point.key for point in record.points}, tags.get(best.MODES_TAG)):
        # The stage `evaluate` sets it in MLflow, after run.json was written.
        tags |= best.tag(best.of_history(best.objectives(tags), mode, record.points, record.parent.get("step", 0)))
    if there is None:
        commit = facts.get("git", {}).get("commit")
        tags |= {ORIGINAL: record.run_id, "matwm.imported_from": f"git, trained at commit {commit}" if commit else "git"}
    return tags


def _artifacts(project: Path, segment: str) -> dict[str, str]:
    """Return what the stage `evaluate` gave the run, by its path among the artifacts."""
    metrics = places.metrics_folder(project, segment)
    files = {
        "evaluation.json": metrics / "evaluation.json",
        "evaluation.csv": metrics / "evaluation.csv",
        "plots/episode.gif": project / "plots" / segment / "episode.gif",
    }
    return {name: str(path.absolute()) for name, path in files.items() if path.is_file()}
