"""Trials are trainings like any other: the same bits as a segment, a run below that of the sweep, an outcome that is put back."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from matwm.checkpoint import open_checkpoint
from matwm.params_yaml import read_params
from matwm.step_names import step_name
from pipeline import finished_trials, runs, tracking
from pipeline import sweep as stage
from pipeline.job import Job, open_start
from pipeline.params.segments import resolve_all
from pipeline.process import Interruption
from pipeline.project import ProjectError
from pipeline.run import SWEEP, SWEEP_RUN
from pipeline.train import train
from pipeline.trial import run_trial
from tests.pipeline.projects import SOURCE, Project, tiny_params

ROOT = "checkpoints/root"
SWEEPS = {"x": {"from": ROOT, "until": 80, "seeds": [3, 4]}}
TRIAL = "x/seed=3"


@pytest.fixture
def project(root: Path) -> Path:
    """A project with a sweep of two seeds, and a segment with the settings of one of them."""
    shutil.copytree(SOURCE / ROOT, root / ROOT)
    params = tiny_params(segments={"s00": {"from": ROOT, "until": 80, "override": {"seed": 3}}})
    (root / "params.yaml").write_text(yaml.safe_dump({**params, "sweeps": SWEEPS}), encoding="utf-8")
    return root


def job(project: Path, name: str = TRIAL) -> Job:
    graph = resolve_all(read_params(project / "params.yaml"), project)
    return Job(project, graph[name], open_start(project, graph[name], graph), None)


def fingerprint(project: Path, name: str, step: int = 80) -> str:
    return open_checkpoint(project / "checkpoints" / name / step_name(step)).fingerprint


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_trial_trains_to_the_bits_of_the_same_settings_as_a_segment(project: Path) -> None:
    for name in ("s00", TRIAL, "x/seed=4"):
        assert train(project, name, Interruption()) == 0
    assert [fingerprint(project, "s00", step) for step in (40, 80)] == [fingerprint(project, TRIAL, step) for step in (40, 80)]
    assert fingerprint(project, TRIAL) != fingerprint(project, "x/seed=4")
    segment, trial, other = (job(project, name) for name in ("s00", TRIAL, "x/seed=4"))
    assert segment.key == trial.key != other.key
    assert segment.work != trial.work
    assert {work.name.rpartition("-")[0] for work in (project / ".matwm/work").iterdir()} == {"s00", "x~seed=3", "x~seed=4"}

    found = {run.segment: run for run in tracking.list_runs()}
    assert set(found) == {"s00", TRIAL, "x/seed=4"}, "the run of the sweep is none of a training"
    client = runs.client(runs.configured_uri())
    (above,) = client.search_runs([client.get_experiment_by_name("matwm").experiment_id], f"tags.`{SWEEP_RUN}` = 'x'")
    assert {found[name].tags["mlflow.parentRunId"] for name in (TRIAL, "x/seed=4")} == {above.info.run_id}
    assert (found[TRIAL].tags["mlflow.runName"], found[TRIAL].tags[SWEEP]) == ("seed=3", "x")
    assert "mlflow.parentRunId" not in found["s00"].tags


def test_a_finished_trial_is_put_back_without_a_word_to_mlflow(project: Path) -> None:
    assert not finished_trials.restore(job(project))
    assert run_trial(project, TRIAL, Interruption()) == 0
    places = {folder: project / folder / TRIAL for folder in ("checkpoints", "metrics", "plots")}
    before = {name: files(folder) for name, folder in places.items()}
    assert {"run.json", "evaluation.json", "evaluated.csv", "training.csv"} <= before["metrics"].keys()
    told = files(job(project).work)
    for folder in ("checkpoints", "metrics", "plots"):  # as DVC does before it calls the stage
        shutil.rmtree(project / folder / "x")
    assert finished_trials.restore(job(project))
    assert {name: files(folder) for name, folder in places.items()} == before
    assert files(job(project).work) == told


@pytest.mark.parametrize(
    "changes", [{"until": 120}, {"override": {"evaluation": {"episodes": 3}}}, {"override": {"retention": {"keep_last": 1}}}]
)
def test_an_outcome_holds_for_what_it_is_the_outcome_of(project: Path, changes: dict[str, Any]) -> None:
    assert run_trial(project, TRIAL, Interruption()) == 0
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    params["sweeps"]["x"] |= changes
    (project / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    assert not finished_trials.restore(job(project))


def test_a_sweep_that_is_not_there_is_named(project: Path) -> None:
    with pytest.raises(ProjectError, match=r"^params.yaml has no sweep 'y': it has x$"):
        stage.sweep(project, "y", 1, Interruption())


# ---- the stage, under DVC


@pytest.fixture
def swept(tmp_path: Path, store_template: Path) -> Project:
    """A project in git, whose trials take some seconds each."""
    params = tiny_params(segments={"s00": {"from": ROOT, "until": 40}})
    return Project.create(tmp_path / "project", {**params, "sweeps": {"x": {"from": ROOT, "until": 160, "seeds": [3, 4]}}}, store_template)


def test_a_sweep_killed_at_any_moment_goes_on_and_leaves_finished_trials_alone(
    swept: Project, tmp_path: Path, store_template: Path, wait_until: Callable[..., None]
) -> None:
    work = swept.path / ".matwm/work"
    running = swept.start("dvc", "repro", "sweep@x", MATWM_JOBS="1")
    wait_until(lambda: any(work.glob(f"x~seed=4-*/checkpoints/{step_name(40)}/manifest.json")), 900)
    running.send_signal(signal.SIGKILL)  # DVC alone: everything below it follows
    running.wait()
    wait_until(lambda: not _processes(swept.path), 60)
    (first,) = work.glob("x~seed=3-*")
    untouched = files(first)
    assert not (swept.path / "checkpoints/x/seed=4").exists()

    swept.matwm("sweep", "run", "x", "-j", "2")
    assert files(first) == untouched
    (second,) = work.glob("x~seed=4-*")
    assert yaml.safe_load((second / "run.json").read_text(encoding="utf-8"))["resumed_at"]
    assert swept.matwm("sweep", "status", "x").splitlines()[-1] == "2 trials: 2 FINISHED"
    assert "up to date" in swept.dvc("status", "sweep@x")

    other = Project.create(tmp_path / "undisturbed", swept.params(), store_template)
    other.matwm("train", "x/seed=4")
    assert other.fingerprint_at(160, "x/seed=4") == swept.fingerprint_at(160, "x/seed=4")
    assert not (other.path / "dvc.lock").exists()

    swept.matwm("verify", "x/seed=4")
    swept.matwm("continue", "x/seed=3@80", "--until", "120")
    swept.dvc("repro", "train@s01")
    assert swept.json("metrics/s01/run.json")["parent"]["step"] == 80
    swept.matwm("verify", "s01")


def _processes(folder: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("cwd").readlink() == folder and b"pipeline." in process.joinpath("cmdline").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return found
