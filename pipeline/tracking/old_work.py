"""Takes over a work directory in which points were kept in `journal.jsonl` and messages to MLflow in `outbox.json` (until July 2026)."""

import contextlib
import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from matwm.checkpoint import CheckpointError, read_manifest
from pipeline import project as places
from pipeline.metrics.points import TimedPoint, is_record
from pipeline.process import exclusive
from pipeline.tracking.records import Records
from pipeline.tracking.state import State
from pipeline.tracking.tail import Tail

logger = logging.getLogger(__name__)


def convert(work: Path) -> None:
    """Bring such a directory to today's files; another one is left as it is. To repeat it after a crash changes nothing.

    What MLflow has is compared point by point before anything is sent: its points have other timestamps.
    """
    if (work / "outbox.json").is_file():
        with exclusive(work / "converting.lock", f"the take-over of {work}"):
            if (work / "outbox.json").is_file():  # Else another process has done it.
                _convert(work)


def _convert(work: Path) -> None:
    outbox = work / "outbox.json"
    journal, found = work / "journal.jsonl", places.read_json(outbox) or {}
    points = _points(journal)
    for name in ("records.jsonl", "tail.jsonl"):
        (work / name).unlink(missing_ok=True)
    records = Records(work / "records.jsonl")
    for point in points:
        if is_record(point.key):
            records.take([point], is_revision=True)
    records.close()
    tail = Tail(work / "tail.jsonl")
    newest = max(places.steps_in(work / "checkpoints"), default=0)
    tail.resume(newest)
    for point in points:
        if point.step > newest and not is_record(point.key):
            tail.record([point], point.step)
    tail.close()
    _convert_state(work, found)
    if (old := journal.with_suffix(".mismatches.jsonl")).is_file():
        old.replace(work / "mismatches.jsonl")
    for path in (outbox, journal, journal.with_suffix(".sent.json")):  # The one that asks for all this first.
        path.unlink(missing_ok=True)
    logger.warning("%s is taken over from an earlier version: MLflow gets what it lacks, each point once", work)


def _convert_state(work: Path, found: dict[str, Any]) -> None:
    with State(work / "run.json").change() as contents:
        contents.run_id = contents.run_id or found.get("run_id")
        contents.name, contents.experiment = found.get("name"), str(found.get("experiment") or "")
        contents.params = dict(found.get("params") or {})
        contents.tags = {key: value for key, value in (found.get("tags") or {}).items() if key != "matwm.writer"}
        contents.status, contents.ended_ms = found.get("status"), found.get("ended_ms")
        if contents.status is None and found.get("is_running"):
            contents.status = "RUNNING"
        if contents.started is None and found.get("started_ms"):
            contents.started = datetime.fromtimestamp(found["started_ms"] / 1000, UTC).isoformat(timespec="milliseconds")
        uploads = [(Path(path), folder) for path, folder in found.get("uploads") or []]
        contents.artifacts = {f"{folder}/{path.name}".lstrip("/"): str(path) for path, folder in uploads if not path.is_dir()}
        contents.resume = _resume(work) or contents.resume
        contents.has_inherited = True  # Its journal began with the ancestors' points.


def _resume(work: Path) -> str | None:
    """Return the resume class of what was trained there, None if no checkpoint says it."""
    for step in reversed(places.steps_in(work / "checkpoints")):
        with contextlib.suppress(CheckpointError):
            return read_manifest(work / "checkpoints" / places.step_folder(step)).spec.resume
    return None


def _points(journal: Path) -> list[TimedPoint]:
    found: list[TimedPoint] = []
    for line in journal.read_bytes().splitlines() if journal.is_file() else []:
        try:
            row = json.loads(line)
            found.append(TimedPoint(str(row["key"]), int(row["step"]), float(row["value"]), int(row["timestamp_ms"])))
        except (ValueError, KeyError, TypeError):
            logger.warning("%s: left out a line that is not a metric point: %r", journal, line[:80])
    return found
