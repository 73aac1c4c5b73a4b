"""The train stage, in this process: what it publishes, and that no way of stopping it changes that."""

import csv
import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from matwm import checkpoint, durable, evaluation
from matwm.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from matwm.params_yaml import parse_config
from matwm.readings import NonFiniteLossError
from matwm.rng import seed_for
from matwm.step_names import step_name
from matwm.store import LocalStore
from matwm.trainer import Trainer, build_trainer
from pipeline import process, runs, tracking
from pipeline import project as places
from pipeline.metrics import records
from pipeline.metrics.points import curves_of, is_record
from pipeline.process import Interruption
from pipeline.tracking import heartbeat, sync
from pipeline.train import train
from pipeline.training import session
from pipeline.training.saving import Saver
from tests.pipeline import in_mlflow
from tests.pipeline.projects import SOURCE, StopAfter, fingerprint_of, tiny_params

ROOT = "checkpoints/root"


@pytest.fixture
def project(root: Path) -> Path:
    """A project without git and DVC: the stage needs neither."""
    shutil.copytree(SOURCE / ROOT, root / ROOT)
    return root


def write(project: Path, segments: Mapping[str, Any] | None = None, changes: Mapping[str, Any] | None = None) -> None:
    (project / "params.yaml").write_text(yaml.safe_dump(tiny_params(changes, segments)), encoding="utf-8")


def run(project: Path, name: str = "s00", interruption: Interruption | None = None) -> int:
    return train(project, name, interruption or Interruption())


def facts(project: Path, name: str = "s00") -> dict[str, Any]:
    return json.loads((project / "metrics" / name / "run.json").read_text(encoding="utf-8"))


def checkpoint_at(project: Path, step: int, name: str = "s00") -> Path:
    return project / "checkpoints" / name / step_name(step)


def work(project: Path, name: str = "s00") -> Path:
    (folder,) = (project / ".matwm" / "work").glob(f"{name}-*")
    return folder


def digests(project: Path, name: str = "s00") -> dict[str, str]:
    return {path.name: open_checkpoint(path).digest for path in sorted((project / "checkpoints" / name).iterdir())}


@contextmanager
def steps_counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Collect the steps that are trained."""
    taken: list[int] = []
    step = Trainer.step

    def counted(self: Trainer) -> None:
        step(self)
        taken.append(self.env_step)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", counted)
        yield taken


def test_a_segment_is_published_with_its_facts_and_figures(project: Path) -> None:
    write(project)
    assert run(project) == 0
    assert list(digests(project)) == ["step_000000040", "step_000000080"]
    recorded = facts(project)
    info = tracking.get_run(recorded["run_id"])
    assert info is not None
    assert (info.status, info.segment, info.key, info.step) == ("FINISHED", "s00", recorded["key"], 80)
    params = runs.client(runs.configured_uri()).get_run(recorded["run_id"]).data.params
    asked = parse_config(tiny_params())
    assert params["train.world_model.windows"] == str(asked.world_model.windows)
    assert (asked.world_model.windows, asked.env.num_agents) == (4, 3)
    assert params["train.actual.windows"] == "6", "two windows of each agent"
    assert params["train.actual.horizon"] == str(asked.regime(3).horizon)
    assert in_mlflow.steps(recorded["run_id"]) == [40, 80]
    with (project / "metrics/s00/episodes.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [12, 24, 36, 48, 60, 72]
    summary = json.loads((project / "metrics/s00/train.json").read_text(encoding="utf-8"))
    assert summary["return_of_20_episodes"]["agent_0"] == pytest.approx(sum(float(row["return/agent_0"]) for row in rows) / 6)
    assert summary["step"] == 80


def test_the_stage_trains_what_the_library_trains(project: Path) -> None:
    write(project)
    run(project)
    trainer = build_trainer(parse_config(tiny_params()))
    for _ in range(80):
        trainer.step()
    assert open_checkpoint(checkpoint_at(project, 80)).fingerprint == fingerprint_of(trainer)


def test_a_finished_segment_is_published_again_without_training(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project)
    run(project)
    before, recorded = digests(project), facts(project)
    shutil.rmtree(project / "checkpoints/s00")
    shutil.rmtree(project / "metrics")
    with steps_counted(monkeypatch) as taken:
        assert run(project) == 0
    assert (taken, digests(project), facts(project)) == ([], before, recorded)


def test_evaluation_while_training_changes_nothing_but_the_curves(project: Path) -> None:
    write(project, {"s00": {"from": ROOT, "until": 40}})
    run(project)
    before = digests(project)
    shutil.rmtree(project / ".matwm")
    write(project, {"s00": {"from": ROOT, "until": 40}}, {"evaluation": {"interval": 20}, "tracking": {"experiment": "watched"}})
    shutil.rmtree(project / "checkpoints/s00")
    (info,) = tracking.list_runs()
    runs.client(runs.configured_uri()).delete_run(info.run_id)
    assert run(project) == 0
    assert digests(project) == before
    points = tracking.metric_history(facts(project)["run_id"])
    assert {point.step for point in points if point.key == "evaluation/sampled/self_play/adversary_0"} == {20, 40}


def test_interrupted_twice_it_ends_the_same(project: Path, tmp_path: Path, store_template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project)
    assert run(project, interruption=StopAfter(15)) == 128 + signal.SIGTERM
    assert not (project / "checkpoints/s00").exists()
    assert not (project / "metrics").exists()
    (info,) = tracking.list_runs()
    assert info.status == "KILLED"
    assert in_mlflow.steps(info.run_id) == [15], "another machine may have to go on from it"
    assert run(project, interruption=StopAfter(35)) == 128 + signal.SIGTERM
    with steps_counted(monkeypatch) as taken:
        assert run(project) == 0
    assert taken == list(range(51, 81))
    assert [info.status for info in tracking.list_runs()] == ["FINISHED"]
    other = tmp_path / "other"
    shutil.copytree(SOURCE / ROOT, other / ROOT)
    shutil.copy(project / "params.yaml", other)
    shutil.copy(store_template, other / "mlflow.db")
    assert run(other) == 0
    assert digests(other) == digests(project)


def test_a_damaged_checkpoint_costs_its_interval_and_comes_back_the_same(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(project, {"s00": {"from": ROOT, "until": 120}})
    run(project)
    before = digests(project)
    damaged = work(project) / "checkpoints" / step_name(80) / "agents.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.chmod(0o644)
    damaged.write_bytes(content)  # one inode: MLflow's and the published one are damaged with it
    with steps_counted(monkeypatch) as taken, caplog.at_level(logging.WARNING):
        assert run(project) == 0
    assert taken == list(range(41, 81))
    assert digests(project) == before
    assert "agents.safetensors is damaged" in caplog.text


def test_a_resume_reads_each_file_of_the_checkpoints_once_to_verify_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many names it has, and however often the checkpoints are surveyed, recovered, loaded and published."""
    write(project, {"s00": {"from": ROOT, "until": 120}})
    assert run(project, interruption=StopAfter(90)) == 128 + signal.SIGTERM
    assert LocalStore(work(project) / "checkpoints").steps() == [40, 80, 90]
    files = [path for path in (work(project) / "checkpoints").rglob("step_*/**/*") if path.is_file() and path.name != "manifest.json"]
    for path in files:
        os.utime(path, ns=(10**18, 10**18))
    inodes = {path.stat().st_ino for path in files}
    assert len(inodes) < len(files), "they share chunks of the replay"
    reads: Counter[int] = Counter()
    loads: Counter[int] = Counter()
    sha256, load = durable.sha256, Checkpoint.load
    monkeypatch.setattr(durable, "_digests", {})
    monkeypatch.setattr(checkpoint, "_fitting", set())
    monkeypatch.setattr(durable, "sha256", lambda path: reads.update([path.stat().st_ino]) or sha256(path))
    monkeypatch.setattr(Checkpoint, "load", lambda self: loads.update([self.step]) or load(self))
    assert run(project) == 0
    assert {inode: reads[inode] for inode in inodes} == dict.fromkeys(inodes, 1)
    assert {step: loads[step] for step in (40, 80, 90)} == {40: 1, 80: 1, 90: 2}, "once to verify, and the newest to go on"


def test_a_lost_work_directory_is_restored_from_mlflow(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project)
    run(project)
    before, recorded = digests(project), facts(project)
    for folder in (".matwm", "checkpoints/s00", "metrics"):
        shutil.rmtree(project / folder)
    write(project, {"s00": {"from": ROOT, "until": 120}})
    with steps_counted(monkeypatch) as taken:
        assert run(project) == 0
    assert taken == list(range(81, 121))
    assert facts(project)["run_id"] == recorded["run_id"]
    assert {name: digest for name, digest in digests(project).items() if name in before} == before


def test_checkpoints_of_another_training_in_its_places_are_not_gone_on_from(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(project, changes={"seed": 7})
    run(project)
    shutil.copytree(checkpoint_at(project, 80), project / "other")
    shutil.rmtree(project / ".matwm")
    write(project)
    run(project)
    before, own = digests(project), work(project)
    artifacts = Path(in_mlflow.run_of(facts(project)["run_id"]).artifact_uri) / "checkpoints"
    assert artifacts is not None
    shutil.rmtree(project / "checkpoints/s00")
    for place in (artifacts, own / "checkpoints"):
        shutil.rmtree(place / step_name(80))
        shutil.copytree(project / "other", place / step_name(80))
    with steps_counted(monkeypatch) as taken, caplog.at_level(logging.WARNING):
        assert run(project) == 0
    assert taken == list(range(41, 81))
    assert digests(project) == before
    assert [path.name[:14] for path in (own / "foreign").iterdir()] == [step_name(80)]
    assert "as step 80 of s00 (" in caplog.text
    assert ") is a checkpoint of another training: it is not used" in caplog.text


def test_a_chained_segment_ends_where_one_long_segment_ends(project: Path) -> None:
    write(project, {"s00": {"from": ROOT, "until": 80}, "s01": {"from": f"checkpoints/s00/{step_name(60)}", "until": 120}})
    assert run(project) == 0
    assert list(digests(project)) == [step_name(step) for step in (40, 60, 80)]
    assert run(project, "s01") == 0
    chained = open_checkpoint(checkpoint_at(project, 120, "s01"))
    assert chained.parent.digest == open_checkpoint(checkpoint_at(project, 60)).digest
    parent = facts(project)["run_id"]
    assert facts(project, "s01")["parent"] == {"run_id": parent, "step": 60, "digest": chained.parent.digest}
    info = tracking.get_run(facts(project, "s01")["run_id"])
    assert info is not None
    assert (info.parent_run_id, info.parent_step, info.tags["mlflow.parentRunId"]) == (parent, 60, parent)
    write(project, {"s00": {"from": ROOT, "until": 120}})
    assert run(project) == 0
    assert open_checkpoint(checkpoint_at(project, 120)).fingerprint == chained.fingerprint


def test_another_parameter_is_another_run(project: Path) -> None:
    write(project)
    run(project)
    first = facts(project)
    kept = {path: path.read_bytes() for path in work(project).rglob("*.safetensors")}
    write(project, changes={"seed": 7})
    run(project)
    assert facts(project)["run_id"] != first["run_id"]
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert in_mlflow.steps(first["run_id"]) == [40, 80]


def test_going_on_with_other_versions_is_said(project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    write(project)
    run(project, interruption=StopAfter(50))
    assert "bit for bit" not in caplog.text
    real, others = records._version, {"mpe2": "9.9", "pymunk": None, "jax": "9.9.9", "dmlab2d": "1.0"}
    monkeypatch.setattr(records, "_version", lambda library: others[library] if library in others else real(library))
    run(project)
    before = f"segment s00 was begun with mpe2 {version('mpe2')}, now 9.9"
    jax = f"; jax {real('jax')}, now 9.9.9" if real("jax") else ""
    assert f"{before}{jax}: what follows may not be bit for bit" in caplog.text
    assert "dmlab2d" not in caplog.text, "nobody knows whether it was there"
    libraries = facts(project)["libraries"]
    assert (libraries["mpe2"], libraries["jax"], libraries["dmlab2d"], "pymunk" in libraries) == ("9.9", "9.9.9", "1.0", False)


def test_a_parent_trained_with_other_values_is_refused(project: Path) -> None:
    entries = {"s00": {"from": ROOT, "until": 40}, "s01": {"from": f"checkpoints/s00/{step_name(40)}", "until": 80}}
    write(project, entries)
    with pytest.raises(places.ProjectError, match="which is not there: train s00 first"):
        run(project, "s01")
    run(project)
    write(project, entries, {"seed": 7})
    with pytest.raises(places.ProjectError, match="was trained with other values than params.yaml has"):
        run(project, "s01")


def test_a_loss_that_is_not_finite_stops_the_run_with_its_name(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(project)
    step = Trainer.step

    def diverging(self: Trainer) -> None:
        if self.env_step == 50:
            raise NonFiniteLossError("world_model/reward", 51)
        step(self)

    monkeypatch.setattr(Trainer, "step", diverging)
    assert run(project) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("segment s00: world_model/reward is not finite at environment step 51")
    assert said.endswith("the last good checkpoint is of step 40")
    (info,) = tracking.list_runs()
    assert info.status == "FAILED"
    assert LocalStore(work(project) / "checkpoints").steps() == [40]


@pytest.mark.parametrize(("kind", "first"), [("Late", "Traceback"), ("LateReward", "tests.matwm.envs.mistakes:LateReward gave a reward")])
def test_an_environment_that_fails_in_the_midst_of_training_is_told_with_the_way_on(
    kind: str, first: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond what is played before training: somebody's own traceback, then where it was and from where the run goes on."""
    write(project, changes={"env": {"family": "pettingzoo", "name": f"tests.matwm.envs.mistakes:{kind}", "options": {}}})
    command = [sys.executable, "-m", "pipeline.train", "s00"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    ended = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    *_, where, way_on = ended.stderr.splitlines()
    seed = seed_for(0, "episode", 0) % 2**31
    assert where == f"it was raised by tests.matwm.envs.mistakes:{kind}, at step 61 of the episode of seed {seed} (step 0 is the reset)"
    assert way_on == "segment s00: the last good checkpoint is of step 40; once the cause is mended, the same command goes on"
    assert f"\n{first}" in ended.stderr
    assert ("Traceback" in ended.stderr) == (first == "Traceback")
    if kind == "Late":
        own, sentence = ended.stderr.split("Traceback", 1)[1].splitlines()[-4:-2]
        assert own == "LookupError: nobody is there"
        assert sentence == "step() of tests.matwm.envs.mistakes:Late fails: LookupError: nobody is there"
        assert "pipeline" not in ended.stderr.split("Traceback", 1)[1].split("LookupError")[0], "nothing but where its own code broke"


def test_a_save_that_fails_leaves_the_last_good_checkpoint(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project)
    save = LocalStore.save

    def failing(self: LocalStore, step: int, *rest: Any, **named: Any) -> Any:
        if step == 80:
            raise CheckpointError("no space left on device")
        return save(self, step, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "save", failing)
        with pytest.raises(CheckpointError, match="no space left"):
            run(project)
    (info,) = tracking.list_runs()
    assert info.status == "FAILED"
    with steps_counted(monkeypatch) as taken:
        assert run(project) == 0
    assert taken == list(range(41, 81))


def test_what_a_save_costs_is_recorded_once_for_each(project: Path) -> None:
    write(project)
    run(project)
    points = [point for point in tracking.metric_history(facts(project)["run_id"]) if point.key.startswith("checkpoint/")]
    assert sorted((point.key, point.step) for point in points) == [
        (f"checkpoint/{what}_seconds", step) for what in ("save", "stall") for step in (40, 80)
    ]
    assert all(point.value > 0 for point in points)
    last = open_checkpoint(checkpoint_at(project, 80))
    assert not [name for name in last.history().metrics if "checkpoint/" in name], "measured times are no part of a checkpoint"


@pytest.mark.parametrize(("long", "steps"), [(math.inf, [40, 43]), (0.0, [40])])
def test_a_signal_waits_for_the_save_in_flight_and_saves_where_it_came_if_that_is_quick(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], long: float, steps: list[int]
) -> None:
    write(project)
    save, wait, is_waited_for = LocalStore.save, Saver.wait, threading.Event()

    def slow(self: LocalStore, *rest: Any, **named: Any) -> Any:
        assert is_waited_for.wait(300)
        return save(self, *rest, **named)

    def waiting(self: Saver) -> None:
        if self.is_saving:
            is_waited_for.set()
        wait(self)

    with monkeypatch.context() as patch:
        patch.setattr(session, "LONG_SAVE_SECONDS", long)
        patch.setattr(LocalStore, "save", slow)
        patch.setattr(Saver, "wait", waiting)
        assert run(project, interruption=StopAfter(43)) == 128 + signal.SIGTERM
    assert LocalStore(work(project) / "checkpoints").steps() == steps
    assert in_mlflow.steps(tracking.list_runs()[0].run_id) == steps
    assert f"the last good checkpoint is of step {steps[-1]}: the same command goes on" in capsys.readouterr().err
    with steps_counted(monkeypatch) as taken:
        assert run(project) == 0
    assert taken == list(range(steps[-1] + 1, 81))


def test_a_signal_saves_where_it_came_however_long_that_takes_if_nothing_is_in_flight(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(project)
    monkeypatch.setattr(session, "LONG_SAVE_SECONDS", 0.0)
    save = Saver.save
    monkeypatch.setattr(Saver, "save", lambda self, take: (save(self, take), self.wait()))
    assert run(project, interruption=StopAfter(45)) == 128 + signal.SIGTERM
    assert LocalStore(work(project) / "checkpoints").steps() == [40, 45]


def test_a_signal_in_the_step_before_a_save_waits_for_it_and_makes_no_other(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(project)
    step = Trainer.step

    def disturbed(self: Trainer) -> None:
        step(self)
        if self.env_step == 40:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Trainer, "step", disturbed)
    with Interruption() as interruption:
        assert run(project, interruption=interruption) == 128 + signal.SIGTERM
    assert LocalStore(work(project) / "checkpoints").steps() == [40]
    assert "the last good checkpoint is of step 40: the same command goes on from there" in capsys.readouterr().err


@pytest.mark.parametrize(("step", "missing"), [(20, range(21, 81)), (40, range(41, 81)), (80, ())])
def test_a_signal_while_policies_are_evaluated_saves_at_once_and_the_evaluation_comes_later(
    project: Path, monkeypatch: pytest.MonkeyPatch, step: int, missing: Iterable[int]
) -> None:
    write(project, changes={"evaluation": {"interval": 20}})
    choose, calls = evaluation.choose_actions, []

    def disturbed(*arguments: Any, **named: Any) -> Any:
        calls.append(None)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGTERM)
        return choose(*arguments, **named)

    with monkeypatch.context() as patch, Interruption() as interruption:
        evaluate = session.evaluate

        def watched(*arguments: Any, **named: Any) -> Any:
            if trained[-1] == step:
                patch.setattr(evaluation, "choose_actions", disturbed)
            return evaluate(*arguments, **named)

        patch.setattr(session, "evaluate", watched)
        with steps_counted(monkeypatch) as trained:
            assert run(project, interruption=interruption) == 128 + signal.SIGTERM
    assert len(calls) == 3, "the step of the episodes in which the signal came is the last one"
    assert (trained[-1], LocalStore(work(project) / "checkpoints").steps()[-1]) == (step, step)
    assert not (project / "checkpoints/s00").exists()
    with steps_counted(monkeypatch) as trained:
        assert run(project) == 0
    assert trained == list(missing)
    points = Counter(point.step for point in tracking.metric_history(facts(project)["run_id"]) if point.key.endswith("/adversary_0/stderr"))
    assert points.keys() == {20, 40, 60, 80}
    assert len(set(points.values())) == 1


def test_a_signal_while_mlflow_is_waited_for_at_the_end_cuts_only_the_waiting_short(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(project, {"s00": {"from": ROOT, "until": 40}})
    monkeypatch.setattr(session, "SIGNAL_PATIENCE_SECONDS", 0.1)
    answer, answered = threading.Event(), []

    def silent(self: Any, found: Any) -> None:
        if self.state.now.status == "RUNNING":
            return
        os.kill(os.getpid(), signal.SIGTERM)
        answered.append(answer.wait(600))

    with monkeypatch.context() as patch, Interruption() as interruption:
        patch.setattr(sync._Sync, "_send_status", silent)
        assert run(project, interruption=interruption) == 0, "the segment is complete, and DVC is to know it"
    assert answered == [], "it was not waited for"
    answer.set()
    assert "they are kept in" in caplog.text
    before = digests(project)
    assert [info.status for info in tracking.list_runs()] == ["RUNNING"]
    assert run(project) == 0
    assert [info.status for info in tracking.list_runs()] == ["FINISHED"]
    assert digests(project) == before


def test_a_checkpoint_at_every_step_is_possible(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project, {"s00": {"from": ROOT, "until": 12}}, {"run": {"save_interval": 1}, "schedule": {"warmup_steps": 8}})
    assert run(project, interruption=StopAfter(5)) == 128 + signal.SIGTERM
    with steps_counted(monkeypatch) as taken:
        assert run(project) == 0
    assert taken == list(range(6, 13))
    assert list(digests(project)) == [step_name(step) for step in range(1, 13)]


def test_a_disk_that_is_full_when_a_signal_comes_leaves_the_last_good_checkpoint(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(project)
    save = LocalStore.save

    def failing(self: LocalStore, step: int, *rest: Any, **named: Any) -> Any:
        if step > 40:
            raise CheckpointError("cannot be written") from OSError(28, "No space left on device")
        return save(self, step, *rest, **named)

    monkeypatch.setattr(LocalStore, "save", failing)
    assert run(project, interruption=StopAfter(50)) == 128 + signal.SIGTERM
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("segment s00: the checkpoint of step 50 cannot be saved in")
    assert said.endswith(
        "(No space left on device): free space there and give the same command again; the last good checkpoint is of step 40"
    )
    (info,) = tracking.list_runs()
    assert info.status == "KILLED"


def test_a_child_without_a_checkpoint_names_its_parents(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project, {"s00": {"from": ROOT, "until": 40}, "s01": {"from": f"checkpoints/s00/{step_name(40)}", "until": 80}})
    assert run(project, interruption=StopAfter(0)) == 128 + signal.SIGTERM
    assert "there is no checkpoint yet: the same command goes on" in capsys.readouterr().err
    run(project)
    assert run(project, "s01", StopAfter(0)) == 128 + signal.SIGTERM
    assert "segment s01 is interrupted; the last good checkpoint is its parent's, of step 40: the same" in capsys.readouterr().err


def test_two_processes_never_train_one_segment(tmp_path: Path) -> None:
    with (
        process.exclusive(tmp_path / "lock", "segment s00"),
        pytest.raises(places.ProjectError, match=r"segment s00 is in the hands of process \d+: wait for it, or stop it"),
        process.exclusive(tmp_path / "lock", "segment s00", wait_seconds=0.2),
    ):
        pass


def test_a_signal_ends_the_process_at_once_or_when_it_can() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interruption() as interruption, pytest.raises(SystemExit) as caught:
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 143
    with Interruption() as interruption, interruption.deferred():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert interruption.exit_code == 130, "the first counts, the second cuts nothing short"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_trainer_whose_run_another_process_owns_stops_with_75_and_keeps_its_checkpoint(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two machines and one server: whoever has the run last goes on, and the other one leaves it alone."""
    write(project, {"s00": {"from": ROOT, "until": 10_000}})
    step = Trainer.step

    def taken_over(self: Trainer) -> None:
        step(self)
        if self.env_step >= 60:  # Again and again, as a process that lives: what this trainer wrote at the same moment is overwritten.
            (info,) = tracking.list_runs()
            runs.client(runs.configured_uri()).set_tag(info.run_id, heartbeat.HEARTBEAT, f"another {time.time_ns() // 1_000_000} 60000")

    monkeypatch.setattr(Trainer, "step", taken_over)
    note = project / "note"
    monkeypatch.setenv(process.OWNED_NOTE, str(note))
    assert run(project) == heartbeat.EXIT_CODE == 75
    assert note.exists(), "`matwm repro` hands the code on, which DVC does not"
    said = capsys.readouterr().err
    assert "another process owns run" in said
    assert "the last good checkpoint is of step" in said
    assert 40 in LocalStore(work(project) / "checkpoints").steps()
    (info,) = tracking.list_runs()
    assert info.status == "RUNNING", "it is the other one's to end"
    assert not (project / "checkpoints/s00").exists()


def test_points_that_a_power_cut_took_come_from_the_checkpoint(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint was on the disk, the tail was not, and MLflow never had it."""
    write(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(session, "SIGNAL_PATIENCE_SECONDS", 0.1)
    runs.configure(project)
    assert run(project, interruption=StopAfter(60)) == 128 + signal.SIGTERM
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    runs.configure(project)
    (work(project) / "tail.jsonl").unlink()
    assert run(project) == 0
    (info,) = tracking.list_runs()
    points = tracking.metric_history(info.run_id)
    assert max(Counter((point.key, point.step) for point in points).values()) == 1
    last = open_checkpoint(checkpoint_at(project, 80))
    sent = {(point.key, point.step): point for point in points if not is_record(point.key)}
    assert {place: point.value for place, point in sent.items()} == curves_of(last.history(), last.spec.agents)
    assert {point.timestamp_ms - point.step for point in sent.values()} == {info.started_ms}, "times are a function of the step"
