"""Kills one training again and again, by a plan, and checks after every kill what must hold."""

import math
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.pipeline.kill_checks import Outcome
from tests.pipeline.killing import TARGETS, Attempt, HarnessError, Scene
from tests.pipeline.projects import tiny_params

INTERVAL, WARMUP = 100, 220
SHARES = {"start-up": 0.15, "training": 0.32, "saving": 0.22, "uploading": 0.16}
"""Of the kills, the warm-up's, publishing's and recording's come first and last."""
STOPS = (("SIGTERM to the trainer", signal.SIGTERM), ("Ctrl-C", signal.SIGINT))
LONGEST_STOP_SECONDS = 10.0


def parameters(until: int) -> dict[str, Any]:
    """Return a training of some 5 ms a step that says where it is after each."""
    changes = {
        "schedule": {"warmup_steps": WARMUP},
        "run": {"save_interval": INTERVAL},
        "tracking": {"progress_seconds": 1e-6},
        "replay": {"capacity": 2000, "chunk_rows": 50},
    }
    return tiny_params(changes, {"s00": {"from": "checkpoints/root", "until": until}})


def plan(kills: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Return (instant, target) of each kill: warm-up first, publishing and recording last, the others mixed."""
    first = ["warm-up"] * max(1, kills // 25)
    last = ["publishing"] * max(1, kills // 12) + ["recording"] * max(1, kills // 50)
    num_middle = max(kills - len(first) - len(last), 0)
    names, shares = list(SHARES), np.array(list(SHARES.values()))
    counts = np.floor(shares / shares.sum() * num_middle).astype(int)
    counts[names.index("training")] += num_middle - counts.sum()
    middle = [name for name, count in zip(names, counts, strict=True) for _ in range(count)]
    rng.shuffle(middle)
    # Killed alone, dvc takes the trainer with it by a signal, which lets a save or a publication end: few of these.
    inside = {"saving", "uploading", "publishing"}
    chances = {name: (0.5, 0.1, 0.4) if name in inside else (0.0, 0.8, 0.2) if name == "recording" else (0.35, 0.35, 0.3) for name in
               (*first, *last, *names)}  # fmt: skip
    return [(name, str(rng.choice(TARGETS, p=chances[name]))) for name in [*first, *middle, *last][:kills]]


class Harness:
    """The project that is killed, and the notes about it."""

    def __init__(self, scene: Scene, folder: Path, database: Path, environment: dict[str, str], output_hash: str, seed: int) -> None:
        self.scene, self.folder, self.database, self.environment = scene, folder, database, environment
        self.output_hash = output_hash
        """What DVC shall record in the end, and nothing else before."""
        self.rng = np.random.default_rng(seed)
        self.kills: list[dict[str, Any]] = []
        self.stops: list[dict[str, Any]] = []
        self.startup_seconds = 6.0
        self.is_done = False
        self._number = 0

    def carry_out(self, kills: Sequence[tuple[str, str]], stops: Sequence[tuple[str, int]]) -> None:
        """Do the kills with the stops among them, then let the training end.

        Raises:
            HarnessError: something does not hold.
        """
        at = {len(kills) * (number + 1) // (len(stops) + 3): stop for number, stop in enumerate(stops)}
        for number, (instant, target) in enumerate(kills):
            if number in at:
                self.stop(*at[number])
            self.kill(instant, target)
        for number, stop in at.items():
            if number >= len(kills):
                self.stop(*stop)
        self.finish()

    def begin(self, instant: str | None = None) -> Attempt:
        """Start the next `dvc repro`, aimed at an instant or at its end; a segment that is finished is published once more."""
        self._number += 1
        holds = self.scene.hold(instant, self.rng) if self.scene.is_held and instant else {}
        forced = ("--force", "--single-item") if self.is_done else ()
        return Attempt.start(self.scene, self.folder / f"log-{self._number:03}.txt", *forced, **self.environment, **holds)

    def kill(self, instant: str, target: str) -> None:
        """Start `dvc repro`, kill it, and check what is left."""
        if self.is_done and instant not in ("start-up", "recording"):
            instant = "publishing"
        attempt = self.begin(instant)
        if not attempt.wait_until(instant, self.rng, self.startup_seconds):
            self._note_end(attempt)
            return
        seen, step = attempt.instant(), attempt.step()
        gone_seconds = attempt.kill(target)
        found = attempt.instant() if target != "dvc" else seen  # What is left half done is the proof.
        self._note_start(attempt)
        self.kills.append(
            {"aimed": instant, "instant": found, "halves": attempt.halves(), "target": target, "step": step,
             "resumed_from": attempt.resumes_from, "gone_seconds": gone_seconds, **self._times(attempt)}
        )  # fmt: skip
        self.scene.verify_all()
        self._refuse_partial_lock()
        say(f"kill {len(self.kills)}: {target} in {found} at step {step or attempt.resumes_from}, all gone in {gone_seconds:.1f} s")

    def stop(self, name: str, number: int) -> None:
        """End a training by a signal that can be heeded."""
        attempt = self.begin("training")
        if not attempt.wait_until("training", self.rng, self.startup_seconds):
            self._note_end(attempt)
            return
        step, began = attempt.step(), time.monotonic()
        attempt.interrupt(number)
        attempt.wait(lambda: attempt.trainer() is None)
        seconds = time.monotonic() - began
        attempt.wait_for_end()
        newest, code = self.scene.verify_all(), 128 + number
        statuses = Outcome.statuses_in(self.database)
        if statuses != ["KILLED"]:
            raise HarnessError(f"after {name} MLflow has runs {statuses}, not one KILLED")
        longest = math.inf if self.scene.is_held else LONGEST_STOP_SECONDS  # An aim that never misses is for machines of any speed.
        if newest < step or seconds > longest or f"exited with {code}" not in attempt.said():
            raise HarnessError(f"{name} at step {step}: newest checkpoint {newest} after {seconds:.1f} s; said {attempt.said()[-1500:]}")
        self._refuse_partial_lock()
        self._note_start(attempt)
        self.stops.append(
            {
                "signal": name,
                "resumed_from": attempt.resumes_from,
                "step": step,
                "saved": newest,
                "seconds": seconds,
                "exit_code": code,
                **self._times(attempt),
            }
        )
        say(f"{name} at step {step}: checkpoint of step {newest}, exit code {code} after {seconds:.1f} s")

    def finish(self) -> None:
        """Let it end, and see that DVC then finds nothing to do."""
        attempt = self.begin()
        attempt.process.wait(timeout=3000)
        self._note_end(attempt)
        self.is_done = False
        again = self.begin()
        again.process.wait(timeout=1200)
        if "up to date" not in again.said():
            raise HarnessError(f"DVC does not think that it is done: {again.said()[-1500:]}")

    def complaints(self) -> list[str]:
        """Return what the processes said of points that came out otherwise."""
        logs = sorted(self.folder.glob("log-*.txt"))
        return [line for log in logs for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if "NOT REPRODUCED" in line]

    def _note_start(self, attempt: Attempt) -> None:
        if attempt.first_step_seconds:
            self.startup_seconds = attempt.first_step_seconds

    def _note_end(self, attempt: Attempt) -> None:
        if attempt.process.returncode != 0:
            raise HarnessError(f"dvc repro failed by itself: {attempt.said()[-3000:]}")
        self._note_start(attempt)
        self.is_done = True

    def _times(self, attempt: Attempt) -> dict[str, float | None]:
        return {"first_step_seconds": attempt.first_step_seconds, "new_step_seconds": attempt.new_step_seconds}

    def _refuse_partial_lock(self) -> None:
        recorded = self.scene.output_hash()
        if recorded not in (None, self.output_hash):
            raise HarnessError(f"dvc.lock says {recorded}, which is not the whole segment ({self.output_hash})")


def say(line: str) -> None:
    """Tell whoever waits."""
    sys.stderr.write(f"{line}\n")
