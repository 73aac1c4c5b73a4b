"""The doctor: every misconfiguration is really made, found, and where it can be, mended."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import cli, runs
from pipeline.checks import dvc, store, surroundings
from pipeline.doctor import Diagnosis, examine
from pipeline.process import exclusive
from pipeline.tracking import upkeep
from pipeline.tracking.local_run import LocalRun
from tests.pipeline import in_mlflow
from tests.pipeline.projects import SOURCE, Project, tiny_params
from tests.pipeline.tracked import Trained, history, losses, plain, put_checkpoint


@pytest.fixture
def project(tmp_path: Path, store_template: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A fresh clone with an empty store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = Project.create(tmp_path / "my project", tiny_params(), store_template)
    runs.configure(made.path)
    return made


def found(project: Project, **options: bool) -> list[Diagnosis]:
    return examine(project.path, **options)


def checks(project: Project, **options: bool) -> list[str]:
    return [one.check for one in found(project, **options)]


def test_a_healthy_clone_has_no_problems(project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(project.path)
    assert cli.main(["doctor"]) == 0
    assert capsys.readouterr().out == "no problems found\n"
    assert cli.main(["doctor", "--json", "--deep", "--fix"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_problems_say_what_why_and_what_to_do(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project.path)
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    assert cli.main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "PROBLEM MLFLOW_RUN_ID is 'abc' in this environment [run-id]"
    assert [line.split()[0] for line in lines] == ["PROBLEM", "why:", "do:"]
    project.dvc("config", "core.analytics", "true")
    project.commit("analytics")
    assert cli.main(["doctor", "--json"]) == 0, "a hint is no problem"
    (hint,) = json.loads(capsys.readouterr().out)
    assert (hint["check"], hint["severity"], hint["remedy"]) == ("calls-home", "hint", "dvc config core.analytics false")


def file_store(project: Project) -> None:
    (project.path / "mlruns/0").mkdir(parents=True)
    (project.path / "mlruns/0/meta.yaml").write_text("name: Default\n", encoding="utf-8")


def copying_cache(project: Project) -> None:
    project.dvc("config", "cache.type", "copy")
    project.commit("copies")


def unset_cache(project: Project) -> None:
    project.dvc("config", "--unset", "cache.type")
    project.commit("default")


def unverified_remote(project: Project) -> None:
    project.dvc("remote", "add", "r", "/nowhere")
    project.commit("remote")


def uncommitted_remote(project: Project) -> None:
    project.dvc("remote", "add", "r", "/nowhere")
    project.dvc("remote", "modify", "r", "verify", "true")


def cache_elsewhere(project: Project) -> None:
    project.dvc("cache", "dir", "--local", "/dev/shm/matwm-doctor-cache")


def edit_stages(change: Callable[[dict[str, Any]], None]) -> Callable[[Project], None]:
    def edit(project: Project) -> None:
        data = yaml.safe_load((project.path / "dvc.yaml").read_text(encoding="utf-8"))
        change(data["stages"])
        (project.path / "dvc.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")

    return edit


def persist(stages: dict[str, Any]) -> None:
    stages["train"]["do"]["outs"] = [{"checkpoints/${key}": {"persist": True}}]


def freeze(stages: dict[str, Any]) -> None:
    stages["plot"]["frozen"] = True


def missing_output(project: Project) -> None:
    entry = {"cmd": "x", "outs": [{"path": "checkpoints/s00", "md5": "0" * 32 + ".dir"}]}
    (project.path / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {"train@s00": entry}}), encoding="utf-8")


def corrupted_cache(project: Project) -> None:
    (project.path / "data").write_bytes(b"sound")
    project.dvc("add", "-q", "data")
    (damaged,) = (project.path / ".dvc/cache/files/md5").glob("??/*")
    damaged.chmod(0o644)
    damaged.write_bytes(b"rotten")


def linked(project: Project) -> None:
    (project.path / "mlruns/matwm/run").mkdir(parents=True)
    (project.path / "mlruns/matwm/run/artifacts").symlink_to("/tmp")


def no_repository(project: Project) -> None:
    shutil.rmtree(project.path / ".git")


def uncommitted_results(project: Project) -> None:
    (project.path / "metrics/s00").mkdir(parents=True)
    facts = {"run_id": "1" * 32, "segment": "s00", "key": "k", **surroundings.records.machine_facts("cpu", 1)}
    (project.path / "metrics/s00/run.json").write_text(json.dumps(facts), encoding="utf-8")


def other_libraries(project: Project) -> None:
    uncommitted_results(project)
    path = project.path / "metrics/s00/run.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    facts["libraries"]["torch"] = "1.0"
    path.write_text(json.dumps(facts), encoding="utf-8")
    project.commit("trained elsewhere")


def too_many_threads(project: Project) -> None:
    project.edit("run.threads", 1000)
    project.commit("threads")


def leftovers(project: Project) -> None:
    (project.path / ".matwm/work/s00-0123/checkpoints/.saving-0f0f").mkdir(parents=True)


def newer_database(project: Project) -> None:
    with closing(sqlite3.connect(project.path / "mlflow.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
        connection.commit()


MADE: dict[str, tuple[Callable[[Project], object], str, bool, str]] = {
    "old file store": (file_store, "file-store", False, "mv mlruns/0 ../old-mlruns/"),
    "newer database": (newer_database, "database-version", False, "does not open mlflow.db: MLflow at sqlite:///"),
    "copying cache": (copying_cache, "cache-type", False, "cache.type of DVC is copy, not hardlink"),
    "default cache": (unset_cache, "cache-type", False, "cache.type of DVC is not set"),
    "cache on another file system": (cache_elsewhere, "cache-place", False, "/dev/shm/matwm-doctor-cache is on another file system"),
    "unverified remote": (unverified_remote, "remotes-verified", False, "dvc remote modify r verify true"),
    "uncommitted remote": (uncommitted_remote, "remotes-committed", False, "git add .dvc/config"),
    "persist": (edit_stages(persist), "outputs-kept", False, "output checkpoints/${key} of stage train has persist: true"),
    "frozen": (edit_stages(freeze), "outputs-kept", False, "dvc unfreeze plot"),
    "missing output": (missing_output, "outputs-missing", True, "dvc.lock has checkpoints/s00, not here"),
    "corrupted cache": (corrupted_cache, "cache-sound", False, "in DVC's cache is damaged"),
    "symlink": (linked, "linked-artifacts", False, "mlruns/matwm/run/artifacts is a symbolic link"),
    "no git": (no_repository, "repository", False, "is no git repository"),
    "uncommitted results": (uncommitted_results, "repository", True, "metrics/ not committed"),
    "other libraries": (other_libraries, "torch", True, "segment s00 was trained with torch 1.0, now "),
    "threads": (too_many_threads, "threads", True, "run.threads is 1000"),
    "leftovers": (leftovers, "leftovers", True, ".saving-0f0f: 0 B left by processes that died"),
}


@pytest.mark.parametrize("name", MADE)
def test_a_misconfiguration_is_found(project: Project, name: str) -> None:
    make, check, is_hint, said = MADE[name]
    if name == "cache on another file system" and Path("/dev/shm").stat().st_dev == project.path.stat().st_dev:
        pytest.skip("this machine has one file system")
    make(project)
    (one,) = found(project)
    assert (one.check, one.finding.is_hint, one.is_problem) == (check, is_hint, not is_hint)
    assert said in f"{one.finding.what}\n{one.finding.remedy}"


@pytest.mark.parametrize(
    ("variable", "value", "check", "said"),
    [
        ("MLFLOW_TRACKING_URI", "./mlruns", "tracking-uri", "a folder of files"),
        ("MLFLOW_TRACKING_URI", "sqlite:///other.db", "tracking-uri", "a relative path"),
        ("MLFLOW_TRACKING_URI", "http://127.0.0.1:9", "tracking-uri", "does not answer"),
        ("OMP_NUM_THREADS", "many", "threads", "OMP_NUM_THREADS is 'many'"),
    ],
)
def test_a_wrong_environment_is_found(
    project: Project, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, check: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    (one,) = found(project)
    assert (one.check, one.is_problem) == (check, True)
    assert said in one.finding.what


def test_versions_outside_the_pins_are_found(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = (SOURCE / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"mlflow{store.PINNED}"' in pinned
    assert f"torch=={surroundings.TORCH}\n" in (SOURCE / "constraints.txt").read_text(encoding="utf-8")
    monkeypatch.setattr(store, "version", lambda library: "3.18.0")
    monkeypatch.setattr(surroundings, "version", lambda library: "2.12.1+cpu")
    said = [(one.check, one.finding.what) for one in found(project)]
    assert said == [
        ("mlflow-version", "MLflow 3.18.0 is installed, but this project needs >=3.16,<3.18"),
        ("torch", "torch 2.12.1 is installed, but this project pins 2.13.0"),
    ]


def test_a_full_disk_is_found(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs

    def full(path: Any) -> Any:
        sizes = list(real(path))
        sizes[4] = 1000  # f_bavail
        return os.statvfs_result(sizes)

    monkeypatch.setattr(dvc.os, "statvfs", full)
    assert checks(project) == ["disk"]


def test_a_lock_of_a_dead_process_is_removed(project: Project) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    path = project.path / ".dvc/tmp/rwlock"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"write": {"a": {"pid": dead.pid, "cmd": "x"}}}), encoding="utf-8")
    (one,) = found(project)
    assert (one.check, one.is_problem) == ("dvc-locks", True)
    (one,) = found(project, is_fixing=True)
    assert (one.is_problem, path.exists()) == (False, False)
    assert found(project) == []


def training(project: Project) -> Trained:
    return Trained(project.path, "0123456789abcdef", ".matwm/work/s00-0123456789ab")


def begun(project: Project) -> Trained:
    return training(project).start()


def test_a_moved_project_finds_its_artifacts_again(project: Project, tmp_path: Path, save: Callable[..., Any]) -> None:
    tracker = begun(project)
    put_checkpoint(tracker.run, save(100))
    assert tracker.close("FINISHED") is None
    shutil.rmtree(project.path / ".matwm")
    assert found(project) == []
    moved = Project(tmp_path / "moved to another place")
    shutil.move(project.path, moved.path)
    runs.configure(moved.path)
    assert in_mlflow.steps(str(tracker.run.run_id)) == []
    (one,) = found(moved)
    assert (one.check, one.is_problem) == ("artifact-locations", True)
    assert f"in {project.path / 'mlruns'}, not in {moved.path / 'mlruns'}" in one.finding.what
    link = one.finding.remedy.removeprefix("a link brings all back: ").partition("; or else ")[0]
    subprocess.run(link, shell=True, check=True)
    assert in_mlflow.steps(str(tracker.run.run_id)) == [100]
    assert found(moved) == []


def test_a_copied_project_starts_a_database_of_its_own(project: Project, tmp_path: Path, save: Callable[..., Any]) -> None:
    tracker = begun(project)
    put_checkpoint(tracker.run, save(100))
    assert tracker.close("FINISHED") is None
    before = sorted((project.path / "mlruns").rglob("*"))
    copy = Project(tmp_path / "copy")
    shutil.copytree(project.path, copy.path)
    runs.configure(copy.path)
    one, other = found(copy)
    assert (one.check, one.is_problem, other.check) == ("artifact-locations", True, "pending")
    assert one.finding.remedy.startswith("start a new database: mv mlflow.db mlflow.db.before && matwm doctor --fix && matwm import,")
    (copy.path / "mlflow.db").rename(copy.path / "mlflow.db.before")
    assert [one.check for one in found(copy, is_fixing=True)] == ["pending"]
    (run,) = runs.list_runs()
    assert (run.former_id, in_mlflow.steps(run.id)) == (tracker.run.run_id, [100])
    assert found(copy) == []
    assert sorted((project.path / "mlruns").rglob("*")) == before


def test_what_mlflow_lacks_is_found_and_sent(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    tracker = training(project).start(0)
    tracker.close("FINISHED", timeout=0.1)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with exclusive(tracker.run.work / "lock", "s00"):
        assert checks(project) == [], "a live process sends it itself"
    (one,) = found(project)
    assert (one.check, one.finding.is_hint) == ("pending", True)
    with monkeypatch.context() as patch:
        patch.setattr(upkeep, "settle", lambda *_, **__: ["MLflow does not answer"])
        (one,) = found(project, is_fixing=True)
        assert (one.tried, one.is_mended) == ("MLflow does not answer", False)
    (one,) = found(project, is_fixing=True)
    assert (one.tried, one.is_mended) == ("everything is sent", True)
    assert "pending" not in checks(project)


def test_points_that_mlflow_has_lost_are_found_and_sent(project: Project) -> None:
    one = begun(project).train(range(1, 4))
    one.close()
    assert found(project) == []
    other = LocalRun(one.run.work)
    other.tail.record(losses(range(4, 6)), 5)
    with other.state.change() as contents:
        contents.synced = 5  # As if a store had been put back from a copy of an hour ago.
    other.close()
    (one_found,) = found(project)
    assert (one_found.check, one_found.is_problem) == ("points", True)
    assert one_found.finding.what.endswith("are missing: 2, first world_model/loss at step 4")
    (mended,) = found(project, is_fixing=True)
    assert mended.tried == "everything is sent"
    assert found(project) == []
    assert history(other.run_id) == plain(losses(range(1, 6)))


def test_runs_left_running_are_closed_here_and_named_elsewhere(project: Project) -> None:
    tracker = begun(project)
    tracker.tracker.close()
    (one,) = found(project)
    assert (one.check, one.finding.is_hint) == ("running", True)
    assert "was RUNNING though its process is dead" in one.finding.what
    runs.client(runs.configured_uri()).update_run(str(tracker.run.run_id), "RUNNING")
    shutil.rmtree(project.path / ".matwm")
    (one,) = found(project)
    assert one.finding.remedy == f"if it is dead: matwm runs --close {str(tracker.run.run_id)[:12]}"


def test_old_work_is_named_and_leftovers_are_deleted(project: Project) -> None:
    tracker = begun(project)
    tracker.close("FINISHED")
    (tracker.run.work / "run.json").write_text('{"finished": "x"}', encoding="utf-8")
    leftovers(project)
    assert {one.check: one.tried for one in found(project, is_fixing=True)} == {"leftovers": "1 deleted", "old-work": None}
    assert checks(project) == ["old-work"]


def test_what_earlier_versions_and_killed_pulls_left_is_found_where_it_can_lie(project: Project) -> None:
    work = project.path / ".matwm/work/s00-0123"
    for name in (".pull-0f0f0f0f-40", "checkpoints/.pull-0f0f0f0f-40", "checkpoints/.remote-0f0f", "checkpoints/.fresh-0f0f"):
        (work / name).mkdir(parents=True)
    assert {one.check: one.tried for one in found(project, is_fixing=True)} == {"leftovers": "4 deleted"}
    assert not list(work.rglob(".*"))
