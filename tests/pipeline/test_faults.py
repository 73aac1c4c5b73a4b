"""What comes of each fault: the rows of the table in docs/faults.md, provoked for real wherever a test can do that."""

import contextlib
import errno
import hashlib
import json
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import matwm
from matwm import manifest
from matwm.checkpoint import CheckpointError, open_checkpoint, publish
from matwm.config import ConfigError
from matwm.params_yaml import parse_config
from matwm.step_names import step_name
from matwm.store import LocalStore
from matwm.trainer import Trainer, build_trainer
from matwm.version import NUMERICS
from pipeline import cli, doctor, dvc_leftovers, evaluate, plot, runs, tracking, validate
from pipeline import project as places
from pipeline import train as stage
from pipeline.process import Interruption
from pipeline.tracking.tracker import Tracker
from tests.matwm.envs.guests import alive
from tests.pipeline import in_mlflow
from tests.pipeline.faults_table import PAGE, ROWS, fault, table, table_in
from tests.pipeline.projects import SOURCE, Project, fingerprint_of, tiny_params, until
from tests.pipeline.servers import Server

ROOT = "checkpoints/root"
SEGMENTS = {"s00": {"from": ROOT, "until": 120}}
FELL_BACK = "falls back to the one before, naming the file; the interval is trained again and ends with the same fingerprint"
REFUSED = "refused in one sentence that names the file; nothing is trained, written or changed"


class StopAt(Interruption):
    """A signal that comes when training is at a step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
        super().__init__()
        take_step = Trainer.step

        def stepping(trainer: Trainer) -> None:
            take_step(trainer)
            if trainer.env_step == step:
                self.signal = signal.SIGTERM

        monkeypatch.setattr(Trainer, "step", stepping)


@pytest.fixture
def project(root: Path) -> Path:
    """A project without git and DVC: the stage needs neither."""
    shutil.copytree(SOURCE / ROOT, root / ROOT)
    write(root)
    return root


@pytest.fixture
def own_server(tmp_path: Path, store_template: Path) -> Iterator[Server]:
    """A server that is down, and has no runs of other tests."""
    server = Server(tmp_path / "server", store_template)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def expected() -> str:
    """The fingerprint of the training when nothing goes wrong."""
    trainer = build_trainer(parse_config(tiny_params(segments=SEGMENTS)))
    for _ in range(120):
        trainer.step()
    return fingerprint_of(trainer)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a training at step 80: checkpoints of steps 40 and 80."""
    folder = tmp_path_factory.mktemp("sound")
    matwm.train(parse_config(tiny_params(segments=SEGMENTS)), until=80, checkpoint_dir=folder)
    assert LocalStore(folder).steps() == [40, 80]
    return folder


def write(project: Path, segments: dict[str, Any] | None = None, changes: dict[str, Any] | None = None) -> None:
    (project / "params.yaml").write_text(yaml.safe_dump(tiny_params(changes, segments or SEGMENTS)), encoding="utf-8")


def run(project: Path, name: str = "s00", interruption: Interruption | None = None) -> int:
    return stage.train(project, name, interruption or Interruption())


@contextlib.contextmanager
def impatient() -> Iterator[None]:
    """Wait a second for a store that does not take what is left, not half a minute."""
    close = Tracker.close
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tracker, "close", lambda self, *_, **__: close(self, 20.0, 1.0))
        yield


def work(project: Path) -> Path:
    (folder,) = (project / ".matwm/work").glob("s00-*")
    return folder


def result(project: Path, step: int = 120) -> str:
    return open_checkpoint(project / "checkpoints/s00" / step_name(step)).fingerprint


def points_in(run_id: str) -> Counter[tuple[str, int]]:
    return Counter((point.key, point.step) for point in tracking.metric_history(run_id))


def nobody_calls_mlflow() -> None:
    """Wait for threads that a training left behind: a command that ends takes them along, but here the process lives on."""
    until(lambda: all(thread.name != "mlflow" for thread in threading.enumerate()))


def assert_everything_is_there_once(project: Path) -> None:
    (info,) = tracking.list_runs()
    assert info.status == "FINISHED"
    points = points_in(info.run_id)
    assert set(points.values()) == {1}, "nothing is doubled"
    assert {step for key, step in points if key == "world_model/total"} == set(range(20, 121, 10)), "nothing is missing"
    assert {40, 80, 120} <= {*in_mlflow.steps(info.run_id)}


# One byte or one file of a checkpoint


def flip(path: Path, position: float) -> None:
    data = bytearray(path.read_bytes())
    data[round(position * (len(data) - 1))] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)  # in place, as a bad disk does: all names of the file see it


def truncate(path: Path) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def add(path: Path) -> None:
    path.with_name(f"{path.name}.more").write_bytes(b"more")


HARM: dict[str, Callable[[Path], None]] = {
    "first byte": partial(flip, position=0.0),
    "middle byte": partial(flip, position=0.5),
    "last byte": partial(flip, position=1.0),
    "truncated": truncate,
    "missing": Path.unlink,
    "added": add,
}


def files_of(checkpoint: Path) -> list[str]:
    return sorted(path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file())


@fault("any one byte flipped in the newest checkpoint, manifest included", FELL_BACK)
@fault("any file truncated, missing or added in it", FELL_BACK)
def test_harm_to_any_file_of_the_newest_checkpoint_is_noticed(checkpoints: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = files_of(checkpoints / step_name(80))
    assert len(names) > 8
    for number, (name, kind) in enumerate((name, kind) for name in names for kind in HARM):
        store = LocalStore(shutil.copytree(checkpoints, tmp_path / str(number)))
        newest = store.folder / step_name(80)
        HARM[kind](newest / name)
        caplog.clear()
        found = store.newest()
        assert found is not None, (name, kind)
        assert found.step == 40, (name, kind)
        if (name, kind) != ("manifest.json", "missing"):  # without a manifest it is no checkpoint, only a folder
            harmed = f"{name}.more" if kind == "added" else name
            assert f"checkpoint of step 80 is passed over: {newest}" in caplog.text, (name, kind)
            assert harmed in caplog.text, (name, kind)
        shutil.rmtree(store.folder)


@pytest.mark.parametrize(
    ("name", "kind"), [("agents.safetensors", "middle byte"), ("manifest.json", "truncated"), ("progress.json", "added")]
)
def test_training_goes_on_from_the_checkpoint_before(
    project: Path, expected: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, kind: str
) -> None:
    with monkeypatch.context() as patch:
        assert run(project, interruption=StopAt(patch, 80)) == 143
    HARM[kind](work(project) / "checkpoints" / step_name(80) / name)
    shutil.rmtree(project / "mlruns")  # where links are impossible it has a copy, from which the checkpoint would come back
    with caplog.at_level(logging.WARNING):
        assert run(project) == 0
    assert f"{step_name(80)}/{name}" in caplog.text
    assert result(project) == expected


@fault("the same in a checkpoint that was asked for by name: `from`, `matwm continue R@S`, `resume_from`", REFUSED)
@pytest.mark.parametrize("kind", HARM)
def test_harm_to_the_checkpoint_that_was_asked_for_is_refused(
    checkpoints: Path, tmp_path: Path, project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    config = parse_config(tiny_params(segments=SEGMENTS))
    for name in files_of(checkpoints / step_name(80)):
        folder = shutil.copytree(checkpoints / step_name(80), tmp_path / "asked" / step_name(80))
        HARM[kind](folder / name)
        with pytest.raises(CheckpointError) as caught:
            matwm.train(config, resume_from=folder, until=120, checkpoint_dir=tmp_path / "out")
        assert name in str(caught.value)
        assert not (tmp_path / "out").exists()
        shutil.rmtree(tmp_path / "asked")
    write(project, {"s00": {"from": ROOT, "until": 40}, "s01": {"from": f"checkpoints/s00/{step_name(40)}", "until": 60}})
    assert run(project) == 0
    (info,) = tracking.list_runs()
    params = (project / "params.yaml").read_bytes()
    folders = [path.parent for path in project.rglob(f"{step_name(40)}/manifest.json")]
    assert len(folders) == 3, "work directory, MLflow's artifact and output"
    for folder in folders if kind in ("missing", "added") else folders[:1]:  # the rest happens to all names of a file
        HARM[kind](folder / "agents.safetensors")
    monkeypatch.chdir(project)
    for command in (lambda: stage.main(["s01"]), lambda: cli.main(["continue", f"{info.run_id[:8]}@40", "--until", "90"])):
        capsys.readouterr()
        assert command() == 1
        said = capsys.readouterr().err
        assert "agents.safetensors" in said
        assert "Traceback" not in said
    assert (project / "params.yaml").read_bytes() == params
    assert not (project / "checkpoints/s01").exists()
    assert [info.segment for info in tracking.list_runs()] == ["s00"]


@fault(
    "a checkpoint of another training, or one renamed, among a run's own",
    "`matwm prune` keeps it and counts it for none of the run's; training sets it aside and ends with the same fingerprint",
)
def test_a_checkpoint_of_another_training_pushes_none_of_the_runs_own_out(
    project: Path, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    with pytest.MonkeyPatch.context() as patch:
        assert run(project, interruption=StopAt(patch, 90)) == 143
    folder = work(project) / "checkpoints"
    assert LocalStore(folder).steps() == [40, 80, 90]
    shutil.copytree(folder / step_name(40), folder / step_name(120))
    assert cli.main(["prune", "--keep-last", "1", "--yes"]) == 0
    assert "another training" in capsys.readouterr().out
    assert {90, 120} <= {*LocalStore(folder).steps()}
    assert run(project) == 0
    assert result(project) == expected


# A disk that is full


@pytest.fixture
def small_disk(project: Path) -> Iterator[Callable[[bool], None]]:
    """Put the work directory on a file system of 4 MB of its own and return a function that fills it, or makes room again."""
    folder = project / ".matwm"
    folder.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)):
        yield partial(fill, folder)


def fill(folder: Path, is_full: bool) -> None:
    """Fill a small file system to the last byte, or make room again."""
    rest = folder / "something else"
    rest.unlink(missing_ok=True)
    if is_full:
        with rest.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass


@contextlib.contextmanager
def mounted(*arguments: str) -> Iterator[None]:
    """Mount something, or skip the test where that is not allowed."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"mount is not allowed here ({done.stderr.strip()}): the same is tested with a refusal at the system call")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", arguments[-1]], check=True)


def at_steps(monkeypatch: pytest.MonkeyPatch, actions: dict[int, Callable[[], None]]) -> None:
    """Do something right after training took a step."""
    take_step = Trainer.step

    def stepping(trainer: Trainer) -> None:
        take_step(trainer)
        actions.get(trainer.env_step, lambda: None)()

    monkeypatch.setattr(Trainer, "step", stepping)


@fault(
    "the disk full while a checkpoint is saved, for a while",
    "training goes on, says so, and tries again with the same snapshot: nothing is lost",
)
def test_a_disk_that_is_full_for_a_while_costs_nothing(
    project: Path, small_disk: Callable[[bool], None], expected: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def make_room() -> None:
        until(lambda: "the checkpoint of step 80 cannot be saved" in caplog.text)
        small_disk(False)

    at_steps(monkeypatch, {75: partial(small_disk, is_full=True), 110: make_room})
    assert run(project) == 0
    assert "No space left on device" in caplog.text
    assert result(project) == expected
    assert_everything_is_there_once(project)


@fault(
    "… and until the next checkpoint is due",
    "stops with exit code 1 and says what to free; the last good checkpoint is the newest, and the same command goes on from it",
)
def test_a_disk_that_stays_full_stops_training_with_the_last_good_checkpoint(
    project: Path, small_disk: Callable[[bool], None], expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch, impatient():
        at_steps(patch, {75: partial(small_disk, is_full=True)})
        assert run(project) == 1
    said = capsys.readouterr().err
    assert "the checkpoint of step 80 cannot be saved" in said
    assert "free space there and give the same command again" in said
    assert "the last good checkpoint is of step 40" in said
    assert "Traceback" not in said
    newest = LocalStore(work(project) / "checkpoints").newest()
    assert newest is not None
    assert newest.step == 40
    small_disk(False)
    assert run(project) == 0
    assert result(project) == expected
    assert_everything_is_there_once(project)


@fault("the disk full that MLflow's database is on", "training goes on and says so once; the next command sends everything, in one run")
@pytest.mark.parametrize("is_there", [True, False])
def test_a_full_disk_under_mlflows_database_costs_nothing(
    project: Path,
    tmp_path: Path,
    store_template: Path,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    is_there: bool,
) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        if is_there:
            shutil.copy(store_template, folder / "mlflow.db")
        runs.configure(project)
        fill(folder, is_full=True)
        with impatient():
            assert run(project) == 0
        assert result(project) == expected
        assert caplog.text.count("Training goes on") == 1
        assert "full" in caplog.text or "No space left" in caplog.text
        assert "Traceback" not in caplog.text + capsys.readouterr().err
        nobody_calls_mlflow()
        fill(folder, is_full=False)
        assert run(project) == 0
        assert_everything_is_there_once(project)
        nobody_calls_mlflow()
        assert {path.name for path in folder.glob("mlflow.db*")} <= {"mlflow.db", "mlflow.db.lock"}


# MLflow that does not answer


@fault("the MLflow server down at the start", "training goes on; everything is sent when it answers, or by the next command")
@fault("… in the middle", "the same")
@fault("… at the end", "the segment is complete and published; the next command sends what is missing, nothing doubled")
def test_a_server_may_be_down_whenever_it_likes(
    project: Path,
    own_server: Server,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = own_server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    runs.configure(project)
    with monkeypatch.context() as patch, impatient():
        assert run(project, interruption=StopAt(patch, 50)) == 143
    assert "Training goes on" in caplog.text
    nobody_calls_mlflow()
    server.start()
    with monkeypatch.context() as patch, impatient():
        at_steps(patch, {90: server.stop})
        assert run(project) == 0
    assert result(project) == expected, "published, though MLflow does not know"
    assert "they are kept in" in caplog.text
    nobody_calls_mlflow()
    server.start()
    assert run(project) == 0
    assert_everything_is_there_once(project)


# Two at once


@fault("two `dvc repro` at once", "the second refuses: DVC's lock")
@fault("two training processes of one segment by hand", "the second waits a minute, then refuses and names the process")
def test_the_second_of_two_refuses(tmp_path: Path, store_template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segments = {"s00": {"from": ROOT, "until": 4000}}
    project = Project.create(tmp_path / "p", tiny_params({"run": {"save_interval": 4000}}, segments), store_template)
    first = project.start("dvc", "repro", "train@s00", **project.hold(100))
    try:
        until(lambda: [path for path in project.path.glob(".matwm/work/*/tail.jsonl") if path.stat().st_size])
        second = project.dvc("repro", "train@s00", code=255)
        assert "Unable to acquire lock" in second or "is busy" in second
        runs.configure(project.path)
        monkeypatch.setattr(stage, "exclusive", partial(stage.exclusive, wait_seconds=0.2))
        with pytest.raises(places.ProjectError, match=r"segment s00 is in the hands of process \d+: wait for it, or stop it"):
            run(project.path)
    finally:
        os.killpg(first.pid, signal.SIGINT)
        project.let_go()
        said, _ = first.communicate(timeout=600)
    assert "exited with 130" in said


@fault(
    "a list of locks that a power cut has left half written, or that names the number of a process which is another one by now",
    "`matwm repro` clears it and says so; DVC alone would refuse to do anything",
)
@pytest.mark.parametrize("content", ["", '{"write": {"x": ', '{"write": [1]}', "of another process"])
def test_locks_that_a_dead_dvc_has_left_are_cleared(project: Path, content: str) -> None:
    with subprocess.Popen(["sleep", "600"]) as other:
        entries = {"write": {str(project / "checkpoints/s00"): {"pid": other.pid, "cmd": "dvc repro"}}}
        path = project / ".dvc/tmp/rwlock"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(entries) if content == "of another process" else content, encoding="utf-8")
        said = dvc_leftovers.stale(project)
        dvc_leftovers.clear(project)
        other.kill()
    assert said is not None
    assert ".dvc/tmp/rwlock" in said
    assert not path.exists()
    assert dvc_leftovers.stale(project) is None


def test_locks_of_a_dvc_that_lives_are_kept(project: Path) -> None:
    with subprocess.Popen(["bash", "-c", "exec -a dvc sleep 600"]) as other:
        until(lambda: b"dvc" in Path(f"/proc/{other.pid}/cmdline").read_bytes())
        entry, dead = {"pid": other.pid, "cmd": "dvc repro"}, {"pid": 2**22 + 1, "cmd": "dvc repro"}
        places.write_json(project / ".dvc/tmp/rwlock", {"read": {"a": [entry, dead], "b": [dead]}, "write": {"c": entry, "d": dead}})
        assert dvc_leftovers.stale(project) is not None
        dvc_leftovers.clear(project)
        assert dvc_leftovers.stale(project) is None
        other.kill()
    assert places.read_json(project / ".dvc/tmp/rwlock") == {"read": {"a": [entry]}, "write": {"c": entry}}


# A clock that goes back


@fault("the clock set back, while training or between two processes", "nothing: steps count, not times; every point stays once in MLflow")
def test_a_clock_that_is_set_back_changes_nothing(project: Path, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now, now_ns, back = time.time, time.time_ns, 0.0

    def set_back() -> None:
        nonlocal back
        back += 86_400.0

    monkeypatch.setattr(time, "time", lambda: now() - back)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() - int(back * 1e9))
    with monkeypatch.context() as patch:
        at_steps(patch, {55: set_back})
        assert run(project, interruption=StopAt(patch, 70)) == 143
    set_back()
    assert run(project) == 0
    assert result(project) == expected
    assert_everything_is_there_once(project)


# A store that cannot be written


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nobody write in a folder: permissions do not bind root, a mount does."""
    if os.geteuid() != 0:
        folder.chmod(0o555)
        try:
            yield
        finally:
            folder.chmod(0o755)
        return
    with mounted("--bind", str(folder), str(folder)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        yield


@fault(
    "the folder of MLflow's artifacts read-only",
    "training goes on and publishes; the checkpoints are kept and given to MLflow by the next command",
)
def test_artifacts_that_cannot_be_written_are_given_later(project: Path, expected: str, caplog: pytest.LogCaptureFixture) -> None:
    (project / "mlruns").mkdir()
    with read_only(project / "mlruns"), impatient():
        assert run(project) == 0
    assert "Read-only file system" in caplog.text or "Permission denied" in caplog.text
    assert "lacks" in caplog.text
    assert result(project) == expected
    assert run(project) == 0
    assert_everything_is_there_once(project)


@fault(
    "the work directory or `checkpoints/` read-only",
    "stops in one sentence that names the folder; when it can be written, the same command goes on",
)
@pytest.mark.parametrize("place", [".matwm", "checkpoints"])
def test_a_folder_that_cannot_be_written_stops_in_one_sentence(
    project: Path, expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(project)
    (project / place).mkdir(exist_ok=True)
    with read_only(project / place):
        assert stage.main(["s00"]) == 1
    said = capsys.readouterr().err
    assert str(project / place) in said
    assert "Read-only file system" in said or "Permission denied" in said
    assert "Traceback" not in said
    assert stage.main(["s00"]) == 0
    assert result(project) == expected


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_refusal_at_the_system_call_has_a_sentence(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The same where nobody may mount: `mkdir` refuses within the place."""
    monkeypatch.chdir(project)
    for place in (".matwm", "checkpoints/.s00.incoming"):
        make = os.mkdir

        def refusing(path: Any, *rest: Any, place: str = place, make: Any = make, **named: Any) -> None:
            if str(project / place) in str(path):
                raise OSError(code, os.strerror(code), str(path))
            make(path, *rest, **named)

        with monkeypatch.context() as patch:
            patch.setattr(os, "mkdir", refusing)
            assert stage.main(["s00"]) == 1, place
        said = capsys.readouterr().err
        assert os.strerror(code) in said
        assert str(project / place) in said
        assert "Traceback" not in said


REFUSALS = ("Read-only file system", "Permission denied", "readonly database", "unable to open database file")


def test_every_program_that_writes_ends_in_one_sentence_where_the_project_is_read_only(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    assert run(project) == 0
    lock = project / ".dvc/tmp/rwlock"
    lock.parent.mkdir(parents=True)
    lock.write_text('{"write": {"x": {"pid": 999999999, "cmd": ""}}, "read": {}}', encoding="utf-8")
    commands = [
        ["preset", "ci-tiny", "--force"],
        ["continue", "s00@40", "--until", "200"],
        ["prune", "--keep-last", "1", "--yes"],
        ["doctor", "--fix"],
        ["repro"],
        ["pin", "s00@40"],
        ["import"],
        ["report", "s00"],
        ["sweep", "add", "lr", "--seeds", "0-1", "--until", "80"],
    ]
    programs = [partial(cli.main, command) for command in commands]
    programs += [validate.main, partial(evaluate.main, ["s00"]), plot.main]
    write(project, changes={"retention": {"keep_last": 1}})
    with read_only(project):
        for program in programs:
            capsys.readouterr()
            assert program() == 1, program
            printed = "".join(capsys.readouterr())
            assert any(refusal in printed for refusal in REFUSALS), program
            assert "Traceback" not in printed, program


# Somebody who means harm


class Bomb:
    """What unpickling would run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.mark),)


def reseal(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest and seal it as its writer would."""
    data, _ = manifest.read(folder)
    change(data)
    data["seal"] = manifest.seal({key: value for key, value in data.items() if key != "seal"})
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").write_bytes(manifest.to_json(data))


def refused_at_every_door(folder: Path, tmp_path: Path, *, has_policy: bool = True) -> str:
    """Try to use a checkpoint in every way; return the sentence."""
    config = parse_config(tiny_params(segments=SEGMENTS))
    doors: list[Callable[[], object]] = [
        lambda: open_checkpoint(folder),
        lambda: publish(folder, tmp_path / "published" / folder.name),
        lambda: matwm.train(config, resume_from=folder, until=120, checkpoint_dir=tmp_path / "out"),
    ]
    if has_policy:
        doors.append(lambda: matwm.load_policy(folder, "agent_0"))
    sentences = []
    for door in doors:
        with pytest.raises(CheckpointError) as caught:
            door()
        sentences.append(str(caught.value))
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("published/*"))
    return sentences[0]


@fault("a malicious pickle in place of a checkpoint's file, its digest in the manifest", "refused: nothing is ever unpickled")
@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_pickle_is_never_executed(checkpoints: Path, tmp_path: Path, form: str) -> None:
    mark = tmp_path / "executed"
    for name in ("world_model.safetensors", "policies/agent_0.safetensors", "progress.json", "history/history.safetensors"):
        folder = shutil.copytree(checkpoints / step_name(80), tmp_path / name.replace("/", "-") / step_name(80))
        (folder / name).unlink()
        if form == "pickle":
            (folder / name).write_bytes(pickle.dumps(Bomb(mark)))
        else:
            torch.save({"weight": Bomb(mark)}, folder / name)
        data = (folder / name).read_bytes()
        facts = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        reseal(folder, lambda sealed, name=name, facts=facts: sealed["files"].update({name: facts}))
        with pytest.raises(CheckpointError, match=f"{name} cannot be read"):
            open_checkpoint(folder).policy("agent_0")
        with pytest.raises(CheckpointError) if "policies" not in name else contextlib.nullcontext():  # which training never reads
            matwm.train(parse_config(tiny_params()), resume_from=folder, until=81, checkpoint_dir=tmp_path / "out")
        assert not mark.exists()


@fault("an absolute path, `..` or a link in a checkpoint or its manifest", "refused: nothing outside is read or written")
@pytest.mark.parametrize(
    "name", ["/{tmp}/secret", "../../secret", "replay/../../../secret", "policies/../../../secret", "./agents.safetensors"]
)
def test_a_manifest_cannot_lead_outside(checkpoints: Path, tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes((checkpoints / step_name(80) / "agents.safetensors").read_bytes())
    name = name.replace("/{tmp}", str(tmp_path))
    folder = shutil.copytree(checkpoints / step_name(80), tmp_path / "in" / step_name(80))
    before = secret.stat()
    reseal(folder, lambda sealed: sealed["files"].update({name: sealed["files"].pop("agents.safetensors")}))
    assert "manifest.json is damaged: files lists or lacks" in refused_at_every_door(folder, tmp_path)
    after = secret.stat()
    assert (after.st_mtime_ns, after.st_nlink, after.st_size) == (before.st_mtime_ns, before.st_nlink, before.st_size)


@pytest.mark.parametrize(
    "what", ["agents.safetensors", "manifest.json", "policies/agent_0.safetensors", "policies", "replay", "replay-chunk"]
)
def test_a_link_in_a_checkpoint_is_refused(checkpoints: Path, tmp_path: Path, what: str) -> None:
    folder = shutil.copytree(checkpoints / step_name(80), tmp_path / "in" / step_name(80))
    path = next((folder / "replay").iterdir()) if what == "replay-chunk" else folder / what
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    assert "is a link" in refused_at_every_door(folder, tmp_path, has_policy="policies" in what or what == "manifest.json")


def test_the_readme_has_exactly_these_faults() -> None:
    assert table_in(PAGE.read_text(encoding="utf-8")) == table(ROWS), "python -m tests.pipeline.faults_table --write"


# A commit that git does not tell


@fault(
    "a checkout that belongs to another user (a container), no `.git`, or no commit yet",
    "`matwm validate`, `matwm doctor` and the start of training say what git says and what to do; runs are recorded without a commit",
)
def test_who_trains_without_a_commit_is_told_why(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    def warned() -> str:
        (sentence,) = validate.foresee(project, validate.validate(project)).warnings
        (finding,) = [one.finding for one in doctor.examine(project) if one.check == "repository"]
        assert sentence == f"runs are recorded without a commit: {finding.what}: {finding.remedy}"
        return sentence

    begin = 'run "git init && git add -A && git commit -m begin"'
    assert warned() == f"runs are recorded without a commit: {project} is no git repository, which DVC needs: {begin}"
    subprocess.run(["git", "init", "-q", "."], cwd=project, check=True)
    assert warned().endswith(f'{project} has no commit yet: run "git add -A && git commit -m begin"')
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    write(project, {"s00": {"from": ROOT, "until": 1}})
    assert run(project) == 0
    why = f"git says of {project}: fatal: detected dubious ownership in repository at '{project}': run \"git config --global --add safe"
    assert why in warned()
    assert f"segment s00 is recorded without a commit: {why}" in caplog.text


# An environment of one's own


GUESTS = "tests.matwm.envs.guests"


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in which an environment notes the processes that it starts."""
    path = tmp_path / "notes"
    path.touch()
    monkeypatch.setenv("NOTES", str(path))
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    return path


def write_own(project: Path, name: str, **env: Any) -> None:
    params = tiny_params(segments=SEGMENTS)
    params["env"] = {"family": "pettingzoo", "name": f"{GUESTS}:{name}", "options": {}, **env}
    (project / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def in_a_process(project: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=project, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


@fault(
    "`NUMERICS` raised over finished training",
    "`matwm repro` and `dvc repro` refuse to train it again before anything is removed, and so does a stage called alone, whose outputs "
    "`dvc checkout` brings back; `matwm continue` branches off it",
)
def test_a_stage_refuses_what_another_numerics_has_trained(copied: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(copied.path / "checkpoints/s01")  # as DVC does before it calls a stage
    record = (copied.path / "metrics/s01/run.json").read_bytes()
    monkeypatch.setattr("pipeline.catalog.numerics.NUMERICS", NUMERICS + 1)
    monkeypatch.setenv("DVC_STAGE", "train@s01")
    with pytest.raises(ConfigError, match=r"^segment s01 \(to step 60\) is trained by NUMERICS"):
        stage.train(copied.path, "s01", Interruption())
    assert (copied.path / "metrics/s01/run.json").read_bytes() == record
    copied.dvc("checkout", "train@s01")
    assert copied.fingerprint_at(60, "s01")


@fault(
    "an environment of your own that owns processes, ports or threads, or changes its process (folder, signals, random numbers, settings)",
    "closed before the next is made, when it fails, at a signal and at the end; what it changes is there only while it is called",
)
def test_an_environment_leaves_nothing_behind(project: Path, notes: Path) -> None:
    write_own(project, "SharesOutput")
    for stage_name in ("train", "evaluate"):
        assert in_a_process(project, f"pipeline.{stage_name}", "s00")[0] == 0
    assert len(notes.read_text(encoding="utf-8").split()) > 30
    until(lambda: not alive(notes))
    notes.write_text("", encoding="utf-8")
    write_own(project, "LeavesThread")
    code, said = in_a_process(project, "pipeline.train", "s00")
    assert code == 0
    assert "threads are still running that nobody has ended, perhaps of the environment: Thread-" in said


@fault(
    "… that does not come back from a reset, step, render or close",
    "stops in one sentence that names it, after `env.seconds_per_call` (while it is validated, after a minute), with exit code 1; the same "
    "command goes on from the last good checkpoint",
)
def test_a_call_that_does_not_come_back_stops_training(project: Path, notes: Path) -> None:
    write_own(project, "HangsOnce", seconds_per_call=2.0)
    notes.write_text("hang", encoding="utf-8")
    code, said = in_a_process(project, "pipeline.train", "s00")
    assert code == 1
    assert f"step() of {GUESTS}:HangsOnce has not come back after 2 s: if it needs longer, raise env.seconds_per_call" in said
    assert "the last good checkpoint is of step 40; once the cause is mended, the same command goes on" in said
    (info,) = tracking.list_runs()
    assert info.status == "FAILED"
    notes.write_text("", encoding="utf-8")
    assert in_a_process(project, "pipeline.train", "s00")[0] == 0
    trainer = build_trainer(parse_config(yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))))
    for _ in range(120):
        trainer.step()
    assert result(project) == fingerprint_of(trainer)


@fault(
    "a trial of a sweep that diverges",
    "the others are trained and evaluated; the stage exits with code 1 and names the trial, which `skip` in the sweep leaves out; the next "
    "call leaves the finished ones alone",
)
def test_a_trial_that_diverges_keeps_no_other_from_being_trained(project: Path) -> None:
    rate = "world_model.learning_rate"
    sweep: dict[str, Any] = {"from": ROOT, "until": 60, "trials": [{rate: 1e30}, {rate: 1e-3}]}

    def swept() -> tuple[int, str]:
        (project / "params.yaml").write_text(yaml.safe_dump({**tiny_params(segments=SEGMENTS), "sweeps": {"x": sweep}}), encoding="utf-8")
        return in_a_process(project, "pipeline.sweep", "x")

    code, said = swept()
    assert code == 1
    assert "has diverged" in said
    assert "trial x/learning_rate=1e+30 failed (exit code 1; its own sentence stands above)" in said
    assert "skip: [learning_rate=1e+30] in sweeps.x" in said
    assert (project / "metrics/x/learning_rate=0.001/evaluation.json").is_file()
    sweep["skip"] = ["learning_rate=1e+30"]
    code, said = swept()
    assert (code, said) == (0, "sweep x: 1 of 1 trials are finished\n")
