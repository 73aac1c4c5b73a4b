"""The real thing: git, `dvc repro`, processes that are killed, and clones. Each test is a story, since a process costs seconds."""

import os
import shutil
import signal
import sqlite3
import sys
from pathlib import Path

import yaml

from matwm.params_yaml import parse_config
from matwm.step_names import step_name
from matwm.trainer import build_trainer
from tests.pipeline.projects import Project, fingerprint_of, is_alive, tiny_params, until

ROOT = "checkpoints/root"


def uninterrupted(steps: int) -> str:
    """Return the fingerprint after training in this process, without pipeline, store or interruption."""
    trainer = build_trainer(parse_config(tiny_params()))
    for _ in range(steps):
        trainer.step()
    return fingerprint_of(trainer)


def run_id(project: Project, name: str = "s00") -> str:
    return project.json(f"metrics/{name}/run.json")["run_id"]


def output_hash(project: Project, name: str = "s00") -> str:
    lock = yaml.safe_load((project.path / "dvc.lock").read_text(encoding="utf-8"))
    return next(out["md5"] for out in lock["stages"][f"train@{name}"]["outs"] if out["path"] == f"checkpoints/{name}")


def repro(project: Project, *segments: str) -> str:
    return project.dvc("repro", *(f"train@{name}" for name in segments or ("s00",)))


def test_the_graph_trains_what_is_new_and_nothing_else(tmp_path: Path, store_template: Path) -> None:
    project = Project.create(tmp_path / "p", tiny_params(), store_template)
    repro(project)
    first, short = run_id(project), project.fingerprint_at(80)
    assert "Data and pipelines are up to date." in repro(project)
    assert project.git("status", "--porcelain").split() == ["??", ".params.ok", "??", "dvc.lock", "??", "metrics/"]

    project.edit("segments.s00.until", 120)
    repro(project)
    long = project.fingerprint_at(120)
    assert (run_id(project), project.fingerprint_at(80)) == (first, short), "the same run went on"

    chain = {"s00": {"from": ROOT, "until": 80}, "s01": {"from": f"checkpoints/s00/{step_name(80)}", "until": 120}}
    project.write(tiny_params(segments=chain))
    said = repro(project, "s00", "s01")
    assert "Stage 'train@s00' is cached - skipping run" in said
    assert project.fingerprint_at(120, "s01") == long, "chained or long"
    assert project.json("metrics/s01/run.json")["parent"]["run_id"] == first

    project.edit("seed", 3)
    kept = {path: path.read_bytes() for path in (project.path / "mlruns").rglob("*.safetensors")}
    repro(project)
    assert run_id(project) != first
    assert project.fingerprint_at(80) != short
    assert all(path.read_bytes() == content for path, content in kept.items())

    project.edit("seed", 0)
    said = repro(project, "s00", "s01")
    assert "Stage 'train@s00' is cached - skipping run" in said
    assert "Stage 'train@s01' didn't change, skipping" in said
    project.matwm("repro", "train@s00", "train@s01")
    assert (run_id(project), project.fingerprint_at(80), project.fingerprint_at(120, "s01")) == (first, short, long)

    damaged = project.path / "checkpoints/s00" / step_name(80) / "agents.safetensors"
    assert damaged.stat().st_nlink == 4, "work directory, MLflow, DVC's cache and output are one file"
    damaged.chmod(0o644)
    with damaged.open("r+b") as file:
        file.write(b"x")
    damaged.chmod(0o444)
    assert "is replaced" in project.dvc("repro", "--force", "--single-item", "train@s00")
    assert project.fingerprint_at(80) == short
    assert "Data and pipelines are up to date." in repro(project)


def test_a_killed_training_goes_on_in_the_same_run_and_ends_the_same(tmp_path: Path, store_template: Path) -> None:
    until_step = 320
    project = Project.create(tmp_path / "p", tiny_params(segments={"s00": {"from": ROOT, "until": until_step}}), store_template)

    dvc = project.start("dvc", "repro", "train@s00", **project.hold(100))
    until(lambda: project.has_saved(80))
    os.kill(project.trainer_pid(), signal.SIGKILL)
    assert dvc.wait(timeout=300) != 0
    assert not (project.path / "metrics/s00").exists()

    dvc = project.start("dvc", "repro", "train@s00", **project.hold(180))
    until(lambda: project.has_saved(160))
    orphan = project.trainer_pid()
    os.kill(dvc.pid, signal.SIGKILL)
    dvc.wait(timeout=300)
    project.let_go()
    repro(project)
    assert not is_alive(orphan)

    assert project.fingerprint_at(until_step) == uninterrupted(until_step)
    assert [int(path.name[-9:]) for path in sorted((project.path / "checkpoints/s00").iterdir())] == list(range(40, until_step + 1, 40))
    with sqlite3.connect(project.path / "mlflow.db") as database:
        assert database.execute("select run_uuid, status from runs").fetchall() == [(run_id(project), "FINISHED")]
        doubled = "select key, step, count(*) from metrics group by key, step having count(*) > 1"
        assert database.execute(doubled).fetchall() == []
        (points,) = database.execute("select count(*) from metrics where key = 'world_model/total'").fetchone()
    assert points == (until_step - 20) // 10 + 1


def test_another_clone_goes_on_or_repeats_to_the_byte(tmp_path: Path, store_template: Path) -> None:
    project = Project.create(tmp_path / "p", tiny_params(), store_template)
    repro(project)
    project.add_remote(tmp_path / "remote")
    project.dvc("push")
    project.commit("train s00")

    pulled = project.clone(tmp_path / "pulled", store_template)
    said = pulled.matwm("repro", "train@s00", code=1)
    assert (
        said == 'segment s00 is trained (dvc.lock), but its checkpoints are not here: run "dvc pull", or add --retrain to train it again\n'
    )
    pulled.dvc("pull", "train@s00")
    assert "Data and pipelines are up to date." in pulled.matwm("repro", "train@s00")
    first = run_id(project)
    pulled.matwm("continue", f"{first[:8]}@80", "--until", "120")
    repro(pulled, "s01")
    assert pulled.json("metrics/s01/run.json")["parent"]["run_id"] == first, "git knows it, MLflow here does not"
    pulled.edit("segments.s00.until", 120)
    repro(pulled)
    assert pulled.json("metrics/s00/run.json")["resumed_at"] == [80], "what was pulled was not trained again"

    repeated = project.clone(tmp_path / "repeated", store_template)
    repeated.edit("segments.s00.until", 120)
    repro(repeated)
    assert repeated.json("metrics/s00/run.json")["resumed_at"] == []
    assert output_hash(repeated) == output_hash(pulled), "with those up to 80, which were pulled there"
    assert repeated.fingerprint_at(120) == pulled.fingerprint_at(120, "s01")


def test_one_environment_serves_a_clone_without_being_activated(tmp_path: Path, store_template: Path) -> None:
    project = Project.create(tmp_path / "p", tiny_params(), store_template)
    dvc = str(Path(sys.executable).with_name("dvc"))
    assert "Running stage 'validate'" in project.run(dvc, "repro", "validate", MATWM_PYTHON="", PATH="/usr/bin:/bin")


def test_mlflow_run_calls_the_stages(tmp_path: Path, store_template: Path) -> None:
    project = Project.create(
        tmp_path / "p", tiny_params({"run": {"save_interval": 30}}, {"s00": {"from": ROOT, "until": 30}}), store_template
    )
    project.run("mlflow", "run", ".", "-e", "train", "-P", "segment=s00", "--env-manager", "local")
    with sqlite3.connect(project.path / "mlflow.db") as database:
        launcher = database.execute(
            "select value from tags where key = 'matwm.project_run' and run_uuid = ?", (run_id(project),)
        ).fetchone()
        assert launcher is not None
        assert database.execute("select count(*) from metrics where run_uuid = ?", launcher).fetchone() == (0,), "nothing leaked into it"
    project.run(
        "mlflow",
        "run",
        ".",
        "-e",
        "continue",
        "-P",
        f"run_id={run_id(project)[:10]}",
        "-P",
        "step=30",
        "-P",
        "until=60",
        "--env-manager",
        "local",
    )
    assert project.params()["segments"]["s01"] == {"from": f"checkpoints/s00/{step_name(30)}", "until": 60}


def test_an_experiment_in_a_temporary_copy_shares_store_and_work(tmp_path: Path, store_template: Path) -> None:
    project = Project.create(
        tmp_path / "p", tiny_params({"run": {"save_interval": 30}}, {"s00": {"from": ROOT, "until": 30}}), store_template
    )
    project.dvc("exp", "run", "--temp", "-S", "seed=4", "train@s00")
    with sqlite3.connect(project.path / "mlflow.db") as database:
        assert database.execute("select value from params where key = 'train.seed'").fetchall() == [("4",)]
        assert database.execute("select status from runs").fetchall() == [("FINISHED",)]
    assert len(list((project.path / ".matwm/work").iterdir())) == 1
    assert project.params()["seed"] == 0


def test_what_the_run_cache_brings_back_has_its_own_runs_facts(tmp_path: Path, store_template: Path) -> None:
    project = Project.create(tmp_path / "p", tiny_params(segments={"s00": {"from": ROOT, "until": 40}}), store_template)
    repro(project)
    first = project.json("metrics/s00/run.json")
    project.edit("seed", 3)
    repro(project)
    assert project.json("metrics/s00/run.json")["key"] != first["key"]
    shutil.rmtree(project.path / ".matwm/work")

    project.edit("seed", 0)
    assert "Stage 'train@s00' is cached - skipping run" in repro(project)
    project.dvc("repro", "evaluate@s00")
    found = project.json("metrics/s00/run.json")
    same = ("run_id", "segment", "key", "parent", "git", "numerics", "device", "experiment")
    assert {name: found[name] for name in same} == {name: first[name] for name in same}
    assert set(first["tags"]) == set(found["tags"]) - {name for name in found["tags"] if name.startswith("matwm.evaluation")} | {
        name for name in first["tags"] if name.startswith("matwm.evaluation")
    }


def test_an_experiment_on_an_override_is_a_branch_of_its_own(tmp_path: Path, store_template: Path) -> None:
    override = {"actor_critic": {"learning_rate": 1e-4}}
    chain = {
        "s00": {"from": ROOT, "until": 30},
        "s01": {"from": f"checkpoints/s00/{step_name(30)}", "until": 60, "override": override},
    }
    project = Project.create(tmp_path / "p", tiny_params({"run": {"save_interval": 30}}, chain), store_template)
    repro(project, "s00", "s01")
    project.commit("train")
    first = project.json("metrics/s01/run.json")

    where = "segments.s01.override"
    project.dvc("exp", "run", "-S", f"{where}.actor_critic.learning_rate=2.0e-5", "-S", f"+{where}.replay.capacity=40", "train@s01")
    facts = project.json("metrics/s01/run.json")
    assert facts["run_id"] != first["run_id"]
    assert facts["key"] != first["key"]
    assert facts["parent"] == first["parent"], "the parent is not trained again"
    config = project.json(f"checkpoints/s01/{step_name(60)}/manifest.json")["config"]
    assert (config["actor_critic"]["learning_rate"], config["replay"]["capacity"]) == (2e-5, 40)
    with sqlite3.connect(project.path / "mlflow.db") as database:
        tags = dict(
            database.execute("select key, value from tags where run_uuid = ? and key like 'matwm.changed.%'", (facts["run_id"],)).fetchall()
        )
        runs = database.execute("select count(*) from runs").fetchone()
    assert tags == {"matwm.changed.actor_critic.learning_rate": "0.001 -> 2.0e-05", "matwm.changed.replay.capacity": "500 -> 40"}

    said = project.dvc("exp", "run", "-S", f"+{where}.world_model.hidden_size=32", "train@s01", code=255)
    sentences = [line for line in said.splitlines() if line.startswith("params.yaml: ")]
    assert sentences == [
        f"params.yaml: {where}.world_model.hidden_size is 32, but the checkpoint it starts from has 16, "
        "which a continued segment cannot change: start a segment from checkpoints/root for that"
    ]
    assert project.json("metrics/s01/run.json") == facts, "nothing has started"
    with sqlite3.connect(project.path / "mlflow.db") as database:
        assert database.execute("select count(*) from runs").fetchone() == runs
