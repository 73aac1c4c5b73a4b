"""Says everything about a run that fits into one entry of a list, from MLflow where it knows the run, else from git."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pipeline import runs
from pipeline.lookup import Run
from pipeline.metrics import mismatches


def entry(run: Run) -> dict[str, Any]:
    """Return a run as an object for JSON.

    Raises:
        TrackingError: MLflow stopped answering.
    """
    info, tags = run.info, run.info.tags if run.info else {}
    times = (info.started_ms, info.ended_ms, info.last_sign_ms) if info else (None, None, None)
    began, ended, sign = (runs.moment(time) for time in times)
    facts = run.facts
    return {
        "run_id": run.run_id,
        "segment": run.segment,
        "key": tags.get("matwm.key", facts.get("key")),
        "experiment": info.experiment if info else None,
        "status": run.status,
        "step": run.step,
        "until": runs.number(tags.get("matwm.until")),
        "parent_run_id": run.parent_run_id,
        "parent_step": run.parent_step,
        "best": run.best._asdict() if run.best else None,
        "changed": dict(sorted(info.changed.items())) if info else {},
        "not_reproduced": not_reproduced(tags, facts),
        "published": sorted(run.published),
        "started": began or facts.get("started"),
        "ended": ended or facts.get("finished"),
        "last_sign": sign or facts.get("finished"),
        "git_commit": tags.get("matwm.git_commit", (facts.get("git") or {}).get("commit")),
        "is_in_mlflow": run.is_in_mlflow,
    }


def not_reproduced(tags: Mapping[str, str], facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return how many metric points contradict what a resume made of them, and the first as a sentence; None if all is exact."""
    recorded = facts.get("not_reproduced") or {}
    first = tags.get(mismatches.TAG) or recorded.get("first")
    return {"points": runs.number(tags.get(mismatches.COUNT_TAG)) or recorded.get("points"), "first": first} if first else None


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
