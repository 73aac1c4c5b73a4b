"""Tracking: MLflow is a projection of what lies on this machine, and `sync` brings it up to date.

    checkpoints' history/  ─┐                          training points, ancestors' included; timestamp: start of the run + 1 ms a step
    tail.jsonl              ├─ LocalRun ── sync(run) ─► MLflow: tag `matwm.step`, written after the points of that step
    records.jsonl           │                          evaluations and measured times, at the times at which they were recorded
    run.json               ─┘                          parameters, tags, status, artifacts; and how much of all that MLflow has

`local_run` is a run as its work directory has it; `sync` sends what MLflow lacks, and calls nothing if nothing is pending; `tracker`
calls it from a thread of training, `upkeep` from later commands, `report` from later stages. `heartbeat` keeps two processes off one run.
A line of `tail.jsonl` and `records.jsonl` has a checksum. The tail begins at the checkpoint before the newest, which may turn out damaged;
after a crash recomputed points are compared with it. The records are never cut.
"""

from pipeline.runs import TrackingError, close_run, configure, find_by_key, get_run, list_runs, metric_history

__all__ = ["TrackingError", "close_run", "configure", "find_by_key", "get_run", "list_runs", "metric_history"]
