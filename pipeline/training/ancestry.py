"""Finds what a segment's ancestors have shown up to where it begins, and when: the beginning of the segment's own curves in MLflow.

What there is to show is in the checkpoint that it starts from, which holds the curves of its whole lineage. When it was recorded, and what
no checkpoint holds (times, evaluations), is known to the parent's journal here, else to MLflow, else to git.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from matwm.checkpoint import Checkpoint, read_manifest
from matwm.manifest import MANIFEST, CheckpointError
from pipeline import project as places
from pipeline import runs
from pipeline.job import Start
from pipeline.metrics import times
from pipeline.metrics.journal import EVALUATION, Journal, TimedPoint, read_points
from pipeline.reporting.outbox import Outbox
from pipeline.runs import TrackingError

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 60.0
"""For MLflow to hand out the parent's history; training waits for it, once in a segment's life."""

Key = tuple[str, int]


def inherited(project: Path, start: Start, has: Callable[[str, int], bool], begun_ms: int) -> list[TimedPoint]:
    """Return the points of all ancestors up to the start of a segment, each once, with their recorded times, oldest first.

    `has` tells which are there already: with all of them, nobody is asked and nothing is returned. Where a time is not to be had, it is
    interpolated between those at which the ancestor began and ended; where these are unknown too, it is `begun_ms`.
    """
    try:
        checkpoint = read_manifest(start.folder)
        curves = times.curves_of(checkpoint.history(), checkpoint.spec.agents)
    except CheckpointError as error:
        logger.warning("%s: MLflow does not show what came before step %d", error, start.parent.step)
        return []
    if all(has(*key) for key in curves):
        return []
    found = _recorded(project, start, curves)
    clock = _Clock(project, start.run_id, begun_ms)
    known = {key: TimedPoint(*key, value, found[key].timestamp_ms if key in found else clock.at(key[1])) for key, value in curves.items()}
    points = {**found, **known}.values()
    return sorted((point for point in points if not has(point.key, point.step)), key=lambda point: (point.timestamp_ms, *point[:2]))


def forgotten(checkpoint: Checkpoint, journal: Journal, begun_ms: int) -> list[TimedPoint]:
    """Return the points of a segment's own checkpoint that its journal has not, oldest first: a power cut or a damaged file took them.

    Their values are exact. Their times lie evenly between what the journal still knows and the moment that the checkpoint was saved.
    """
    first, last = checkpoint.parent.step, checkpoint.step
    curves = times.curves_of(checkpoint.history(), checkpoint.spec.agents)
    lacking = {key: value for key, value in curves.items() if first < key[1] <= last and not journal.has(*key)}
    if not lacking:
        return []
    step, began = (journal.last_step, journal.last_ms) if first < journal.last_step < last else (first, begun_ms)
    ended = max(began, round((checkpoint.path / MANIFEST).stat().st_mtime * 1000))
    slope = (ended - began) / max(1, last - step)
    points = [TimedPoint(*key, value, began + round(slope * max(0, key[1] - step))) for key, value in lacking.items()]
    return sorted(points, key=lambda point: (point.step, point.key))


def _recorded(project: Path, start: Start, curves: Mapping[Key, float]) -> dict[Key, TimedPoint]:
    """Return what is on record of the parent up to the fork: from the first place that knows every curve, else from all together."""
    found: dict[Key, TimedPoint] = {}
    if start.run_id is None:
        return found
    for points in _sources(project, start.run_id):
        here: dict[Key, TimedPoint] = {}
        for point in points:
            # Of an evaluation done again, the last counts; of everything else, the first.
            if point.step <= start.parent.step and (point[:2] not in here or point.key.startswith(EVALUATION)):
                here[point.key, point.step] = point
        found = {**here, **found}
        if curves.keys() <= found.keys():
            break
    return found


def _sources(project: Path, run_id: str) -> Iterator[list[TimedPoint]]:
    """Yield the points of a run in order of time from each place that knows it, the best first."""
    for work in places.work_folders(project, "outbox.json"):
        if Outbox(work / "outbox.json").contents.run_id == run_id:
            yield _in_order(read_points(work / "journal.jsonl"))
    yield _in_order(_from_mlflow(run_id))
    for segment in _segments(project, run_id):
        try:
            yield times.recorded_points(places.metrics_folder(project, segment))
        except places.ProjectError as error:
            logger.warning("%s", error)


def _from_mlflow(run_id: str) -> list[TimedPoint]:
    """Ask MLflow, but not for ever."""
    found: list[TimedPoint] = []

    def ask() -> None:
        try:
            runs.knock()
            if runs.get_run(run_id):
                found.extend(runs.metric_history(run_id))
        except TrackingError as error:
            logger.warning("%s. The curves before the fork get the times that git has, if any", error)

    thread = threading.Thread(target=ask, name="ancestry", daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    return list(found)


def _segments(project: Path, run_id: str) -> list[str]:
    """Return the segments of which git records this run."""
    return [segment for segment, facts in places.run_records(project).items() if facts.get("run_id") == run_id]


class _Clock:
    """Guesses when a run or its ancestors took a step, from when each began and ended."""

    def __init__(self, project: Path, run_id: str | None, otherwise_ms: int) -> None:
        self._otherwise = otherwise_ms
        self._stretches: list[tuple[int, int, int, int]] = []
        known = reversed([(segment, facts) for segment, facts in places.run_records(project).items() if facts.get("run_id")])
        records = {str(facts["run_id"]): (segment, facts) for segment, facts in known}
        while found := records.pop(str(run_id), None):
            segment, facts = found
            parent = facts.get("parent") or {}
            last = (places.read_json(places.metrics_folder(project, segment) / "train.json") or {}).get("step")
            began, ended = _milliseconds(facts.get("started")), _milliseconds(facts.get("finished"))
            if isinstance(last, int) and began and ended:
                self._stretches.append((int(parent.get("step") or 0), last, began, ended))
            run_id = parent.get("run_id")

    def at(self, step: int) -> int:
        """Return the time of a step in milliseconds."""
        for first, last, began, ended in self._stretches:
            if first < step <= last:
                return began + (ended - began) * (step - first) // (last - first)
        return min((began for _, _, began, _ in self._stretches), default=self._otherwise)


def _milliseconds(moment: Any) -> int | None:
    try:
        return int(datetime.fromisoformat(moment).timestamp() * 1000)
    except (TypeError, ValueError):
        return None


def _in_order(points: list[TimedPoint]) -> list[TimedPoint]:
    return sorted(points, key=lambda point: point.timestamp_ms)
