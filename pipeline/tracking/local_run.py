"""A run as its work directory has it: checkpoints with their histories, tail, records and `run.json`."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path

from matwm import history
from matwm.checkpoint import CheckpointError, read_manifest
from pipeline import project as places
from pipeline import runs
from pipeline.metrics.mismatches import Mismatch
from pipeline.metrics.points import Curves, Point, curves_of
from pipeline.tracking import old_work
from pipeline.tracking.records import Records
from pipeline.tracking.state import State
from pipeline.tracking.tail import Tail, last_step

TAIL, RECORDS, FACTS = "tail.jsonl", "records.jsonl", "run.json"


class LocalRun:
    """What MLflow is to show of a run. Who changes it holds the lock of the work directory."""

    def __init__(self, work: Path) -> None:
        self.work = work
        old_work.convert(work)
        self.state = State(work / FACTS)
        self.has_compared = False
        """Whether the process that trains it has seen what MLflow had of the run before."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when there is something to send."""

    @cached_property
    def tail(self) -> Tail:
        """The training points since the last checkpoints."""
        return Tail(self.work / TAIL)

    @cached_property
    def records(self) -> Records:
        """Evaluations and measured times."""
        records = Records(self.work / RECORDS)
        if records.end < self.state.now.records:  # A power cut took what MLflow may have: what is recorded now comes after it.
            with self.state.change() as contents:
                contents.records = records.end
        return records

    @property
    def run_id(self) -> str | None:
        """The run's ID in MLflow, None as long as no store has it."""
        return self.state.now.run_id

    @property
    def started_ms(self) -> int:
        """When it began, by the clock of the machine that began it."""
        return milliseconds(self.state.now.started) or time.time_ns() // 1_000_000

    def log(self, points: Iterable[Point], step: int) -> list[Mismatch]:
        """Log the training points up to a step; return (and report) those that an earlier process has recorded with another value."""
        found = self.tail.record(points, step)
        if found:
            self.tag(self.tail.mismatches.tags())
        return found

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        with self.state.change() as contents:
            contents.tags.update({key: str(value) for key, value in tags.items()})
        self.on_change()

    def artifact(self, path: Path, folder: str = "") -> None:
        """Add a file to the run's artifacts, or what it holds by now."""
        with self.state.change() as contents:
            contents.artifacts[f"{folder}/{path.name}".lstrip("/")] = str(path.absolute())
        self.on_change()

    def note_saved(self, step: int) -> None:
        """Note that a checkpoint was saved: a damaged one of its step is replaced by now."""
        contents = self.state.now
        if step in contents.checkpoints or step in contents.refused:
            with self.state.change() as contents:
                contents.checkpoints = [other for other in contents.checkpoints if other != step]
                contents.refused = [other for other in contents.refused if other != step]
        self.on_change()

    def end(self, status: str, ended_ms: int | None = None) -> None:
        """Note how the run ended, and when (default: now)."""
        with self.state.change() as contents:
            contents.status, contents.ended_ms = status, ended_ms or time.time_ns() // 1_000_000

    def mark_killed(self) -> bool:
        """Call a run KILLED whose process is dead, since its last point; return whether it was RUNNING. The caller holds the lock."""
        if self.state.now.status != "RUNNING":
            return False
        files = [self.work / name for name in (TAIL, RECORDS) if (self.work / name).is_file()]
        self.end("KILLED", max([self.started_ms, *(round(file.stat().st_mtime * 1000) for file in files)]))
        return True

    def training_points(self, after: int, until: int) -> list[Point]:
        """Return the training points of the steps beyond `after` up to `until`, by step; those of a checkpoint come from there."""
        begin, points = self.tail.unsent(after, until)  # First: a save may cut the tail, after which the checkpoint has them.
        if begin is None or begin > after:
            base, curves = self._history(after, until)
            points = [point for point in points if point.step > base]
            points += [history.Point(key, step, value) for (key, step), value in curves.items() if after < step <= until]
        return sorted(points, key=lambda point: point.step)

    def last_step(self) -> int:
        """Return the step up to which all training points are here; -1 if there are none."""
        newest = next((step for step in reversed(self.steps()) if self._opened(self.folder(step))), self.start_step)
        if self.state.now.resume == "episode":
            return newest  # What comes after it comes out otherwise another time.
        tail = self.tail
        reaches = tail.begin is not None and tail.begin <= max(newest, 0)
        return max(newest, tail.complete) if reaches else newest

    @property
    def start_step(self) -> int:
        """The step of the checkpoint that the segment starts from; -1 where that is the root, or not known."""
        step = places.step_of(self.state.now.start or "")
        return -1 if step is None else step

    def steps(self) -> list[int]:
        """Return the steps of the checkpoints in the work directory."""
        return places.steps_in(self.work / "checkpoints")

    def folder(self, step: int) -> Path:
        """Return the folder of a checkpoint in the work directory."""
        return self.work / "checkpoints" / places.step_folder(step)

    def labels(self) -> str:
        """Return the digest of the parameters and tags that MLflow is to have."""
        contents = self.state.now
        return hashlib.sha256(json.dumps([contents.params, contents.tags], sort_keys=True).encode()).hexdigest()[:16]

    def unsent_checkpoints(self) -> list[int]:
        """Return the steps of the checkpoints that MLflow lacks, ascending."""
        return sorted({*self.steps()} - {*self.state.now.checkpoints} - {*self.state.now.refused})

    def unsent_artifacts(self) -> dict[str, Path]:
        """Return the files that MLflow lacks, or has with other contents, by their paths among the run's artifacts."""
        contents = self.state.now
        files = {name: Path(path) for name, path in contents.artifacts.items()}
        return {name: path for name, path in files.items() if contents.sent_artifacts.get(name) != file_mark(path)}

    def has_pending(self, uri: str) -> bool:
        """Return whether a store may lack something: without asking it, and without reading points."""
        contents, mark = self.state.now, runs.store_mark(uri)
        if contents.unknown_in == mark or (contents.name is None and contents.run_id is None):
            return False
        records = self.work / RECORDS
        return (
            contents.store != mark
            or contents.labels != self.labels()
            or contents.status not in (None, contents.shown_status)
            or (records.stat().st_size if records.is_file() else 0) > contents.records
            or bool(self.unsent_checkpoints() or self.unsent_artifacts())
            or self._furthest() > contents.synced
        )

    def missing(self) -> list[str]:
        """Name what MLflow lacks of the run, as far as is known here."""
        contents = self.state.now
        number = sum(not self._is_inherited(point) for point in self.training_points(contents.synced, self.last_step()))
        number += len(self.records.unsent(contents.records, float("inf")))
        artifacts = len(self.unsent_checkpoints()) + len(self.unsent_artifacts())
        return [
            *([f"{number} metric points"] if number else []),
            *([f"{artifacts} artifact{'s' * (artifacts > 1)}"] if artifacts else []),
            *(["parameters and tags"] if contents.labels != self.labels() else []),
            *([f"the status {contents.status}"] if contents.status not in (None, contents.shown_status) else []),
        ]

    def close(self) -> None:
        """Close the files."""
        self.tail.close()
        self.records.close()

    def _furthest(self) -> int:
        contents, steps = self.state.now, self.steps()
        if contents.resume == "episode":
            return max([step for step in steps if step not in contents.refused], default=-1)
        return max([*steps[-1:], last_step(self.work / TAIL)])

    def _is_inherited(self, point: Point) -> bool:
        return point.step <= self.start_step

    def _history(self, after: int, until: int) -> tuple[int, Curves]:
        """Return the step of the newest checkpoint up to `until` and its points."""
        folders = [self.folder(step) for step in reversed(self.steps()) if step <= until]
        for folder in [*folders, *([Path(self.state.now.start)] if self.state.now.start else [])]:
            try:
                checkpoint = read_manifest(folder)
                return checkpoint.step, curves_of(checkpoint.history(), checkpoint.spec.agents)
            except CheckpointError:
                continue  # The one before it has what it has.
        return after, {}

    def _opened(self, folder: Path) -> bool:
        try:
            read_manifest(folder)
        except CheckpointError:
            return False
        return True


def milliseconds(moment: str | None) -> int:
    """Return a moment as MLflow counts it; 0 if there is none."""
    try:
        return round(datetime.fromisoformat(moment or "").timestamp() * 1000)
    except ValueError:
        return 0


def file_mark(path: Path) -> str:
    """Return what changes when a file is written; empty if it is gone."""
    try:
        stat = path.stat()
    except OSError:
        return ""
    return f"{stat.st_size} {stat.st_mtime_ns}"
