"""The training points that no checkpoint holds yet, and those since the checkpoint before the newest: that one may turn out damaged."""

import contextlib
import threading
from collections.abc import Iterable
from pathlib import Path

from matwm import history
from pipeline.metrics.mismatches import Mismatch, Mismatches
from pipeline.metrics.points import Point, same
from pipeline.tracking import lines


class Tail:
    """Safe to use from several threads. Recomputed points are compared with what stands here: the check that a resume was exact."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mismatches = Mismatches(path.with_name("mismatches.jsonl"))
        """What was contradicted by computing it again, by this process and those before it."""
        self.begin: int | None = None
        """The step after which it begins, None if nobody has written it."""
        self.complete = -1
        """The step up to which every point is here, from `begin` on."""
        self._lock = threading.Lock()
        self._file = lines.CheckedLines(path)
        self._points: dict[int, dict[str, float]] = {}
        self._expected: set[tuple[str, int]] = set()
        found = lines.read(path)
        for number, (row, _) in enumerate(found.rows):
            is_sound = number < found.sound
            if "from" in row:
                self.begin = step = int(row["from"])
            else:
                step = int(row["step"])
                self._points.setdefault(step, {})[row["key"]] = float(row["value"])
            self.complete = max(self.complete, step) if is_sound else self.complete
        self.is_damaged = found.is_damaged or self.begin is None
        if self.is_damaged:  # The damaged line may be of the last step before it as well as of a later one.
            self.complete = max(self.begin or 0, self.complete - 1)

    def resume(self, step: int, *, is_exact: bool = True) -> None:
        """Go on from a checkpoint. Where steps do not come out the same again, what was recorded beyond it is dropped.

        Raises:
            OSError: the disk refuses.
        """
        with self._lock:
            if not is_exact:
                self._points = {}
            if not is_exact or self.begin is None or self.begin > step:
                self.begin = self.complete = step
                self._rewrite()
            self.complete = max(self.complete, step)

    def record(self, points: Iterable[Point], step: int) -> list[Mismatch]:
        """Add the points up to a step that was trained; return (and report) those with another value than before, which stays."""
        mismatches: list[Mismatch] = []
        new: list[Point] = []
        with self._lock:
            for point in points:
                known = self._points.setdefault(point.step, {})
                if point.key not in known:
                    known[point.key] = point.value
                    new.append(point)
                elif not same(known[point.key], point.value):
                    mismatches.append(Mismatch(point.key, point.step, known[point.key], point.value))
                elif (point.key, point.step) in self._expected:
                    self._expected.remove((point.key, point.step))
                    new.append(point)
            self._file.append([_row(point.key, point.step, point.value) for point in new])
            self.complete = max(self.complete, step)
        self.mismatches.report(mismatches)
        return mismatches

    def expect(self, points: Iterable[Point]) -> None:
        """Compare later points with these, which MLflow has from another machine; they are not written."""
        with self._lock:
            for point in points:
                self._points.setdefault(point.step, {}).setdefault(point.key, point.value)
                self._expected.add((point.key, point.step))

    def unsent(self, after: int, until: int) -> tuple[int | None, list[Point]]:
        """Return the step after which every point is here, None if the file is damaged, and those beyond `after` up to `until`, by step."""
        with self._lock:
            steps = sorted(step for step in self._points if after < step <= until)
            points: list[Point] = [history.Point(key, step, value) for step in steps for key, value in self._points[step].items()]
            own = [point for point in points if (point.key, point.step) not in self._expected]
            return None if self.is_damaged else self.begin, own

    def cut(self, step: int) -> None:
        """Drop the points up to a step, at which there is a checkpoint and after it another one."""
        with self._lock, contextlib.suppress(OSError):  # A full disk: it stays longer.
            self._points = {later: points for later, points in self._points.items() if later > step}
            self.begin = max(step, self.begin or 0)
            self._rewrite()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    def _rewrite(self) -> None:
        points = ((key, step, value) for step in sorted(self._points) for key, value in self._points[step].items())
        rows = [_row(*point) for point in points if point[:2] not in self._expected]
        self._file.replace([{"from": self.begin}, *rows])
        self.is_damaged = False


def last_step(path: Path) -> int:
    """Return the last step of a tail's file without reading it all; -1 if there is none."""
    row = lines.last_row(path) or {}
    return int(row.get("step", row.get("from", -1)))


def _row(key: str, step: int, value: float) -> lines.Row:
    return {"key": key, "step": step, "value": lines.number(value)}
