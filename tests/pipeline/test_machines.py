"""Other machines: separate folders, separate stores, and between them only git, a DVC remote or an MLflow server. Each test is a story."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from matwm.params_yaml import load_config
from matwm.step_names import step_name
from pipeline import runs
from pipeline.metrics.points import TimedPoint
from pipeline.stores.mlflow import MlflowStore
from pipeline.tracking.importing import import_all, read_record
from tests.pipeline import in_mlflow
from tests.pipeline.lineages import Matwm
from tests.pipeline.projects import Project, processes_in, tiny_params, until

ROOT = "checkpoints/root"
LAST = 200


def params(*, push: bool = False) -> dict[str, object]:
    return tiny_params({"tracking": {"push": push}}, {"s00": {"from": ROOT, "until": LAST}})


def output_hash(project: Project, name: str = "s00") -> str:
    lock = yaml.safe_load((project.path / "dvc.lock").read_text(encoding="utf-8"))
    return next(out["md5"] for out in lock["stages"][f"train@{name}"]["outs"] if out["path"] == f"checkpoints/{name}")


def run_id(project: Project, name: str = "s00") -> str:
    return project.json(f"metrics/{name}/run.json")["run_id"]


def fingerprint(project: Project, name: str = "s00", step: int = LAST) -> str:
    return project.fingerprint_at(step, name)


def in_work(project: Project) -> dict[str, Any]:
    """Return what the work directory knows about its run."""
    (path,) = (project.path / ".matwm/work").glob("*/run.json")
    return json.loads(path.read_text(encoding="utf-8"))


def local_history(project: Project, run: str) -> list[TimedPoint]:
    return runs.metric_history(run, f"sqlite:///{project.path / 'mlflow.db'}")


def computed(points: list[TimedPoint]) -> list[tuple[str, int, float]]:
    """Return what does not depend on the clock, sorted."""
    return sorted((point.key, point.step, point.value) for point in points if not point.key.startswith(("time/", "checkpoint/")))


def are_single(points: list[TimedPoint]) -> bool:
    return max(Counter((point.key, point.step) for point in points).values()) == 1


def add_remote(project: Project, url: Path | str) -> None:
    project.add_remote(url, verify="true")
    project.git("commit", "-q", "-am", "remote")


def stop_at(project: Project, step: int, **environment: str) -> subprocess.Popen[str]:
    """Train until a step has a checkpoint, and hold training there; what it has to send goes on its way."""
    dvc = project.start("dvc", "repro", "train@s00", **project.hold(step), **environment)
    until(lambda: project.has_saved(step))
    return dvc


def lose(project: Project, dvc: subprocess.Popen[str]) -> None:
    """Take the machine away: processes and disk."""
    os.kill(dvc.pid, signal.SIGKILL)
    os.kill(project.trainer_pid(), signal.SIGKILL)
    dvc.wait(timeout=300)
    until(lambda: not processes_in(project.path))
    shutil.rmtree(project.path)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Project:
    """A machine that was never interrupted."""
    project = Project.create(tmp_path_factory.mktemp("reference") / "p", params(), store_template)
    project.dvc("repro", "train@s00")
    project.commit("trained")
    return project


def test_a_lost_machine_loses_at_most_one_interval(tmp_path: Path, store_template: Path, reference: Project) -> None:
    origin, first = tmp_path / "origin", Project.create(tmp_path / "first", params(push=True), store_template)
    remote = tmp_path / "remote"
    add_remote(first, remote)
    first.git("clone", "-q", "--bare", ".", str(origin))
    dvc = stop_at(first, 80)
    until(lambda: list(remote.glob("matwm/*/*.json")))
    lose(first, dvc)
    pushed = max(int(path.stem[-9:]) for path in remote.glob("matwm/*/*.json"))

    second = Project(origin).clone(tmp_path / "second", store_template)
    said = second.matwm("repro", "train@s00")
    assert "WARNING" not in said
    assert fingerprint(second) == fingerprint(reference)
    assert output_hash(second) == output_hash(reference)
    assert second.json("metrics/s00/run.json")["resumed_at"] == [pushed]
    points = local_history(second, run_id(second))
    assert are_single(points)
    assert computed(points) == computed(local_history(reference, run_id(reference))), "the curve is whole though its store was lost"
    sent = re.search(r"(\d+) files? pushed", second.dvc("push"))
    assert sent and int(sent[1]) == 1, "the folder's own list: every checkpoint is there"


# (a) Only git and the DVC remote.


def everything(project: Project, run: str) -> dict[str, Any]:
    """Return what MLflow here knows of a run, but its ID, its parent's, and who sent it."""
    uri = f"sqlite:///{project.path / 'mlflow.db'}"
    found = runs.client(uri).get_run(run)
    own = ("matwm.heartbeat", "matwm.imported_from", "matwm.original_run", "matwm.parent_run", "mlflow.parentRunId")
    tags = {key: value for key, value in found.data.tags.items() if key not in own}
    return {
        "status": found.info.status,
        "name": found.info.run_name,
        "times": (found.info.start_time, found.info.end_time),
        "experiment": runs.client(uri).get_experiment(found.info.experiment_id).name,
        "params": found.data.params,
        "tags": tags,
        "points": sorted(local_history(project, run)),
        "artifacts": artifacts(uri, run),
    }


def artifacts(uri: str, run: str, folder: str | None = None) -> set[str]:
    found: set[str] = set()
    for entry in runs.client(uri).list_artifacts(run, folder):
        found |= artifacts(uri, run, entry.path) if entry.is_dir else {entry.path}
    return found


def test_git_and_the_remote_are_enough_to_import_the_runs(
    tmp_path: Path, store_template: Path, reference: Project, matwm_in: Matwm
) -> None:
    def matwm(project: Project, *arguments: str, code: int = 0) -> str:
        found, out, errors = matwm_in(project, *arguments)
        assert found == code, errors
        return out + errors * (code != 0)

    first = Project(tmp_path / "first")
    shutil.copytree(reference.path, first.path, symlinks=True)
    shutil.copy(store_template, first.path / "mlflow.db")  # A copy's database leads to the original's artifacts.
    matwm(first, "doctor", "--fix")
    runs_of_reference = everything(reference, run_id(reference))
    add_remote(first, tmp_path / "remote")
    matwm(first, "continue", f"{run_id(first)[:10]}@120", "--until", "160")
    first.dvc("repro", "train@s01", "evaluate@s01")
    child, parent = run_id(first, "s01"), run_id(first)
    first.dvc("push")
    first.commit("s01")
    trained = everything(first, child)

    second = first.clone(tmp_path / "second", store_template)
    assert 'run "dvc pull" first' in matwm(second, "import", code=1)
    second.dvc("pull", "train@s00", "train@s01", "evaluate@s01")
    rows = json.loads(matwm(second, "import", "--json"))
    assert [(row["original_run"], row["imported"]) for row in rows] == [(parent, True), (child, True)]
    new_parent, new_child = (row["run_id"] for row in rows)
    assert everything(second, new_child) == trained
    assert everything(second, new_parent)["points"] == runs_of_reference["points"]
    uri = f"sqlite:///{second.path / 'mlflow.db'}"
    tags = runs.client(uri).get_run(new_child).data.tags
    assert tags["mlflow.parentRunId"] == tags["matwm.parent_run"] == new_parent
    assert tags["matwm.original_run"] == child
    assert in_mlflow.steps(new_child, uri) == [160]
    database = (second.path / "mlflow.db").read_bytes()
    assert [row["imported"] for row in json.loads(matwm(second, "import", parent[:8], "s01", "--json"))] == [False, False]
    assert (second.path / "mlflow.db").read_bytes() == database, "twice changes nothing"
    assert [row["run_id"] for row in json.loads(matwm(second, "runs", "--json"))] == [new_child, new_parent]
    assert json.loads(matwm(second, "show", f"{child[:9]}@final", "--json"))["run_id"] == new_child, "commands accept the old ID"

    matwm(second, "continue", f"{child[:9]}@final", "--until", "200")
    second.dvc("repro", "train@s02")
    tags = runs.client(uri).get_run(run_id(second, "s02")).data.tags
    assert tags["mlflow.parentRunId"] == tags["matwm.parent_run"] == new_child
    assert fingerprint(second, "s02") == fingerprint(reference)


def test_an_import_that_was_killed_is_completed_and_a_run_that_is_there_is_left_alone(
    empty_server: Any, tmp_path: Path, store_template: Path, reference: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = reference.clone(tmp_path / "clone", store_template)
    shutil.copytree(reference.path / "checkpoints/s00", clone.path / "checkpoints/s00", symlinks=True)
    runs.configure(clone.path)
    record = read_record(clone.path, "s00", load_config(clone.path / "params.yaml"))
    with monkeypatch.context() as patch:
        patch.setattr(MlflowStore, "put", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            import_all(clone.path, [record], "matwm")
    imported = import_all(clone.path, [record], "matwm")["s00"]
    assert imported.is_new
    assert imported.run_id != record.run_id, "a server gives it an ID of its own"
    assert in_mlflow.steps(imported.run_id) == list(range(40, LAST + 1, 40))
    assert sorted(runs.metric_history(imported.run_id)) == sorted(local_history(reference, record.run_id))
    client = runs.client(empty_server.uri)
    client.set_tag(imported.run_id, "note", "mine")
    assert not import_all(clone.path, [record], "matwm")["s00"].is_new
    assert client.get_run(imported.run_id).data.tags["note"] == "mine"
    shutil.rmtree(clone.path / ".matwm")
    again = import_all(clone.path, [record], "matwm")["s00"]
    assert (again.run_id, again.is_new) == (imported.run_id, False), "the key finds it"
    client.delete_run(imported.run_id)
    with pytest.raises(runs.TrackingError, match=f"but deleted: `mlflow runs restore --run-id {imported.run_id}`"):
        import_all(clone.path, [record], "matwm")


# (b) Only a server, and (c) both.


@pytest.fixture
def empty_server(server: Any) -> Any:
    """The server without a run of these trainings."""
    for run in runs.list_runs(uri=server.uri):
        runs.client(server.uri).delete_run(run.run_id)
    return server


def test_a_server_alone_is_enough_to_go_on(empty_server: Any, tmp_path: Path, store_template: Path, reference: Project) -> None:
    first = Project.create(tmp_path / "first", params(), store_template)
    origin = tmp_path / "origin"
    first.git("clone", "-q", "--bare", ".", str(origin))
    secret = empty_server.uri.replace("//", "//me:sesame@")
    dvc = stop_at(first, 120, MLFLOW_TRACKING_URI=secret)
    until(lambda: in_work(first).get("run_id"))
    run = in_work(first)["run_id"]
    until(lambda: in_mlflow.steps(run, empty_server.uri))
    lose(first, dvc)

    second = Project(origin).clone(tmp_path / "second", store_template)
    said = second.dvc("repro", "train@s00", MLFLOW_TRACKING_URI=secret)
    assert run_id(second) == run
    assert fingerprint(second) == fingerprint(reference)
    assert output_hash(second) == output_hash(reference)
    points = runs.metric_history(run, empty_server.uri)
    assert are_single(points)
    assert computed(points) == computed(local_history(reference, run_id(reference)))
    found = runs.get_run(run, empty_server.uri)
    assert found and found.status == "FINISHED"
    assert in_mlflow.steps(run, empty_server.uri) == list(range(40, LAST + 1, 40))
    told = runs.client(empty_server.uri).get_run(run).data
    assert "sesame" not in f"{said}{told.tags}{told.params}"
    assert not [path for path in second.path.rglob("*") if path.is_file() and b"me:sesame" in path.read_bytes()]


def test_with_both_the_newest_sound_checkpoint_counts(empty_server: Any, tmp_path: Path, store_template: Path, reference: Project) -> None:
    first = Project.create(tmp_path / "first", params(push=True), store_template)
    remote, origin = tmp_path / "remote", tmp_path / "origin"
    add_remote(first, remote)
    first.git("clone", "-q", "--bare", ".", str(origin))
    dvc = stop_at(first, 80, MLFLOW_TRACKING_URI=empty_server.uri)
    until(lambda: list(remote.glob("matwm/*/*.json")))
    first.matwm("push", "s00")
    (index, *_) = sorted(remote.glob("matwm/*/*.json"), reverse=True)
    lose(first, dvc)
    newest = int(index.stem[-9:])
    tree = json.loads(index.read_text(encoding="utf-8"))["tree"]
    listed = json.loads((remote / "files/md5" / tree[:2] / tree[2:]).read_text(encoding="utf-8"))
    (md5,) = [row["md5"] for row in listed if row["relpath"] == "agents.safetensors"]
    damaged = remote / "files/md5" / md5[:2] / md5[2:]
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")

    second = Project(origin).clone(tmp_path / "second", store_template)
    said = second.matwm("repro", "train@s00", MLFLOW_TRACKING_URI=empty_server.uri)
    assert f"object files/md5/{md5[:2]}/{md5[2:]}, agents.safetensors of {step_name(newest)}, is damaged" in said
    assert fingerprint(second) == fingerprint(reference)
    assert output_hash(second) == output_hash(reference)
    assert are_single(runs.metric_history(run_id(second), empty_server.uri))
