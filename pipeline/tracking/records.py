"""What no checkpoint holds of a run: evaluations and measured times, each with the time at which it was recorded."""

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pipeline.metrics.points import EVALUATION, Point, TimedPoint, same
from pipeline.tracking import lines


class Record(NamedTuple):
    """A point, and the position in the file at which it ends."""

    point: TimedPoint
    end: int


class Records:
    """An append-only file that is never cut; safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file = lines.CheckedLines(path)
        self._written = [Record(_point(row), end) for row, end in lines.read(path).rows]
        self._held: list[TimedPoint] = []
        self._values: dict[tuple[str, int], list[float]] = {}
        for record in self._written:
            self._values.setdefault(record.point[:2], []).append(record.point.value)

    def __len__(self) -> int:
        return len(self._written) + len(self._held)

    def add(self, points: Iterable[Point], now_ms: int, *, is_revision: bool = False) -> None:
        """Record points that are new; with `is_revision`, another value joins the earlier one: an evaluation done again."""
        self.take([TimedPoint(point.key, point.step, float(point.value), now_ms) for point in points], is_revision=is_revision)

    def take(self, points: Iterable[TimedPoint], *, is_revision: bool = False) -> None:
        """Record points that have their times already, such as an ancestor's."""
        with self._lock:
            new: list[TimedPoint] = []
            for point in points:
                known = self._values.setdefault(point[:2], [])
                if not known or (is_revision and not any(same(value, point.value) for value in known)):
                    known.append(point.value)
                    new.append(point)
            self._held += new
            self._note(self._file.append([{**point._asdict(), "value": lines.number(point.value)} for point in new]))

    def points(self) -> list[TimedPoint]:
        """Return all points in the order in which they were recorded."""
        return self.snapshot()[0]

    def snapshot(self) -> tuple[list[TimedPoint], int]:
        """Return all points, and the position after the last one in the file."""
        with self._lock:
            points = [*(record.point for record in self._written), *self._held]
            return points, self._written[-1].end if self._written else 0

    def unsent(self, position: int, until: float) -> list[Record]:
        """Return what stands in the file after a position, up to the first point beyond the step `until`."""
        with self._lock:
            found: list[Record] = []
            for record in self._written:
                if record.end > position:
                    if record.point.step > until:
                        break
                    found.append(record)
            return found

    @property
    def end(self) -> int:
        """The position after the last point in the file."""
        return self.snapshot()[1]

    def has_evaluation(self, step: int) -> bool:
        """Return whether the policies of a step have been evaluated."""
        with self._lock:
            return any(key.startswith(EVALUATION) and of == step for key, of in self._values)

    def flush(self) -> None:
        """Return when every point is on the disk itself: no checkpoint may be newer than what a power cut leaves of the records.

        Raises:
            OSError: a full disk still refuses some.
        """
        with self._lock:
            self._note(self._file.flush())

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    def _note(self, ends: list[int]) -> None:
        if ends:
            self._written += [Record(point, end) for point, end in zip(self._held, ends, strict=True)]
            self._held = []


def _point(row: lines.Row) -> TimedPoint:
    return TimedPoint(str(row["key"]), int(row["step"]), float(row["value"]), int(row["timestamp_ms"]))
