"""A project with a lineage to look at: a root segment, its continuation, a changed child, and a run that a signal ended."""

import os
import shutil
import signal
import sqlite3
from pathlib import Path
from unittest import mock

from pipeline.evaluate import evaluate
from pipeline.process import Interruption
from pipeline.train import train
from tests.pipeline.projects import Project, tiny_params

SEGMENTS = {
    "s00": {"from": "checkpoints/root", "until": 40},
    "s01": {"from": "checkpoints/s00/step_000000040", "until": 60},
    "s02": {"from": "checkpoints/s00/step_000000020", "until": 60, "override": {"actor_critic": {"learning_rate": 1e-4}}},
    "s03": {"from": "checkpoints/s01/step_000000060", "until": 100},
}


class Stopping(Interruption):
    """A signal that comes after so many looks."""

    def __init__(self, looks: int) -> None:
        self._left = looks
        super().__init__()

    @property
    def signal(self) -> int | None:
        self._left -= 1
        return signal.SIGTERM if self._left < 0 else None

    @signal.setter
    def signal(self, value: int | None) -> None:
        pass


def make_lineage(path: Path, store: Path) -> Project:
    """Train s00 to s02, evaluate s01, stop s03 at step 70, and commit it all to DVC and git."""
    project = Project.create(path, tiny_params({"run": {"save_interval": 20}}, SEGMENTS), store)
    with mock.patch.dict(os.environ):
        for name in ("s00", "s01", "s02"):
            assert train(path, name, Interruption()) == 0
        assert train(path, "s03", Stopping(10)) == 128 + signal.SIGTERM
        evaluate(path, "s01")
    (path / ".params.ok").touch()
    project.dvc("commit", "-f", "train@s00", "train@s01", "train@s02", "evaluate@s01")
    project.commit("train")
    return project


def copy_of(project: Project, path: Path) -> Project:
    """Return a copy to tamper with: no file shared, and a store that knows the copy's own artifacts."""
    shutil.copytree(project.path, path)
    with sqlite3.connect(path / "mlflow.db") as database:
        old, new = str(project.path), str(path)
        database.execute("update runs set artifact_uri = replace(artifact_uri, ?, ?)", (old, new))
        database.execute("update experiments set artifact_location = replace(artifact_location, ?, ?)", (old, new))
    return Project(path)
