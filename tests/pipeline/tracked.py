"""Runs of trainings that only log, in work directories of their own."""

import shutil
import time
from pathlib import Path
from typing import Any

from matwm.checkpoint import Checkpoint
from matwm.history import Point
from matwm.step_names import step_name
from pipeline import runs, tracking
from pipeline.tracking.heartbeat import Heartbeat
from pipeline.tracking.local_run import LocalRun
from pipeline.tracking.tracker import Tracker


def new_key() -> str:
    """Return the key of a training that no other test has: the server outlives them all."""
    return str(time.monotonic_ns())


class Trained:
    """A process that trains a run in a work directory, at a step; its points are those of `losses`."""

    def __init__(
        self, project: Path, key: str, work: str = "work", *, at: int = 0, params: dict[str, str] | None = None, **tags: str
    ) -> None:
        self.run = LocalRun(project / work)
        with self.run.state.change() as contents:
            contents.segment, contents.key, contents.name, contents.experiment = "s00", key, "s00", "tests"
            contents.started = contents.started or "2026-01-01T00:00:00.000+00:00"
            contents.params = {f"train.{name}": value for name, value in (params or {"seed": "1"}).items()}
            contents.tags |= {"matwm.segment": "s00", "matwm.key": key, **tags}
            contents.status, contents.ended_ms = "RUNNING", None
            contents.checkpoints, contents.refused = [], []
            if at and not (project / work / "tail.jsonl").exists():
                contents.start = f"/not here/{step_name(at)}"  # It goes on from a checkpoint that came from elsewhere.
        self.run.tail.resume(at)
        self.process = Heartbeat(0.02)
        self.tracker = Tracker(self.run, runs.tracking_uri(project), 0.02, self.process)

    def start(self, wait_seconds: float = 300.0) -> "Trained":
        self.tracker.start(wait_seconds)
        return self

    def train(self, steps: range) -> "Trained":
        for step in steps:
            self.run.log(losses(range(step, step + 1)), step)
        return self

    def measure(self, key: str, step: int, value: float) -> None:
        self.run.records.add([Point(key, step, value)], time.time_ns() // 1_000_000, is_revision=key.startswith("evaluation"))

    def close(self, status: str = "FINISHED", **options: Any) -> str | None:
        self.run.end(status)
        return self.tracker.close(**options)

    def die(self) -> None:
        """End as after SIGKILL: nothing more is written or sent."""
        self.tracker._released.set()
        self.run.state.release()
        self.tracker._wake.set()
        self.tracker._thread.join()


def losses(steps: range) -> list[Point]:
    return [Point("world_model/loss", step, 1 / (1 + step)) for step in steps]


def history(run_id: str | None) -> list[tuple[str, int, float]]:
    assert run_id
    return sorted((point.key, point.step, point.value) for point in tracking.metric_history(run_id))


def plain(points: list[Point]) -> list[tuple[str, int, float]]:
    return sorted((point.key, point.step, point.value) for point in points)


def put_checkpoint(run: LocalRun, checkpoint: Checkpoint) -> None:
    """Lay a checkpoint into the work directory, as if it had been trained there."""
    shutil.copytree(checkpoint.path, run.folder(checkpoint.step))
