"""Adds to a segment's MLflow run what the stages after training have found; never fails a stage because MLflow does."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from matwm.config import TrackingConfig
from matwm.history import Point
from pipeline import project as places
from pipeline import runs
from pipeline.metrics.points import TimedPoint
from pipeline.process import exclusive
from pipeline.tracking.local_run import LocalRun
from pipeline.tracking.tracker import Tracker

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 15.0
"""For a store that does not answer: what it misses, the next stage in the same directory sends."""


def report(
    project: Path,
    segment: str,
    settings: TrackingConfig,
    *,
    points: Sequence[Point] = (),
    earlier: Iterable[TimedPoint] = (),
    artifacts: Iterable[tuple[Path, str]] = (),
    tags: Mapping[str, str] | None = None,
) -> list[TimedPoint] | None:
    """Log points, tags, and files with the artifact folder that each goes to, to the run that trained a published segment.

    What an unreachable store misses is kept in the segment's work directory. A point of an evaluation done again joins the old one.
    Returns all records of the run, `earlier` ones included; None if they cannot be kept.
    """
    facts = places.run_record(project, segment)
    if "key" not in facts:
        logger.warning("metrics/%s/run.json does not say which run trained the segment: nothing is logged to MLflow", segment)
        return None
    work = places.work_folder(project, segment, facts["key"])
    if facts.get("run_id") is None and not (work / "run.json").is_file():
        logger.warning("segment %s was trained without MLflow, and not here: nothing is logged to MLflow", segment)
        return None
    try:
        with exclusive(work / "lock", f"the run of segment {segment}"):
            run = LocalRun(work)
            if run.state.now.key is None:
                with run.state.change() as contents:
                    contents.segment, contents.key, contents.run_id = segment, facts["key"], facts.get("run_id")
            run.records.take(earlier)
            run.records.add(points, time.time_ns() // 1_000_000, is_revision=True)
            if tags:
                run.tag(tags)
            for path, folder in artifacts:
                run.artifact(path, folder)
            tracker = Tracker(run, runs.tracking_uri(project), settings.upload_seconds)
            tracker.start()
            tracker.close(patience=PATIENCE_SECONDS)
            return run.records.points()
    except places.ProjectError as error:
        logger.warning("nothing is logged to MLflow: %s", error)
        return None
