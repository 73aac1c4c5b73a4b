"""Says everything about a run that fits into one entry of a list."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from pipeline import runs
from pipeline.metrics import best, mismatches
from pipeline.run import Run, moment, number


def best_of(run: Run) -> tuple[best.Best, ...]:
    """Return a run's best evaluation over its own steps, by each objective.

    MLflow is asked for the histories of runs alone that were judged before the tag `matwm.best` was there.

    Raises:
        TrackingError: MLflow does not answer.
    """
    if (tagged := best.of_tags(run.tags)) is not None:
        return tagged
    found = best.objectives({**run.record.get("tags", {}), **run.tags})
    mode = best.mode_of(run.metrics, run.tags.get(best.MODES_TAG))
    if mode is None or run.run_id is None:
        return best.of_record(run.evaluation, found)
    names = [name for objective in found for name in best.keys(run.metrics, mode, objective)]
    return best.of_history(found, mode, runs.metric_history(run.run_id, keys=names), run.parent_step or 0)


def entry(run: Run, judged: Iterable[best.Best], published: Iterable[int]) -> dict[str, Any]:
    """Return a run as an object for JSON; `judged` are its best evaluations, `published` the steps that segments can start from."""
    return {
        "run_id": run.run_id,
        "segment": run.segment,
        "key": run.key,
        "experiment": run.experiment,
        "status": run.state,
        "step": run.step,
        "until": run.until,
        "parent_run_id": run.parent_run_id,
        "parent_step": run.parent_step,
        "best": [one._asdict() for one in judged],
        "changed": dict(sorted(run.changed.items())),
        "not_reproduced": not_reproduced(run.tags, run.record),
        "published": sorted(published),
        "started": run.started,
        "ended": run.finished,
        "last_sign": moment(run.last_sign_ms) or run.finished,
        "git_commit": run.git.get("commit"),
        "is_in_mlflow": run.status is not None,
    }


def not_reproduced(tags: Mapping[str, str], facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return how many metric points contradict what a resume made of them, and the first as a sentence; None if all is exact."""
    recorded = facts.get("not_reproduced", {})
    first = tags.get(mismatches.TAG) or recorded.get("first")
    return {"points": number(tags.get(mismatches.COUNT_TAG)) or recorded.get("points"), "first": first} if first else None


def age(moment: str | None, now: datetime) -> str:
    """Return how long ago a moment was, in its largest unit."""
    try:
        seconds = (now - datetime.fromisoformat(moment or "")).total_seconds()
    except (ValueError, TypeError):
        return "-"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
