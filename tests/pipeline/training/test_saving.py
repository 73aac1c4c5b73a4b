"""Saving behind training: one at a time, exact, and what happens when the disk refuses."""

import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from matwm.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from matwm.manifest import ROOT
from matwm.params_yaml import parse_config
from matwm.store import LocalStore
from matwm.trainer import Trainer, build_trainer
from pipeline.training import saving
from pipeline.training.saving import Saver, UnsavedError
from tests.matwm.tiny import make_trainer, run, tiny_config
from tests.pipeline.projects import SOURCE, tiny_params

RING = tiny_config({"replay.capacity": 40, "replay.chunk_rows": 8})
LARGEST_FILE = 10_000


@contextmanager
def full_disk() -> Iterator[Callable[[], None]]:
    """Let no file grow beyond a few kilobytes: the larger ones of a checkpoint fail. Yields what frees space."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def free() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, before[1]))
    try:
        yield free
    finally:
        free()


class Gate(LocalStore):
    """A store that waits before it writes until it is told to go on."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.go, self.waiting, self.num_inside, self.most_inside = threading.Event(), threading.Event(), 0, 0

    def save(self, *arguments, **named) -> Checkpoint:
        self.num_inside += 1
        self.most_inside = max(self.most_inside, self.num_inside)
        self.waiting.set()
        assert self.go.wait(300)
        try:
            return super().save(*arguments, **named)
        finally:
            self.num_inside -= 1


def make_saver(store: LocalStore, **named) -> tuple[Saver, list[int]]:
    saved: list[int] = []
    return Saver(store, ROOT, lambda checkpoint, seconds: saved.append(checkpoint.step), **named), saved


def digests_of_a_calm_run(folder: Path, steps: list[int]) -> dict[int, str]:
    trainer, store = make_trainer(None, RING), LocalStore(folder)
    return {step: run(trainer, step - trainer.env_step).save(store, ROOT).digest for step in steps}


@pytest.fixture
def trainer() -> Trainer:
    return make_trainer(None, RING)


@pytest.fixture
def project(root: Path) -> Path:
    """A project without git and DVC: the stage needs neither."""
    shutil.copytree(SOURCE / "checkpoints/root", root / "checkpoints/root")
    return root


@pytest.mark.parametrize("interval", [1, 7])
def test_every_checkpoint_is_what_a_save_at_once_would_have_written(tmp_path: Path, trainer: Trainer, interval: int) -> None:
    """Training goes on behind each save; the ring of 40 rows goes round three times."""
    steps = list(range(1, 13)) if interval == 1 else list(range(7, 106, 7))
    saver, saved = make_saver(LocalStore(tmp_path / "behind"))
    with saver:
        for step in steps:
            run(trainer, step - trainer.env_step)
            saver.save(trainer.snapshot)
    store = LocalStore(tmp_path / "behind")
    assert saved == store.steps() == steps
    assert {step: store.open(step).digest for step in steps} == digests_of_a_calm_run(tmp_path / "calm", steps)


def test_training_does_not_wait_for_a_save_but_a_second_save_does(tmp_path: Path, trainer: Trainer) -> None:
    store = Gate(tmp_path)
    saver, saved = make_saver(store)
    saver.save(run(trainer, 20).snapshot)
    assert store.waiting.wait(300)
    run(trainer, 60)  # the ring has gone round before a chunk is written
    assert (trainer.env_step, saved, store.steps()) == (80, [], [])
    threading.Timer(0.3, store.go.set).start()
    saver.save(trainer.snapshot)
    assert saved == [20], "the second snapshot is taken when the first is on the disk"
    saver.wait()
    assert (saved, store.most_inside) == ([20, 80], 1)
    assert {step: store.open(step).digest for step in (20, 80)} == digests_of_a_calm_run(tmp_path / "calm", [20, 80])


def test_leaving_waits_for_the_save_in_flight_also_when_training_has_failed(tmp_path: Path, trainer: Trainer) -> None:
    store = Gate(tmp_path)
    saver, saved = make_saver(store)
    with pytest.raises(ZeroDivisionError), saver:
        saver.save(run(trainer, 3).snapshot)
        threading.Timer(0.2, store.go.set).start()
        raise ZeroDivisionError
    assert saved == store.steps() == [3]


def test_a_save_that_the_disk_refuses_is_tried_again_while_training_goes_on(
    tmp_path: Path, trainer: Trainer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    monkeypatch.setattr(saving, "FIRST_PAUSE_SECONDS", 0.05)
    store = LocalStore(tmp_path / "store")
    tries, is_free = [], threading.Event()

    def prepare() -> None:
        tries.append(None)
        assert len(tries) <= 2 or is_free.wait(300)

    saver, saved = make_saver(store, prepare=prepare)
    with full_disk() as free:
        saver.save(run(trainer, 20).snapshot)
        run(trainer, 60)
        wait_until(lambda: len(tries) > 2)
        assert (saved, store.steps(), list(store.folder.iterdir())) == ([], [], []), "nothing partial is left"
        free()
        is_free.set()
        wait_until(lambda: saved)
    saver.wait()
    assert store.open(20).digest == digests_of_a_calm_run(tmp_path / "calm", [20])[20], "the same snapshot, whatever came since"
    (first, second, *_) = [record for record in caplog.records if "cannot be saved" in record.message]
    assert first.levelname == "ERROR"
    assert (
        f"the checkpoint of step 20 cannot be saved in {store.folder} (File too large). Training goes on; it is tried again"
        in first.message
    )
    assert "for the last time when the next one is due" in second.message


def test_what_cannot_be_saved_until_the_next_save_is_due_stops_with_the_way_out(tmp_path: Path, trainer: Trainer) -> None:
    store = LocalStore(tmp_path / "store")
    saver, saved = make_saver(store)
    saver.save(run(trainer, 10).snapshot)
    saver.wait()
    with full_disk():
        saver.save(run(trainer, 10).snapshot)
        run(trainer, 10)
        with pytest.raises(UnsavedError) as caught:
            saver.save(trainer.snapshot)
    assert str(caught.value) == (
        f"the checkpoint of step 20 cannot be saved in {store.folder} (File too large): free space there and give the same command again"
    )
    assert (saved, store.steps()) == ([10], [10])
    assert [path.name for path in store.folder.iterdir()] == ["step_000000010"]
    saver.wait()
    saver.save(trainer.snapshot)
    saver.wait()
    assert saved == [10, 30], "told once, it is not told again"


def test_the_last_try_is_made_after_the_next_save_is_due(
    tmp_path: Path, trainer: Trainer, caplog: pytest.LogCaptureFixture, wait_until: Callable[..., None]
) -> None:
    """However long the pause: what has been freed in the meantime counts."""
    saver, saved = make_saver(LocalStore(tmp_path))
    with full_disk() as free, pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "FIRST_PAUSE_SECONDS", 1000.0)
        saver.save(run(trainer, 3).snapshot)
        wait_until(lambda: "cannot be saved" in caplog.text)
        free()
        saver.wait()
    assert saved == [3]


def test_records_that_cannot_be_written_hold_a_checkpoint_back(tmp_path: Path, trainer: Trainer) -> None:
    def refuse() -> None:
        raise OSError(28, "No space left on device")

    saver, saved = make_saver(LocalStore(tmp_path), prepare=refuse)
    saver.save(run(trainer, 3).snapshot)
    with pytest.raises(UnsavedError, match=r"step 3 cannot be saved in .* \(No space left on device\): free space there"):
        saver.wait()
    assert (saved, LocalStore(tmp_path).steps()) == ([], [])


def test_what_else_goes_wrong_in_the_thread_is_raised_where_training_looks(
    tmp_path: Path, trainer: Trainer, caplog: pytest.LogCaptureFixture, wait_until: Callable[..., None]
) -> None:
    def broken(checkpoint: Checkpoint, seconds: float) -> None:
        raise RuntimeError("the upload queue is gone")

    saver = Saver(LocalStore(tmp_path), ROOT, broken)
    saver.check()
    saver.save(run(trainer, 3).snapshot)
    wait_until(lambda: saver._error is not None)
    with pytest.raises(RuntimeError, match="the upload queue is gone"):
        saver.check()
    saver.save(run(trainer, 3).snapshot)
    with pytest.raises(ZeroDivisionError), saver:
        raise ZeroDivisionError
    assert "the upload queue is gone" in caplog.text, "what comes second is told, not raised"


def test_a_sound_checkpoint_with_other_contents_is_no_reason_to_try_again(tmp_path: Path, trainer: Trainer) -> None:
    store = LocalStore(tmp_path)
    run(make_trainer(None, tiny_config({"seed": 4})), 3).save(store, ROOT)
    saver, saved = make_saver(store)
    saver.save(run(trainer, 3).snapshot)
    with pytest.raises(CheckpointError, match="sound checkpoint with other contents"):
        saver.wait()
    assert saved == []


def test_a_snapshot_is_let_go_of_when_it_is_saved(tmp_path: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else `add` would copy chunks for nobody."""
    saver, _ = make_saver(LocalStore(tmp_path))
    saver.save(run(trainer, 40).snapshot)
    saver.wait()
    monkeypatch.setattr("matwm.replay._copies", pytest.fail)
    run(trainer, 60)


# ---- the whole stage


FULL = """
set -u
cd "$1"
mkdir .matwm
mount -t tmpfs -o size=500k tmpfs .matwm || exit 77
"$2" -m pipeline.train s00 2>first.txt
echo "$?" >first.code
find .matwm -path '*saving*' -o -name '*.incoming' -o -name '.*.json.*' >first.partial
ls .matwm/work/*/checkpoints >first.steps
"$2" -c "import sqlite3; print(*sqlite3.connect('mlflow.db').execute('select status from runs').fetchall()[0])" >first.status
mount -o remount,size=50m .matwm
exec "$2" -m pipeline.train s00
"""


def test_a_full_disk_stops_the_segment_cleanly_and_the_same_command_goes_on_later(project: Path, tmp_path: Path) -> None:
    """A real one: the work directory is a file system with room for one checkpoint, seen by these processes only."""
    segments = {"s00": {"from": "checkpoints/root", "until": 160}}
    (project / "params.yaml").write_text(yaml.safe_dump(tiny_params({}, segments)), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    command = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--mount", "sh", "-c", FULL, "sh"]
    done = subprocess.run(
        [*command, str(project), sys.executable], env=environment, capture_output=True, text=True, check=False, timeout=1800
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"this machine lets nobody mount a small file system: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    said, code, partial, steps, status = (
        (project / f"first.{name}").read_text(encoding="utf-8") for name in ("txt", "code", "partial", "steps", "status")
    )
    assert (code, partial, steps, status) == ("1\n", "", "step_000000040\n", "FAILED\n")
    assert said.count("Traceback") == 0, said
    assert "the checkpoint of step 80 cannot be saved in" in said
    assert "(No space left on device). Training goes on; it is tried again in 1 s" in said
    assert said.splitlines()[-1].endswith(
        "(No space left on device): free space there and give the same command again; the last good checkpoint is of step 40"
    )
    trainer = build_trainer(parse_config(tiny_params({}, segments)))
    expected = run(trainer, 160).save(LocalStore(tmp_path / "calm"), ROOT)
    assert open_checkpoint(project / "checkpoints/s00/step_000000160").digest == expected.digest
