"""Keeps in git what no checkpoint holds of a run: `metrics/<segment>/evaluated.csv`, a copy of the run's records.

step,timestamp_ms,key,value
100,1764000000131,time/steps_per_second,48.1
100,1764000000140,evaluation/sampled/self_play/agent_0,-12.5
"""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from pipeline import project as places
from pipeline.metrics.points import TimedPoint

EVALUATED = "evaluated.csv"
COLUMNS = ("step", "timestamp_ms", "key", "value")


def write_evaluated(folder: Path, points: Iterable[TimedPoint]) -> None:
    """Write evaluated.csv."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *sorted((point.step, point.timestamp_ms, point.key, repr(point.value)) for point in points)])
    places.write_text(folder / EVALUATED, text.getvalue())


def read_evaluated(folder: Path) -> list[TimedPoint]:
    """Return the points of evaluated.csv in order of time; none if there is no such file.

    Raises:
        ProjectError: it is no table of this kind.
    """
    path = folder / EVALUATED
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [TimedPoint(row["key"], int(row["step"]), float(row["value"]), int(row["timestamp_ms"])) for row in csv.DictReader(file)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise places.ProjectError(f"{path} cannot be read: {error!r}: restore it from git") from None
    return sorted(rows, key=lambda point: (point.timestamp_ms, point.step, point.key))
