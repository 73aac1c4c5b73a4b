"""Keeps every metric point of a run on disk while it trains: the truth that MLflow is sent a copy of."""

import contextlib
import errno
import gzip
import json
import logging
import math
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from matwm import durable
from pipeline.metrics.mismatches import Mismatch, Mismatches

logger = logging.getLogger(__name__)

EVALUATION = "evaluation/"
"""Beginning of the keys of evaluations, which may be done again otherwise."""
MEASURED = ("time/", "checkpoint/")
"""Beginnings of the keys that depend on the machine: computing them again gives another value and proves nothing."""


class Point(Protocol):
    """One value of one metric; `matwm.trainer.Point` is one."""

    @property
    def key(self) -> str: ...  # noqa: D102
    @property
    def step(self) -> int: ...  # noqa: D102
    @property
    def value(self) -> float: ...  # noqa: D102


class TimedPoint(NamedTuple):
    """A value of a metric with the time of its first recording, which makes it one and the same point in MLflow."""

    key: str
    step: int
    value: float
    timestamp_ms: int


class Journal:
    """An append-only file of metric points in which every (key, step) has one value, the first.

    Safe to use from several threads: some that record and one that reads what is to be sent. Each line is handed to the
    operating system before `record` returns, so a killed process loses none; a line torn by a crash is cut off here.
    What a full disk refuses is held in memory, and neither sent nor followed by a checkpoint before it is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cursor_path = _note_beside(path)
        self._lock = threading.Lock()
        # One dict a key: half the memory of one dict with (key, step) tuples, and a long run has a million points.
        self._values: dict[str, dict[int, float]] = {}
        self.last_step = 0
        self.last_ms = 0
        """The latest time of a point."""
        self._inherited_until = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self.mismatches = Mismatches(path.with_suffix(".mismatches.jsonl"))
        """What was contradicted by computing it again, by this process and those before it."""
        self._size = self._cut_torn_line()
        self.has_lost_sent_points = self._cursor(None) > self._size
        """Whether MLflow has points, with their times, that this journal has not any more: it must `adopt` them first."""
        if self.has_lost_sent_points:
            self._cursor_path.unlink()  # It counts bytes of a journal that is gone.
        for point in _points(path, 0, self._size):
            self._remember(point)
        self._file = path.open("ab", buffering=0)
        self._held = b""
        self._is_refused = False

    def __len__(self) -> int:
        return sum(len(values) for values in self._values.values())

    def record(self, points: Iterable[Point], now_ms: int, *, is_revision: bool = False) -> list[Mismatch]:
        """Write the points that are not there yet; return (and report) those whose value differs from the recorded one.

        The first value stays. With `is_revision` a differing value is written as well and nothing is reported: for what
        is rightly computed again otherwise, such as an evaluation over more episodes.
        """
        mismatches: list[Mismatch] = []
        new: dict[tuple[str, int], TimedPoint] = {}
        with self._lock:
            for point in (TimedPoint(point.key, int(point.step), float(point.value), now_ms) for point in points):
                earlier = new.get((point.key, point.step))
                recorded = earlier.value if earlier else self._values.get(point.key, {}).get(point.step)
                if recorded is None or (is_revision and not _same(recorded, point.value)):
                    new[point.key, point.step] = point
                elif not _same(recorded, point.value) and not point.key.startswith(MEASURED):
                    mismatches.append(Mismatch(point.key, point.step, recorded, point.value))
            self._append(list(new.values()))
        self.mismatches.report(mismatches)
        return mismatches

    def has(self, key: str, step: int) -> bool:
        """Return whether there is a value of this metric at this step."""
        return step in self._values.get(key, {})

    def has_evaluation(self, step: int) -> bool:
        """Return whether the policies of this step have been evaluated while training."""
        with self._lock:
            return any(step in values for key, values in self._values.items() if key.startswith(EVALUATION))

    def inherit(self, points: Iterable[TimedPoint], until: int) -> None:
        """Take over points of the ancestors, which end at step `until`, with their times; what is there already stays."""
        self._inherited_until = until
        self.complete(points)

    def complete(self, points: Iterable[TimedPoint]) -> None:
        """Take over points with their times; what is there already stays."""
        with self._lock:
            self._append([point for point in points if not self.has(point.key, point.step)])

    def adopt(self, history: Iterable[TimedPoint]) -> list[Mismatch]:
        """Take over what MLflow has of this run, times included; return (and report) the points that differ.

        Needed where another machine went on with the run, or this one's journal is lost: a step computed again would
        otherwise be sent with a new time and stand twice in MLflow. The file is replaced in one move.
        """
        with self._lock:
            known = sorted(history, key=lambda point: (point.timestamp_ms, point.step, point.key))
            values: dict[tuple[str, int], list[float]] = {}
            for point in known:
                values.setdefault((point.key, point.step), []).append(point.value)
            mismatches: list[Mismatch] = []
            own: list[TimedPoint] = []
            for point in _points(self.path, 0, self._size):
                theirs = values.get((point.key, point.step))
                if theirs is None:
                    own.append(point)
                elif any(_same(value, point.value) for value in theirs) or point.step <= self._inherited_until:
                    continue
                elif point.key.startswith(EVALUATION):
                    own.append(point)  # Done again, perhaps over more episodes.
                elif not point.key.startswith(MEASURED):
                    mismatches.append(Mismatch(point.key, point.step, theirs[0], point.value))
            self._replace(known, own)
        self.mismatches.report(mismatches)
        return mismatches

    def unsent(self, run_id: str, at_most: int) -> tuple[list[TimedPoint], int]:
        """Return the oldest points that this run in MLflow lacks, and the position to pass to `mark_sent` afterwards.

        They are on the disk itself by then: a point that MLflow has and the journal forgot (power cut) would come back
        with another time and stand there twice.
        """
        start = self._cursor(run_id)
        with self._lock:
            end = self._size
        if start >= end:
            return [], start
        os.fsync(self._file.fileno())
        points: list[TimedPoint] = []
        with self.path.open("rb") as file:
            file.seek(start)
            while len(points) < at_most and file.tell() < end:
                points += _parsed(file.readline(), self.path)
            return points, file.tell()

    def mark_sent(self, run_id: str, position: int) -> None:
        """Remember, through a crash too, that MLflow has everything before this position."""
        durable.replace(self._cursor_path, json.dumps({"run_id": run_id, "bytes": position}).encode())

    def num_unsent(self, run_id: str | None) -> int:
        """Count the points that this run in MLflow lacks (a run that is not there yet lacks them all)."""
        return sum(1 for _ in _points(self.path, self._cursor(run_id) if run_id else 0, self._size))

    def flush(self) -> None:
        """Return when every point is on the disk itself: no checkpoint may be newer than the points that a power cut leaves.

        Raises:
            OSError: a full disk still refuses some.
        """
        with self._lock:
            self._write_held()
            descriptor = os.dup(self._file.fileno())  # Waiting for the disk is not for those who record, and the file may be replaced.
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Close the file; recording afterwards is an error. What a full disk refuses to the end is computed again."""
        with self._lock:
            with contextlib.suppress(OSError):
                self._write_held()
            self._file.close()

    def _cursor(self, run_id: str | None) -> int:
        return num_sent_bytes(self.path, run_id)

    def _remember(self, point: TimedPoint) -> None:
        self._values.setdefault(point.key, {})[point.step] = point.value
        self.last_step = max(self.last_step, point.step)
        self.last_ms = max(self.last_ms, point.timestamp_ms)

    def _append(self, points: list[TimedPoint]) -> None:
        for point in points:
            self._remember(point)
        self._held += b"".join(map(_line, points))
        try:
            self._write_held()
        except OSError as error:
            if not self._is_refused:
                logger.error("%s cannot be written: %s. Metric points are held in memory until it can", self.path, error)
            self._is_refused = True

    def _write_held(self) -> None:
        if not self._held:
            return
        try:
            written = self._file.write(self._held)
            if written != len(self._held):
                why = f"{os.strerror(errno.ENOSPC)}: only {written} of {len(self._held)} bytes could be written"
                raise OSError(errno.ENOSPC, why, str(self.path))
        except OSError:
            os.ftruncate(self._file.fileno(), self._size)  # The next line must not be glued to half of this one.
            raise
        self._size += len(self._held)
        self._held = b""
        if self._is_refused:
            logger.warning("%s can be written again", self.path)
        self._is_refused = False

    def _replace(self, known: list[TimedPoint], own: list[TimedPoint]) -> None:
        data = b"".join(map(_line, [*known, *own]))
        self._cursor_path.unlink(missing_ok=True)  # It counts bytes of the old file: it must not outlive that in a crash.
        durable.replace(self.path, data)
        self._file.close()
        self._file = self.path.open("ab", buffering=0)
        self._size = len(data)
        self._values = {}
        for point in [*known, *own]:
            self._remember(point)

    def _cut_torn_line(self) -> int:
        """Shorten the file to its last whole line; return its size."""
        if not self.path.exists():
            return 0
        with self.path.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            whole = size
            while whole > 0:
                file.seek(whole - 1)
                if file.read(1) == b"\n":
                    break
                whole -= 1
            if whole < size:
                logger.warning("%s: cut off %d bytes of a line that a crash left unfinished", self.path, size - whole)
                file.truncate(whole)
        return whole


def num_sent_bytes(journal: Path, run_id: str | None) -> int:
    """Return how much of a journal this run (None: whichever) has been sent: 0 for another than last time, or if the note is unreadable."""
    try:
        note = json.loads(_note_beside(journal).read_bytes())
        return int(note["bytes"]) if run_id in (None, note["run_id"]) else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0  # Sending again changes nothing in MLflow.


def _note_beside(journal: Path) -> Path:
    return journal.with_suffix(".sent.json")


def read_points(path: Path) -> list[TimedPoint]:
    """Return the points in a journal's file, oldest first, whoever may be writing to it; none if there is no such file."""
    try:
        return list(_points(path, 0, path.stat().st_size))
    except FileNotFoundError:
        return []


def packed(points: Iterable[TimedPoint]) -> bytes:
    """Return points as a journal has them, compressed; the same points give the same bytes."""
    return gzip.compress(b"".join(map(_line, points)), mtime=0)


def unpacked(data: bytes, source: Path) -> list[TimedPoint]:
    """Return the points of `packed`; a line that is none is left out with a warning that names `source`."""
    return [point for line in gzip.decompress(data).splitlines(keepends=True) for point in _parsed(line, source)]


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def _line(point: TimedPoint) -> bytes:
    # JSON has no nan and no infinity: they are written as the text that float() reads.
    value = point.value if math.isfinite(point.value) else str(point.value)
    return json.dumps({"key": point.key, "step": point.step, "value": value, "timestamp_ms": point.timestamp_ms}).encode() + b"\n"


def _parsed(line: bytes, path: Path) -> list[TimedPoint]:
    try:
        row = json.loads(line)
        return [TimedPoint(str(row["key"]), int(row["step"]), float(row["value"]), int(row["timestamp_ms"]))]
    except (ValueError, KeyError, TypeError):
        logger.warning("%s: left out a line that is not a metric point: %r", path, line[:80])
        return []


def _points(path: Path, start: int, end: int) -> Iterator[TimedPoint]:
    if end <= start:
        return
    with path.open("rb") as file:
        file.seek(start)
        while file.tell() < end:
            yield from _parsed(file.readline(), path)
