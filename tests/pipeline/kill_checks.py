"""Says whether a training that was killed often ended as one that was not: bytes, histories, runs."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from matwm.checkpoint import open_checkpoint
from matwm.step_names import step_name
from tests.pipeline.killing import Scene

Points = dict[tuple[str, int], float]
"""Values by key and step."""
MEASURED = ("time/", "checkpoint/")
"""Beginnings of the keys that a clock decides: another run has other values."""


@dataclass(frozen=True)
class Outcome:
    """What a training left: equal outcomes were the same training."""

    fingerprint: str
    output_hash: str
    points: Points
    statuses: list[str]
    num_doubled: int

    @classmethod
    def of(cls, scene: Scene, database: Path, until: int) -> "Outcome":
        """Read it from the published checkpoint, DVC's lock and MLflow's database."""
        last = open_checkpoint(scene.project.path / "checkpoints" / scene.segment / step_name(until))
        with closing(_connected(database)) as connection:
            rows = connection.execute("select key, step, value from metrics").fetchall()
        points = {(key, step): value for key, step, value in rows}
        return cls(last.fingerprint, str(scene.output_hash()), points, cls.statuses_in(database), len(rows) - len(points))

    @staticmethod
    def statuses_in(database: Path) -> list[str]:
        """Return the status of every run."""
        with closing(_connected(database)) as connection:
            return [status for (status,) in connection.execute("select status from runs")]


def differences(found: Outcome, reference: Outcome) -> list[str]:
    """Name everything in which a killed training differs from an uninterrupted one; empty if nothing.

    `checkpoint/` points may be more or fewer: a signal makes a checkpoint of its own, and a kill between a save and its
    measurement leaves none.
    """
    wrong = []
    if found.fingerprint != reference.fingerprint:
        wrong.append(f"the final fingerprint is {found.fingerprint[:12]}, uninterrupted {reference.fingerprint[:12]}")
    if found.output_hash != reference.output_hash:
        wrong.append(f"the output's hash is {found.output_hash}, uninterrupted {reference.output_hash}")
    if found.statuses != ["FINISHED"]:
        wrong.append(f"MLflow has runs {found.statuses}, not one FINISHED")
    if found.num_doubled:
        wrong.append(f"{found.num_doubled} points stand twice in MLflow")
    ours, theirs = (_comparable(outcome.points) for outcome in (found, reference))
    for key, step in sorted(ours.keys() ^ theirs.keys())[:5]:
        wrong.append(f"{key} at step {step} is in {'the killed' if (key, step) in ours else 'the uninterrupted'} run only")
    for (key, step), value in sorted(ours.items()):
        if (key, step) in theirs and value != theirs[key, step] and not key.startswith(MEASURED):
            wrong.append(f"{key} at step {step} is {value}, uninterrupted {theirs[key, step]}")
    return wrong


def _comparable(points: Points) -> Points:
    return {place: value for place, value in points.items() if not place[0].startswith("checkpoint/")}


def _connected(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)
