"""A project with a lineage to look at: a root segment, its continuation, a changed child, and a run that a signal ended."""

import hashlib
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from matwm.checkpoint import Checkpoint, fingerprint_of
from matwm.manifest import MANIFEST, PARTS, seal, to_json
from matwm.stateful import decode_tensors, encode_tensors
from pipeline.evaluate import evaluate
from pipeline.process import Interruption
from pipeline.train import train
from tests.pipeline.projects import Project, StopAfter, tiny_params

Matwm = Callable[..., tuple[int, str, str]]
"""Runs the command in a project; returns exit code, output and errors."""

SEGMENTS = {
    "s00": {"from": "checkpoints/root", "until": 40},
    "s01": {"from": "checkpoints/s00/step_000000040", "until": 60},
    "s02": {"from": "checkpoints/s00/step_000000020", "until": 60, "override": {"actor_critic": {"learning_rate": 1e-4}}},
    "s03": {"from": "checkpoints/s01/step_000000060", "until": 100},
}


def make_lineage(path: Path, store: Path) -> Project:
    """Train s00 to s02, evaluate s01, stop s03 at step 70, and commit it all to DVC and git."""
    project = Project.create(path, tiny_params({"run": {"save_interval": 20}}, SEGMENTS), store)
    with mock.patch.dict(os.environ):
        for name in ("s00", "s01", "s02"):
            assert train(path, name, Interruption()) == 0
        assert train(path, "s03", StopAfter(10)) == 128 + signal.SIGTERM
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


def forge(folder: Path, change: Callable[[dict[str, Any]], None], tensor: tuple[str, str] | None = None) -> None:
    """Alter a checkpoint as somebody would who knows how: its manifest, and a tensor of a file, everything sealed again."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if tensor is not None:
        path = folder / tensor[0]
        tensors = decode_tensors(path.read_bytes())
        tensors[tensor[1]] += 1
        data = encode_tensors(tensors)
        replace(path, data)
        manifest["files"][tensor[0]] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        forged = Checkpoint(folder, manifest, "")
        rest = forged._progress()
        manifest["fingerprint"] = fingerprint_of({part: forged._part(part, rest) for part in PARTS})
    change(manifest)
    del manifest["seal"]
    replace(folder / MANIFEST, to_json({**manifest, "seal": seal(manifest)}))


def replace(path: Path, data: bytes) -> None:
    """Put other contents under a name, whatever else has the file."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)
