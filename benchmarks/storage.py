"""Prints the bytes on disk of ten checkpoints against one: `.venv/bin/python benchmarks/storage.py [--image-gigabytes 1]`.

Two cases, each in a temporary project with its own MLflow store and DVC cache: Simple Tag with cpu-small (random play, so that the
replay really fills), and a synthetic replay of images (64x64x3 uint8 rows). Every checkpoint lies in four places: the work directory,
the MLflow artifacts, DVC's cache and the workspace. On disk are the blocks of all inodes; the content is every distinct file once.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import at_least, ready_folder

from matwm.arrays import decode_arrays
from matwm.checkpoint import publish
from matwm.errors import run_program
from matwm.manifest import ROOT, chunk_file
from matwm.params_yaml import load_config, preset_path
from matwm.stateful import Chunk
from matwm.step_names import step_name
from matwm.store import LocalStore
from matwm.trainer import build_trainer
from matwm.types import EnvSpec
from pipeline import project as places
from pipeline import runs
from pipeline.stores.mlflow import MlflowStore

CHECKPOINTS = 10
LIMIT = 1.15
LEAST_GIGABYTES = 0.13
"""Of images: below, not one chunk would come between two checkpoints."""


@dataclass(frozen=True)
class Usage:
    """What checkpoints take: on the disk, and as distinct content."""

    disk: int
    content: int
    names: int

    @property
    def ratio(self) -> float:
        """Bytes on the disk for each byte of content."""
        return self.disk / self.content


def simple_tag(store: LocalStore) -> Iterator[None]:
    """Save a checkpoint every 5,000 steps of random play: the replay's 50,000 rows fill."""
    config = load_config(preset_path("cpu-small"))
    schedule = config.schedule.model_copy(update={"warmup_steps": 10**9})
    trainer = build_trainer(config.model_copy(update={"schedule": schedule}))
    for number in range(1, CHECKPOINTS + 1):
        while trainer.env_step < number * config.run.save_interval:
            trainer.step()
        with torch.no_grad():  # Training changes every weight between two checkpoints, and every moment.
            for value in tensors(trainer.learner.parts()):
                value.add_(number)
        trainer.save(store, ROOT)
        yield


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield every floating-point tensor of a state."""
    if isinstance(value, torch.Tensor):
        yield from [value] if value.is_floating_point() else []
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors(item)


def images(store: LocalStore, total_bytes: int) -> Iterator[None]:
    """Save ten checkpoints of a ring of images that holds `total_bytes` and grows by a tenth of it between two."""
    rng, rows = np.random.default_rng(0), 1000
    chunks: list[Chunk] = []
    spec = EnvSpec(name="images", agents=("agent_0",), obs_sizes=(64 * 64 * 3,), num_actions=(4,))
    every = total_bytes // (CHECKPOINTS * rows * 64 * 64 * 3)
    for number in range(1, CHECKPOINTS + 1):
        for _ in range(every):
            chunks.append(Chunk({"obs": rng.integers(0, 256, (rows, 64, 64, 3), np.uint8)}))
        weights = torch.full((1_000_000,), 10.0 * number)
        parts: dict[str, Any] = {name: {"weight": weights + place} for place, name in enumerate(("world_model", "agents", "optimizers"))}
        parts |= {"history": {}, "progress": {"env_step": number}, "replay": {"total_rows": number * every * rows, "chunks": list(chunks)}}
        path = store.save(number * 1000, parts, parent=ROOT, config={}, spec=spec, policies={"agent_0": {"weight": weights[:10]}}).path
        files = {chunk.digest: path / chunk_file(str(chunk.digest)) for chunk in chunks}
        # What is on the disk is not held in memory, too.
        chunks = [Chunk(lambda at=file: decode_arrays(at.read_bytes()), digest) for digest, file in files.items()]
        yield


def measure(saves: Iterable[None], store: LocalStore, project: Path) -> tuple[Usage, Usage]:
    """Return what one checkpoint takes in all four places, and what all take."""
    first: Usage | None = None
    uri = runs.configured_uri()
    run_id = runs.client(uri).create_run(runs.experiment_id(uri, "storage")).info.run_id
    run = runs.get_run(run_id)
    assert run is not None
    for _ in saves:
        newest = store.folder / step_name(store.steps()[-1])
        MlflowStore().put(run, newest)
        if first is None:
            hand_on(store, project)
            first = usage(project)
    hand_on(store, project)
    assert first is not None
    return first, usage(project)


def hand_on(store: LocalStore, project: Path) -> None:
    """Publish the checkpoints and let DVC take them in, as the train stage's end does."""
    target = project / "checkpoints" / "s00"
    shutil.rmtree(target, ignore_errors=True)
    for step in store.steps():
        publish(store.folder / step_name(step), target / step_name(step))
    command = [places.tool("dvc"), "add", "--quiet", "checkpoints/s00"]
    subprocess.run(command, cwd=project, env=places.environment(), check=True, stdin=subprocess.DEVNULL)


def usage(project: Path) -> Usage:
    """Count the blocks of every inode and every distinct content, of all checkpoints in all places."""
    inodes: dict[int, os.stat_result] = {}
    contents: dict[str, int] = {}
    names = 0
    for folder in (".matwm", "mlruns", "checkpoints", ".dvc/cache/files"):
        for path in (project / folder).rglob("*"):
            if not path.is_file():
                continue
            stat, names = path.stat(), names + 1
            if stat.st_ino not in inodes:
                inodes[stat.st_ino] = stat
                with path.open("rb") as file:
                    contents[hashlib.file_digest(file, "sha256").hexdigest()] = stat.st_size
    return Usage(sum(stat.st_blocks * 512 for stat in inodes.values()), sum(contents.values()), names)


def new_project(folder: Path) -> Path:
    """Make a folder with DVC as this project sets it up, and an empty MLflow store."""
    subprocess.run([places.tool("dvc"), "init", "--no-scm", "--quiet"], cwd=folder, env=places.environment(), check=True)
    shutil.copy(Path(__file__).parents[1] / ".dvc" / "config", folder / ".dvc" / "config")
    subprocess.run(
        [places.tool("dvc"), "config", "core.no_scm", "true"], cwd=folder, env=places.environment(), check=True, stdin=subprocess.DEVNULL
    )
    runs.configure(folder)
    return folder


def main() -> int:
    """Measure both cases; fail if one takes more than it may."""
    parser = argparse.ArgumentParser(description="Print the bytes on disk of ten checkpoints against one.")
    parser.add_argument("--image-gigabytes", type=float, default=1.0)
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's temporary folder)")
    options = parser.parse_args()
    at_least("--image-gigabytes", options.image_gigabytes, LEAST_GIGABYTES)
    if options.folder:
        ready_folder("--folder", options.folder)
    os.environ["MLFLOW_TRACKING_URI"] = "sqlite:///mlflow.db"
    cases = {
        "Simple Tag, `cpu-small`": simple_tag,
        f"synthetic images, {options.image_gigabytes:g} GB of replay": lambda store: images(store, int(options.image_gigabytes * 1e9)),
    }
    print("| | one checkpoint | ten checkpoints | distinct content of the ten | on disk / content | names of files |")
    print("| --- | --- | --- | --- | --- | --- |")
    worst = 0.0
    for name, case in cases.items():
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            project = new_project(Path(folder))
            store = LocalStore(project / ".matwm" / "work" / "s00" / "checkpoints")
            first, every = measure(case(store), store, project)
        cells = [f"{size / 1e6:,.1f} MB" for size in (first.disk, every.disk, every.content)]
        print(f"| {name} | {' | '.join(cells)} | {every.ratio:.3f} | {every.names:,} |", flush=True)
        worst = max(worst, every.ratio)
    return int(worst > LIMIT)


if __name__ == "__main__":
    raise SystemExit(run_program(main))
