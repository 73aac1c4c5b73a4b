"""Keeps in git when each metric point was recorded, and puts a run's points together again from what `metrics/<segment>/` holds.

training.csv and episodes.csv say what was measured at which step, along the whole lineage; times.csv says when, and what else there was:

    step,timestamp_ms,key,value
    100,1764000000123,,                              all points of step 100 in those two files
    100,1764000000131,time/steps_per_second,48.1     a point that is in neither: measured by the clock, or an evaluation
    100,1764000000140,episode/length,                a point in them that has a time of its own

evaluated.csv has the same columns and holds what the stage `evaluate` told MLflow.
"""

import csv
import io
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from matwm.history import History, Point
from matwm.stateful import State
from pipeline import project as places
from pipeline.metrics.journal import TimedPoint

TIMES = "times.csv"
EVALUATED = "evaluated.csv"
COLUMNS = ("step", "timestamp_ms", "key", "value")

RowT = TypeVar("RowT")
Curves = dict[tuple[str, int], float]
"""Values by key and step."""


def write_times(folder: Path, history: State, agents: Sequence[str], points: Iterable[TimedPoint]) -> None:
    """Write times.csv beside the curves of a checkpoint, from the points of its run's journal."""
    curves, common = curves_of(history, agents), dict[int, int]()
    rows: list[tuple[int, int, str, str]] = []
    for point in points:
        value = curves.get((point.key, point.step))
        if value is None or not (value == point.value or math.isnan(value) and math.isnan(point.value)):
            rows.append((point.step, point.timestamp_ms, point.key, repr(point.value)))
        elif common.setdefault(point.step, point.timestamp_ms) != point.timestamp_ms:
            rows.append((point.step, point.timestamp_ms, point.key, ""))
    _write(folder / TIMES, [*rows, *((step, timestamp_ms, "", "") for step, timestamp_ms in common.items())])


def curves_of(history: State, agents: Sequence[str]) -> Curves:
    """Return every point that a checkpoint's history holds, of its whole lineage."""
    past = History.from_state(history)
    curves = {(key, step): value for key, points in past.metrics.items() for step, value in points}
    for episode in past.episodes:
        curves["episode/length", episode.end_step] = float(episode.length)
        for agent, value in zip(agents, episode.returns, strict=True):
            curves[f"episode/return/{agent}", episode.end_step] = value
    return curves


def write_evaluated(folder: Path, points: Iterable[Point], journal: Iterable[TimedPoint]) -> None:
    """Write evaluated.csv: the points of an evaluation, exactly, with the times that the run's journal has for them."""
    known = {(point.key, point.step, point.value): point.timestamp_ms for point in journal}
    now = time.time_ns() // 1_000_000
    rows = [(point.step, known.get((point.key, point.step, point.value), now), point.key, repr(point.value)) for point in points]
    _write(folder / EVALUATED, rows)


def recorded_points(folder: Path) -> list[TimedPoint]:
    """Return every metric point of a segment's run, as its journal had them, from `metrics/<segment>/` alone; in order of time.

    Raises:
        ProjectError: a file is no table of this kind.
    """
    curves, common, found = _curves_in(folder), dict[int, int](), set[TimedPoint]()
    for name in (TIMES, EVALUATED):
        for step, timestamp_ms, key, text in _table(folder / name, _time):
            if not key:
                common[step] = timestamp_ms
            elif text:
                found.add(TimedPoint(key, step, float(text), timestamp_ms))
                curves.pop((key, step), None)
            elif (key, step) in curves:
                found.add(TimedPoint(key, step, curves.pop((key, step)), timestamp_ms))
    found |= {TimedPoint(key, step, value, common[step]) for (key, step), value in curves.items() if step in common}
    return sorted(found, key=lambda point: (point.timestamp_ms, point.step, point.key))


def _curves_in(folder: Path) -> Curves:
    curves: Curves = {}
    for name, prefix in (("training.csv", ""), ("episodes.csv", "episode/")):
        for step, values in _table(folder / name, _values):
            curves |= {(f"{prefix}{column}", step): value for column, value in values.items()}
    return curves


def _time(row: Mapping[str, str]) -> tuple[int, int, str, str]:
    if row["value"]:
        float(row["value"])
    return int(row["step"]), int(row["timestamp_ms"]), row["key"], row["value"]


def _values(row: Mapping[str, str]) -> tuple[int, dict[str, float]]:
    return int(row["step"]), {column: float(text) for column, text in row.items() if column != "step" and text}


def _table(path: Path, parse: Callable[[Mapping[str, str]], RowT]) -> list[RowT]:
    """Return the rows of a table, none if there is no such file."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [parse(row) for row in csv.DictReader(file)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise places.ProjectError(f"{path} cannot be read: {error!r}: restore it from git") from None


def _write(path: Path, rows: Iterable[tuple[int, int, str, str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *sorted(rows)])
    places.write_text(path, text.getvalue())
