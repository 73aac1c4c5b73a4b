"""Watches a training from outside, through files and processes alone, and kills it at chosen instants."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from matwm.checkpoint import CheckpointError, open_checkpoint
from pipeline import project as places
from pipeline.tracking import lines
from pipeline.tracking.local_run import RECORDS, TAIL
from tests.pipeline.projects import Project, processes_in

INSTANTS = ("start-up", "warm-up", "training", "saving", "uploading", "publishing", "recording")
"""Recording: the stage is done, and DVC has not written its lock yet."""
TARGETS = ("trainer", "dvc", "both")
POLL_SECONDS = 0.0005
MISSED_STEPS = 450
"""After so many new steps an aimed kill takes what it gets."""
AIMED_STEPS = 120
"""An aim at a step of training is at one of so many next ones."""
HALVES = {"saving": "/.matwm/work/", "uploading": "/mlruns/", "publishing": ".incoming/"}
"""Instants that leave something half done, and a part of the path where they do."""
PROGRESS = re.compile(r"^\S+ step (\d+)/\d+ ", re.MULTILINE)


class HarnessError(AssertionError):
    """What must hold after every kill does not."""


@dataclass
class Scene:
    """One segment of a project in training, as files show it."""

    project: Project
    warmup_steps: int
    artifacts: Path
    """The folder under which runs keep their artifacts."""
    is_served: bool = False
    is_held: bool = False
    """Whether trainings wait in the instant that is aimed at: the aim then never misses, however slow or fast the machine."""
    segment: str = "s00"
    _verified: set[tuple[str, int, int]] = field(default_factory=set)

    def pids(self) -> list[int]:
        """Return every process that runs in the project."""
        return processes_in(self.project.path)

    def trainers(self, session: int | None = None) -> list[int]:
        """Return the processes that train the segment, of one session or of all."""
        return [pid for pid in self.pids() if b"pipeline.train" in _command(pid) and session in (None, _session(pid))]

    def steps(self) -> list[int]:
        """Return the steps of the checkpoints to go on from."""
        return sorted(step for folder in self._stores() for step in places.steps_in(folder))

    def hold(self, instant: str, rng: np.random.Generator) -> dict[str, str]:
        """Return the environment in which a training waits in an instant, or soon after the steps that are aimed at."""
        holds = self.project.hold_in(HALVES[instant], int(rng.integers(1, 9))) if instant in HALVES else {}
        if instant in ("publishing", "recording"):
            return holds
        return {**holds, **self.project.hold(max(self.verify_all(), self.warmup_steps) + AIMED_STEPS)}

    def half_saves(self) -> set[str]:
        """Return the temporary folders of checkpoints that are being written, or were when their process died."""
        return {name for folder in self._stores() for name in _names(folder) if name.startswith(".saving-")}

    def half_uploads(self) -> set[str]:
        """Return the checkpoints that MLflow has a part of: temporary folders; on a server, folders without a manifest, and how much."""
        folders = self.artifacts.glob("*/*/artifacts/checkpoints")
        if not self.is_served:
            return {name for folder in folders for name in _names(folder) if name.startswith(".saving-")}
        parts = [path for folder in folders for path in folder.iterdir() if not (path / "manifest.json").is_file()]
        return {f"{path.name} {sum(1 for _ in path.rglob('*'))}" for path in parts}

    def is_publishing(self) -> bool:
        """Return whether outputs are half laid out."""
        return (self.project.path / f"checkpoints/.{self.segment}.incoming").exists()

    def published(self) -> int | None:
        """Return which folder of outputs lies where DVC expects it (its inode), None if there is none."""
        try:
            return (self.project.path / "checkpoints" / self.segment).stat().st_ino
        except OSError:
            return None

    def trained_steps(self) -> set[int]:
        """Return the steps with points in the tails and records: what was trained here."""
        works = list((self.project.path / ".matwm/work").glob(f"{self.segment}-*"))
        rows = [row for work in works for name in (TAIL, RECORDS) for row, _ in lines.read(work / name).rows]
        return {row["step"] for row in rows if "step" in row}

    def output_hash(self) -> str | None:
        """Return what DVC's lock says of the segment's checkpoints."""
        from pipeline import dvc_files

        return dvc_files.locked_output(dvc_files.lock(self.project.path).get(f"train@{self.segment}", {}), f"checkpoints/{self.segment}")

    def verify_all(self) -> int:
        """Verify every checkpoint that anyone could choose; return the newest one's step, 0 if there is none.

        Raises:
            HarnessError: one is not sound.
        """
        published = self.project.path / "checkpoints" / self.segment
        # On a server the chunks of the replay lie apart: what it has is verified by pulling it.
        artifacts = [] if self.is_served else self.artifacts.glob("*/*/artifacts/checkpoints")
        for folder in {*self._stores(), published, *artifacts}:
            for step in places.steps_in(folder):
                self._verify(folder / places.step_folder(step))
        return max(self.steps(), default=0)

    def _verify(self, path: Path) -> None:
        stat = (path / "manifest.json").stat()
        mark = (str(path), stat.st_ino, stat.st_mtime_ns)
        if mark not in self._verified:
            try:
                open_checkpoint(path)
            except CheckpointError as error:
                raise HarnessError(f"a checkpoint that is not sound can be chosen: {error}") from error
            self._verified.add(mark)

    def _stores(self) -> list[Path]:
        return sorted((self.project.path / ".matwm/work").glob(f"{self.segment}-*/checkpoints"))


@dataclass
class Attempt:
    """One `dvc repro`, and what was seen of it."""

    scene: Scene
    log: Path
    resumes_from: int
    process: "subprocess.Popen[bytes]"
    began: float
    saves_before: set[str]
    uploads_before: set[str]
    published_before: int | None
    known_step: int
    """The last that was trained before, checkpoint or not."""
    first_step_seconds: float | None = None
    new_step_seconds: float | None = None
    last_step: int = 0

    @classmethod
    def start(cls, scene: Scene, log: Path, *extra: str, **environment: str) -> "Attempt":
        """Verify what can be chosen to go on from, then start `dvc repro` as the leader of its own process group."""
        newest = scene.verify_all()
        before = scene.half_saves(), scene.half_uploads(), scene.published(), max(scene.trained_steps(), default=0)
        with log.open("wb") as stream:
            process = subprocess.Popen(
                ["dvc", "repro", *extra, f"train@{scene.segment}"], cwd=scene.project.path,
                env={**scene.project.environment(), **environment}, stdin=subprocess.DEVNULL, stdout=stream,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        return cls(scene, log, newest, process, time.monotonic(), *before)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began

    def step(self) -> int:
        """Return the step that this process has said it is at, 0 before the first."""
        found = PROGRESS.findall(self.said())
        self.last_step = step = int(found[-1]) if found else 0
        if found and self.first_step_seconds is None:
            self.first_step_seconds = self.seconds
        if step > self.known_step and self.new_step_seconds is None:
            self.new_step_seconds = self.seconds
        return step

    def said(self) -> str:
        """Return what it has printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def trainer(self) -> int | None:
        """Return the process that trains."""
        return next(iter(self.scene.trainers(self.process.pid)), None)

    def wait(self, condition: Callable[[], object], seconds: float = 1200.0) -> bool:
        """Watch closely until something holds; return False if the process ends before."""
        end, number = time.monotonic() + seconds, 0
        while not condition():
            if (number := number + 1) % 8 == 0:
                self.step()  # for its time
            if self.process.poll() is not None:
                return False
            if time.monotonic() > end:
                raise HarnessError(f"waited {seconds:.0f} s in vain; the process has said: {self.said()[-2000:]}")
            time.sleep(POLL_SECONDS)
        return True

    def wait_until(self, instant: str, rng: np.random.Generator, startup_seconds: float) -> bool:
        """Wait for a random moment of an instant; return False if the process ends before."""
        scene = self.scene
        match instant:
            case "start-up":
                moment = self.began + rng.uniform(0, startup_seconds)
                return self.wait(lambda: time.monotonic() > moment)
            case "warm-up" | "training":
                first = self.resumes_from if instant == "warm-up" else max(self.resumes_from, scene.warmup_steps)
                target = first + int(rng.integers(1, 40 if instant == "warm-up" else AIMED_STEPS))
                return self.wait(lambda: self.step() > target)
            case "saving" | "uploading":
                return self._wait_for_part(instant, rng)
            case "publishing":
                return self.wait(scene.is_publishing) and self._pause(rng, 0.02)
            case _:
                return self.wait(lambda: self._is_published() and self.trainer() is None)

    def _wait_for_part(self, instant: str, rng: np.random.Generator) -> bool:
        """Wait for the n-th save or upload of this process, and for a random stretch of it."""
        seen: set[str] = set()
        number, scene = 1 if self.scene.is_held else int(rng.integers(1, 3)), self.scene

        def is_there() -> bool:
            now = scene.half_saves() - self.saves_before if instant == "saving" else scene.half_uploads() - self.uploads_before
            names = {name.split()[0] for name in now}
            seen.update(names)
            return (bool(names) and len(seen) >= number) or self.last_step > self.known_step + MISSED_STEPS

        return self.wait(is_there) and self._pause(rng, 0.01)

    def _pause(self, rng: np.random.Generator, longest: float) -> bool:
        time.sleep(rng.uniform(0, longest))
        return True

    def kill(self, target: str) -> float:
        """Send SIGKILL; return the seconds until no process of the attempt is left.

        Raises:
            HarnessError: some are left after five minutes.
        """
        if target == "trainer":
            self.wait(self.trainer)
            trainer = self.trainer()
            _send(trainer, signal.SIGKILL)
        elif target == "dvc":
            self.process.send_signal(signal.SIGKILL)
        else:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.scene.project.let_go()
        return self.wait_for_end()

    def interrupt(self, number: int) -> None:
        """Send SIGINT as a terminal does, to all of them, and other signals to the trainer."""
        if number == signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            _send(self.trainer(), number)
        self.scene.project.let_go()

    def wait_for_end(self, seconds: float = 300.0) -> float:
        """Wait until no process of this attempt is left; return how long that took."""
        began = time.monotonic()
        while self.process.poll() is None or any(_session(pid) == self.process.pid for pid in self.scene.pids()):
            if time.monotonic() - began > seconds:
                left = [pid for pid in self.scene.pids() if _session(pid) == self.process.pid]
                raise HarnessError(f"processes {left} are left {seconds:.0f} s after the kill")
            time.sleep(0.01)
        return time.monotonic() - began

    def instant(self) -> str:
        """Name what the process is in, or died in."""
        if halves := self.halves():
            return halves[0]
        if self._is_published():
            return "recording"
        step = self.step()
        return "start-up" if not step else "warm-up" if step < self.scene.warmup_steps else "training"

    def halves(self) -> list[str]:
        """Name all that is half done: threads of one process can be in several instants at once."""
        scene = self.scene
        found = (scene.half_saves() - self.saves_before, scene.half_uploads() - self.uploads_before, scene.is_publishing())
        return [name for name, is_half in zip(HALVES, found, strict=True) if is_half]

    def _is_published(self) -> bool:
        return self.scene.published() not in (None, self.published_before)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208  # a thousand times a second
    except OSError:
        return []


def _send(pid: int | None, number: int) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None
