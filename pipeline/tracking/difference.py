"""Compares every point of a run with those that MLflow has of it."""

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline import runs
from pipeline.metrics.mismatches import Mismatch
from pipeline.metrics.points import EVALUATION, Point, TimedPoint, is_record, same
from pipeline.tracking.local_run import LocalRun


@dataclass(frozen=True)
class Difference:
    """What of a run MLflow lacks, has with other values, or has twice."""

    missing: list[Point]
    mismatches: list[Mismatch]
    doubled: list[TimedPoint]

    def sentences(self, run_id: str) -> list[str]:
        """Say what is wrong; nothing if MLflow has each point once."""
        found = (
            ("missing", self.missing),
            ("of another value than here", self.mismatches),
            ("there more than once", self.doubled),
        )
        return [
            f"metric points of run {run_id[:12]} in MLflow are {what}: {len(points)}, first {points[0].key} at step {points[0].step}"
            for what, points in found
            if points
        ]


def difference(mine: Iterable[Point], theirs: Iterable[TimedPoint]) -> Difference:
    """Compare points with MLflow's. Of a measured time the first value counts, an evaluation can be done again with another result."""
    there: dict[tuple[str, int], list[TimedPoint]] = {}
    for point in theirs:
        there.setdefault(point[:2], []).append(point)
    missing: list[Point] = []
    mismatches: list[Mismatch] = []
    for point in mine:
        others = there.get((point.key, point.step), [])
        is_equal = any(same(point.value, other.value) for other in others)
        if not others or (point.key.startswith(EVALUATION) and not is_equal):
            missing.append(point)
        elif not is_equal and not is_record(point.key):
            mismatches.append(Mismatch(point.key, point.step, others[0].value, point.value))
    doubled = [points[0] for points in there.values() if len(points) > _expected(points)]
    return Difference(missing, mismatches, doubled)


def difference_of(run: LocalRun, uri: str) -> Difference | None:
    """Compare a run of this machine with MLflow's; None if MLflow has none."""
    found = runs.get_run(run.run_id, uri) if run.run_id else None
    if found is None:
        return None
    return difference([*run.training_points(-1, run.state.now.synced), *run.records.points()], runs.metric_history(found.id, uri))


def _expected(points: list[TimedPoint]) -> int:
    """Return how many points of one key and step there may be: one, or of a record as many as have different values."""
    return len({repr(point.value) for point in points}) if is_record(points[0].key) else 1
