"""Keeps a run's records, which no checkpoint holds, in git: `metrics/<segment>/times.csv` from training, `evaluated.csv` what came after.

step,timestamp_ms,key,value
100,1764000000131,time/steps_per_second,48.1
100,1764000000140,evaluation/sampled/self_play/agent_0,-12.5
"""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from pipeline import project as places
from pipeline.metrics.points import TimedPoint, is_record

TIMES, EVALUATED = "times.csv", "evaluated.csv"
FILES = (TIMES, EVALUATED)
COLUMNS = ("step", "timestamp_ms", "key", "value")


def write_recorded(path: Path, points: Iterable[TimedPoint]) -> None:
    """Write one of the files."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *sorted((point.step, point.timestamp_ms, point.key, repr(point.value)) for point in points)])
    places.write_text(path, text.getvalue())


def read_recorded(folder: Path, names: Iterable[str] = FILES) -> list[TimedPoint]:
    """Return the records in order of time, each once; none if there are no such files.

    Raises:
        ProjectError: one is no table of this kind.
    """
    rows = {row for name in names for row in _rows(folder / name)}
    points = [TimedPoint(key, int(step), float(value), int(time_ms)) for step, time_ms, key, value in rows]
    return sorted(points, key=lambda point: (point.timestamp_ms, point.step, point.key))


def _rows(path: Path) -> list[tuple[str, ...]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [tuple(row[column] for column in COLUMNS) for row in csv.DictReader(file)]
        for step, time_ms, _, value in rows:
            _ = int(step), int(time_ms), float(value or 0)
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise places.ProjectError(f"{path} cannot be read: {error!r}: restore it from git") from None
    # Earlier versions also wrote when the points of the curves were recorded, which checkpoints hold.
    return [row for row in rows if row[3] and is_record(row[2])]
