"""Adds to a segment's MLflow run what the stages after training have found; never fails a stage because MLflow does."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from matwm.config import TrackingConfig
from matwm.history import Point
from pipeline import project as places
from pipeline.process import exclusive
from pipeline.tracking import Tracker

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 15.0
"""For a store that does not answer: what it misses, the next stage in the same directory sends."""


def report(
    project: Path,
    segment: str,
    settings: TrackingConfig,
    *,
    points: Sequence[Point] = (),
    artifacts: Iterable[tuple[Path, str]] = (),
    tags: Mapping[str, str] | None = None,
) -> None:
    """Log points, tags, and files with the artifact folder that each goes to, to the run that trained a published segment.

    What an unreachable store misses is kept in the segment's work directory. A point of an evaluation done again joins the old one.
    """
    facts = places.run_record(project, segment)
    if "key" not in facts:
        logger.warning("metrics/%s/run.json does not say which run trained the segment: MLflow is told nothing", segment)
        return
    # The trainer's own directory: its journal knows what the run has, so that nothing need be read back from the store.
    work = places.work_folder(project, segment, facts["key"])
    if facts.get("run_id") is None and not (work / "outbox.json").is_file():
        logger.warning("segment %s was trained without MLflow, and not here: MLflow is told nothing", segment)
        return
    try:
        with exclusive(work / "lock", f"the run of segment {segment}"):
            tracker = Tracker(project, settings.experiment, work, settings.upload_seconds)
            tracker.attach(facts.get("run_id"))
            tracker.log(points, is_revision=True)
            if tags:
                tracker.tag(tags)
            for path, folder in artifacts:
                tracker.artifact(path, folder)
            tracker.close(None, patience=PATIENCE_SECONDS)
    except places.ProjectError as error:
        logger.warning("MLflow is told nothing: %s", error)
