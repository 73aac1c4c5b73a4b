"""What MLflow alone does with checkpoints, in a local folder and on a real server (see also test_contract.py)."""

import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from matwm.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from pipeline import runs
from pipeline.runs import TrackingError
from tests.pipeline import in_mlflow

Save = Callable[..., Checkpoint]


def new_run(name: str = "stores") -> str:
    uri = runs.configured_uri()
    return runs.client(uri).create_run(runs.experiment_id(uri, name)).info.run_id


def artifact_files(folder: Path, run_id: str) -> set[str]:
    """Every file under the artifacts of a run, wherever the store keeps them below `folder`."""
    (artifacts,) = [path for path in folder.rglob("artifacts") if path.parent.name == run_id]
    return {path.relative_to(artifacts).as_posix() for path in artifacts.rglob("*") if path.is_file()}


@pytest.fixture(params=["folder", "server"])
def place(request: pytest.FixtureRequest) -> Path:
    """The store is configured; here, somewhere below, lie its artifacts."""
    if request.param == "folder":
        return request.getfixturevalue("root")
    return request.getfixturevalue("server").folder


def damage(path: Path) -> None:
    """Flip one bit of a file, in a copy: the file may be one inode with others."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    path.write_bytes(data)


def stored_file(place: Path, run_id: str, name: str) -> Path:
    (found,) = [path for path in place.rglob(Path(name).name) if run_id in path.parts and path.as_posix().endswith(name)]
    return found


def test_what_was_put_is_pulled_byte_for_byte(place: Path, save: Save, tmp_path: Path):
    run_id, checkpoint = new_run(), save(300)
    in_mlflow.put(run_id, checkpoint.path)
    pulled = in_mlflow.pull(run_id, 300, tmp_path / "pulled")
    assert pulled.path == tmp_path / "pulled" / "step_000000300"
    assert pulled.digest == checkpoint.digest
    assert open_checkpoint(pulled.path).fingerprint == checkpoint.fingerprint
    assert {path.name for path in (tmp_path / "pulled").iterdir()} == {"step_000000300"}


def test_steps_are_those_with_a_manifest(place: Path, save: Save):
    run_id = new_run()
    assert in_mlflow.steps(run_id) == []
    for step in (200, 100):
        in_mlflow.put(run_id, save(step).path)
    stored_file(place, run_id, "step_000000200/manifest.json").rename(place / f"taken-away-{run_id}")
    assert in_mlflow.steps(run_id) == [100]


def test_a_missing_step_is_refused_with_those_that_exist(place: Path, save: Save, tmp_path: Path):
    run_id = new_run()
    for step in (100, 200):
        in_mlflow.put(run_id, save(step).path)
    with pytest.raises(CheckpointError, match=f"run {run_id} has no checkpoint of step 150; it has 100, 200"):
        in_mlflow.pull(run_id, 150, tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


@pytest.mark.parametrize("name", ["world_model.safetensors", "history/history.safetensors", "progress.json", "manifest.json"])
def test_a_damaged_artifact_is_refused_by_name_and_leaves_nothing_behind(place: Path, save: Save, tmp_path: Path, name: str):
    run_id = new_run()
    in_mlflow.put(run_id, save(100).path)
    damage(stored_file(place, run_id, name))
    with pytest.raises(CheckpointError, match=Path(name).name) as refused:
        in_mlflow.pull(run_id, 100, tmp_path / "pulled")
    assert "step_000000100" in str(refused.value)
    assert not (tmp_path / "pulled").exists()
    assert not list(tmp_path.glob(".*"))


def test_what_a_killed_pull_leaves_goes_with_the_next(server: object, save: Save, tmp_path: Path):
    run_id = new_run()
    in_mlflow.put(run_id, save(100).path)
    script = "import os, sys; from pathlib import Path; from pipeline import runs\n"
    script += "from pipeline.stores import mlflow\nmlflow.open_checkpoint = lambda *_: os._exit(9)\n"
    script += "mlflow.MlflowStore(sys.argv[1]).pull(runs.get_run(sys.argv[2], sys.argv[1]), 100, Path(sys.argv[3]))"
    (tmp_path / "pulled").mkdir()
    command = [sys.executable, "-c", script, runs.configured_uri(), run_id, str(tmp_path / "pulled")]
    assert subprocess.run(command, check=False).returncode == 9
    (left,) = (tmp_path / "pulled").iterdir()
    assert in_mlflow.pull(run_id, 100, tmp_path / "pulled").step == 100
    assert not left.exists()


def test_a_damaged_replay_chunk_is_refused_by_name(place: Path, save: Save, tmp_path: Path):
    run_id = new_run()
    checkpoint = save(100)
    in_mlflow.put(run_id, checkpoint.path)
    (chunk,) = (name for name in checkpoint.manifest["files"] if name.startswith("replay/"))
    damage(stored_file(place, run_id, chunk))
    with pytest.raises(CheckpointError, match=Path(chunk).name):
        in_mlflow.pull(run_id, 100, tmp_path / "pulled")


def test_putting_again_changes_nothing(place: Path, save: Save):
    run_id = new_run()
    checkpoint = save(200)
    in_mlflow.put(run_id, checkpoint.path)
    before = {name: stored_file(place, run_id, name).stat().st_mtime_ns for name in artifact_files(place, run_id)}
    in_mlflow.put(run_id, checkpoint.path)
    assert before == {name: stored_file(place, run_id, name).stat().st_mtime_ns for name in artifact_files(place, run_id)}


def test_another_checkpoint_of_the_same_step_never_replaces_the_first(place: Path, save: Save, tmp_path: Path):
    run_id = new_run()
    first = save(100)
    in_mlflow.put(run_id, first.path)
    first.path.rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="step_000000100"):
        in_mlflow.put(run_id, save(100, seed=0.5).path)
    assert in_mlflow.pull(run_id, 100, tmp_path / "pulled").digest == first.digest


def test_a_run_that_is_not_there_is_named(place: Path, save: Save):
    with pytest.raises(TrackingError, match="has no run 0123456789abcdef0123456789abcdef"):
        in_mlflow.put("0123456789abcdef0123456789abcdef", save(100).path)


def test_a_local_artifact_and_its_checkpoint_are_one_inode(root: Path, save: Save, tmp_path: Path):
    run_id, checkpoint = new_run(), save(200)
    in_mlflow.put(run_id, checkpoint.path)
    pulled = in_mlflow.pull(run_id, 200, tmp_path / "pulled")
    names = [path.relative_to(checkpoint.path) for path in checkpoint.path.rglob("*") if path.is_file()]
    artifacts = root / "mlruns" / "stores" / run_id / "artifacts" / "checkpoints" / "step_000000200"
    for name in names:
        assert (checkpoint.path / name).samefile(artifacts / name)
        assert (checkpoint.path / name).samefile(pulled.path / name)


def test_a_damaged_local_artifact_is_mended_by_putting_again(root: Path, save: Save, tmp_path: Path):
    run_id, checkpoint = new_run(), save(100)
    in_mlflow.put(run_id, checkpoint.path)
    damage(stored_file(root / "mlruns", run_id, "agents.safetensors"))
    in_mlflow.put(run_id, checkpoint.path)
    assert in_mlflow.pull(run_id, 100, tmp_path / "pulled").digest == checkpoint.digest


def test_a_server_gets_each_replay_chunk_once_and_checkpoints_without_them(server, save: Save):
    run_id = new_run()
    chunks: set[str] = set()
    for step in (200, 300):
        checkpoint = save(step)
        chunks |= {name for name in checkpoint.manifest["files"] if name.startswith("replay/")}
        in_mlflow.put(run_id, checkpoint.path)
    files = artifact_files(server.folder, run_id)
    assert {name for name in files if "replay" in name} == chunks
    assert len(chunks) == 3


def test_an_upload_that_broke_off_is_no_checkpoint_and_is_finished_later(
    server, save: Save, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository

    run_id, checkpoint = new_run(), save(200)
    real, sent = HttpArtifactRepository.log_artifact, []

    def break_off_at(number: int) -> None:
        def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
            if len(sent) == number:
                raise ConnectionError("the cable was pulled")
            sent.append(Path(local_file).name)
            real(self, local_file, artifact_path)

        monkeypatch.setattr(HttpArtifactRepository, "log_artifact", log_artifact)

    total = len(checkpoint.manifest["files"]) + 1
    for number in range(0, total, 3):
        break_off_at(number)
        with pytest.raises(TrackingError, match="the cable was pulled"):
            in_mlflow.put(run_id, checkpoint.path)
        assert in_mlflow.steps(run_id) == []
    break_off_at(total)
    in_mlflow.put(run_id, checkpoint.path)
    assert len(sent) == total
    assert sent[-1] == "manifest.json"
    assert in_mlflow.pull(run_id, 200, tmp_path / "pulled").digest == checkpoint.digest


def test_a_local_artifact_can_be_downloaded_from_the_ui(server, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The UI is a server on the project's own database; a symlinked folder would be listed there and refuse to download."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{server.folder}/server.db")
    runs.configure(tmp_path)
    run_id, checkpoint = new_run("beside the database"), save(100)
    in_mlflow.put(run_id, checkpoint.path)
    path = "checkpoints/step_000000100/world_model.safetensors"
    with urllib.request.urlopen(f"{server.uri}/get-artifact?run_uuid={run_id}&path={path}") as answer:
        assert answer.read() == (checkpoint.path / "world_model.safetensors").read_bytes()
    listed = [entry.path for entry in runs.client(server.uri).list_artifacts(run_id, "checkpoints")]
    assert listed == ["checkpoints/step_000000100"]


def test_a_damaged_manifest_on_a_server_is_replaced_by_putting_again(server: object, save: Save, tmp_path: Path):
    run_id, checkpoint = new_run(), save(100)
    in_mlflow.put(run_id, checkpoint.path)
    damaged = tmp_path / "manifest.json"
    damaged.write_bytes((checkpoint.path / "manifest.json").read_bytes()[:-40])
    runs.client(runs.configured_uri()).log_artifact(run_id, str(damaged), f"checkpoints/{checkpoint.path.name}")
    in_mlflow.put(run_id, checkpoint.path)
    assert in_mlflow.pull(run_id, 100, tmp_path / "pulled").digest == checkpoint.digest
