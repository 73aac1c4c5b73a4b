"""Keeps what a finished trial has left (metrics, plots), so that the next call of its sweep's stage, whose outputs DVC deletes first, only
puts it back: no training, no evaluation, no word to MLflow.

.matwm/work/<sweep>~<trial>-<key>/outcome/    metrics/  plots/  mark.json, which says what it is the outcome of
"""

import contextlib
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

from matwm import durable
from matwm.checkpoint import CheckpointError, publish, read_manifest
from matwm.store import LocalStore
from pipeline import dvc_files
from pipeline import project as places
from pipeline.job import Job
from pipeline.params.retention import retained_by

MARK = "mark.json"


def publish_checkpoints(job: Job, store: LocalStore) -> list[Path]:
    """Give the finished checkpoints that stay their names in `checkpoints/<segment>`, all at once; return what was damaged in DVC's cache.

    Raises:
        CheckpointError: a checkpoint is damaged or cannot be linked.
    """
    target = places.published_folder(job.project, job.segment.name)
    incoming = target.with_name(f".{target.name}.incoming")
    shutil.rmtree(incoming, ignore_errors=True)
    staying = retained_by(job.segment, read_manifest(store.folder / places.step_folder(job.segment.until)))
    for name in map(places.step_folder, staying):
        publish(store.folder / name, incoming / name)
    damaged = dvc_files.discard_damaged(job.project, incoming)
    shutil.rmtree(target, ignore_errors=True)
    incoming.rename(target)
    return damaged


def keep(job: Job) -> None:
    """Keep what the finished and evaluated training has left."""
    folder = job.work / "outcome"
    shutil.rmtree(folder, ignore_errors=True)
    for kind, source in _sources(job).items():
        if source.is_dir():
            _copy(source, folder / kind)
    places.write_json(folder / MARK, {"of": _of(job)})


def restore(job: Job) -> bool:
    """Put back what a training has left, and publish its checkpoints; return False if it is not finished as params.yaml says it."""
    folder = job.work / "outcome"
    if (places.read_json(folder / MARK) or {}).get("of") != _of(job):
        return False
    stopped = (places.read_json(folder / "metrics" / "train.json") or {}).get("stopped_at")
    job = replace(job, segment=job.segment.ending(stopped)) if stopped else job
    try:
        publish_checkpoints(job, LocalStore(job.work / "checkpoints"))
    except CheckpointError:
        return False  # It is made again, which says why.
    for kind, target in _sources(job).items():
        shutil.rmtree(target, ignore_errors=True)
        if (folder / kind).is_dir():
            _copy(folder / kind, target)
    return True


def publish_starts(job: Job) -> None:
    """Publish of a training that is not finished what other trials start from: DVC may have deleted it."""
    store, target = LocalStore(job.work / "checkpoints"), places.published_folder(job.project, job.segment.name)
    for step in {*job.segment.needed} & {*store.steps()} - {*places.steps_in(target), job.segment.until}:
        with contextlib.suppress(CheckpointError):  # It is made again.
            publish(store.folder / places.step_folder(step), target / places.step_folder(step))


def _sources(job: Job) -> dict[str, Path]:
    return {"metrics": places.metrics_folder(job.project, job.segment.name), "plots": job.project / "plots" / job.segment.name}


def _of(job: Job) -> str:
    """Digest all that decides what a training leaves."""
    segment = job.segment.planned or job.segment
    decides = [job.key, segment.until, segment.saves, segment.needed]
    decides += [part.model_dump(mode="json") for part in (segment.config.retention, segment.config.evaluation)]
    decides += [segment.patience] if segment.patience else []
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _copy(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for file in source.iterdir():
        durable.replace(target / file.name, file.read_bytes())
