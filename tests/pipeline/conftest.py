"""An MLflow database to copy, a real MLflow server, and checkpoints to send: what the pipeline's tests share."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from matwm.checkpoint import Checkpoint, Parent
from matwm.stateful import Chunk
from matwm.store import LocalStore
from matwm.types import EnvSpec
from pipeline import cli, process, runs
from pipeline.training import session
from tests.pipeline.lineages import Matwm, copy_of, make_lineage
from tests.pipeline.projects import Project, until
from tests.pipeline.servers import Server, empty_store

torch.set_num_threads(1)

SPEC = EnvSpec(name="toy", agents=("wolf_0", "sheep_0"), obs_sizes=(3, 2), num_actions=(2, 2))


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """A function that returns when a condition holds, and fails when that takes too long."""
    return until


@pytest.fixture(scope="session")
def store_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database to copy."""
    return empty_store(tmp_path_factory.mktemp("template") / "mlflow.db")


@pytest.fixture(autouse=True)
def _no_mlflow_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings and the terminal of whoever runs the tests, and of other tests, out; and what tests set, in."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    for name, value in runs.SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture(scope="session", autouse=True)
def _patience() -> Iterator[None]:
    """What a signal allows so many seconds for gets all that it needs, on a slow machine too, and none ends the tests' own process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "PATIENCE_SECONDS", 3600.0)
        patch.setattr(session, "SIGNAL_PATIENCE_SECONDS", 120.0)
        yield


@pytest.fixture
def root(tmp_path: Path, store_template: Path) -> Path:
    """A project (with a space in its path) whose own MLflow database is the configured store."""
    folder = tmp_path / "my project"
    folder.mkdir()
    (folder / "dvc.yaml").touch()
    shutil.copy(store_template, folder / "mlflow.db")
    runs.configure(folder)
    return folder


@pytest.fixture(scope="session")
def _server_process(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server") / "mlflow", store_template)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def server(_server_process: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, up; it is the configured store of the project at `tmp_path`."""
    _server_process.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", _server_process.uri)
    runs.configure(tmp_path)
    return _server_process


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Project:
    """A trained lineage (see lineages.py) that no test changes."""
    return make_lineage(tmp_path_factory.mktemp("lineage") / "project", store_template)


@pytest.fixture
def copied(made: Project, tmp_path: Path) -> Project:
    """A copy of it to change."""
    return copy_of(made, tmp_path / "copy")


@pytest.fixture
def matwm_in(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Matwm:
    """A function that runs the command in a project and returns exit code, output and errors."""

    def call(project: Project, *arguments: str) -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            patch.chdir(project.path)
            patch.setattr(runs, "_configured", {})  # as in a process of its own
            capsys.readouterr()
            code = cli.main(arguments)
            return code, *capsys.readouterr()

    return call


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Checkpoint]:
    """A function that saves a small checkpoint whose replay has one chunk a hundred steps, shared by later ones."""
    store = LocalStore(tmp_path / "made")

    def make(step: int, *, seed: float = 0.0, size: int = 4) -> Checkpoint:
        chunks = [Chunk({"obs": np.full((size, 2), number, np.float32)}) for number in range(step // 100)]
        parts = {name: {"weight": torch.full((size, 3), step + seed)} for name in ("world_model", "agents", "optimizers", "history")}
        policies = {agent: {"weight": torch.full((2,), float(step))} for agent in SPEC.agents}
        return store.save(
            step, {**parts, "replay": {"total_rows": step, "chunks": chunks}, "progress": {"env_step": step}},
            parent=Parent(0, "0" * 64), config={"seed": 1}, spec=SPEC, policies=policies,
        )  # fmt: skip

    return make
