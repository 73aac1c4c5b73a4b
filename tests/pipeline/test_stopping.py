"""A time to stop at, SIGUSR1, and the command that is told how a training ended: in this process, with real signals."""

import argparse
import json
import logging
import shutil
import signal
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from matwm.readings import NonFiniteLossError
from matwm.trainer import Trainer
from pipeline import notify, stopping, tracking
from pipeline.process import Interruption
from pipeline.train import train
from tests.pipeline.projects import SOURCE, tiny_params

S00 = {"s00": {"from": "checkpoints/root", "until": 80}}


@pytest.fixture
def project(root: Path) -> Path:
    """A project in which nothing is trained."""
    shutil.copytree(SOURCE / "checkpoints/root", root / "checkpoints/root")
    write(root)
    return root


def write(project: Path, changes: dict[str, Any] | None = None) -> None:
    (project / "params.yaml").write_text(yaml.safe_dump(tiny_params(changes, S00)), encoding="utf-8")


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    stopping.declare(parser)
    return parser.parse_args(words)


def published(project: Path) -> bool:
    return (project / "checkpoints/s00").is_dir()


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("2h", 7200), ("1h30min", 5400), ("0.5h", 1800), ("15m", 900), ("1d", 86400)])
def test_durations(text: str, seconds: float) -> None:
    assert parsed("--max-time", text).max_time == seconds


@pytest.mark.parametrize("words", [("--max-time", "2"), ("--max-time", "2h x"), ("--stop-at", "24:00"), ("--stop-at", "9")])
def test_what_is_no_time_is_refused(words: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(*words)
    assert words[1] in capsys.readouterr().err


def test_a_time_of_day_is_the_next_one() -> None:
    soon, past = datetime.now() + timedelta(minutes=5), datetime.now() - timedelta(minutes=5)
    assert 200 < parsed("--stop-at", f"{soon:%H:%M}").stop_at - time.time() <= 300
    assert 23 * 3600 < parsed("--stop-at", f"{past:%H:%M}").stop_at - time.time() < 24 * 3600


def test_the_earlier_moment_holds_and_leaves_no_trace(capsys: pytest.CaptureFixture[str]) -> None:
    soon = datetime.now() + timedelta(hours=2)
    with stopping.told(parsed("--max-time", "1h", "--stop-at", f"{soon:%H:%M}")):
        left = stopping.seconds_left()
        assert left is not None
        assert 3500 < left <= 3600
    assert stopping.seconds_left() is None
    assert capsys.readouterr().err == ""


def test_when_the_time_is_over_training_saves_and_the_same_command_goes_on(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    step, began = Trainer.step, []

    def slow(trainer: Trainer) -> None:  # The time is over within training, on a slow machine too.
        if not began:
            began.append(time.time())
            interruption._stop_after(0)
        step(trainer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", slow)
        with Interruption() as interruption:
            assert train(project, "s00", interruption) == 128 + signal.SIGUSR1
    assert not published(project)
    assert "s00 is interrupted; the last good checkpoint is of step 1: the same command goes on from there" in capsys.readouterr().err
    with Interruption() as interruption:
        assert train(project, "s00", interruption) == 0
    assert published(project)
    (run,) = tracking.list_runs()
    assert run.status == "FINISHED"


def test_the_time_reaches_a_process_by_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(stopping.VARIABLE, repr(time.time() + 0.05))
    with Interruption() as interruption, interruption.deferred():
        end = time.monotonic() + 60
        while interruption.signal is None and time.monotonic() < end:
            time.sleep(0.01)
        assert interruption.signal == signal.SIGUSR1


def test_no_signal_comes_when_the_time_is_over_later(monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: came.append(number))
    try:
        monkeypatch.setenv(stopping.VARIABLE, repr(time.time() + 0.2))
        with Interruption():
            pass
        time.sleep(0.4)
        assert came == []
    finally:
        signal.signal(signal.SIGUSR1, before)


# ---- tracking.notify


ERROR = NonFiniteLossError("world_model/total is nan at step 41")


def told(project: Path) -> list[dict[str, Any]]:
    file = project / "told"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def command(project: Path) -> dict[str, Any]:
    return {"tracking": {"notify": f"cat >> '{project}/told'; echo >> '{project}/told'"}}


def test_a_finished_training_is_told_once(project: Path) -> None:
    write(project, command(project))
    assert train(project, "s00", Interruption()) == 0
    (run,) = tracking.list_runs()
    expected = {"event": "finished", "segment": "s00", "run_id": run.run_id, "experiment": "matwm", "step": 80, "until": 80}
    assert told(project) == [{**expected, "sentence": None}]


def test_a_training_that_diverges_is_told_with_the_sentence(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project, command(project))

    def diverge(_: Trainer) -> None:
        raise ERROR

    monkeypatch.setattr(Trainer, "step", diverge)
    assert train(project, "s00", Interruption()) == 1
    (one,) = told(project)
    assert (one["event"], one["sentence"]) == ("diverged", f"segment s00: {ERROR}; there is no checkpoint yet")


def test_a_failed_training_is_told_and_its_error_stays(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project, command(project))
    monkeypatch.setattr(Trainer, "step", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(project, "s00", Interruption())
    assert [(one["event"], one["sentence"]) for one in told(project)] == [("failed", "division by zero")]


def test_secrets_stay_here_and_a_bad_command_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notify.notify(f"cat > '{tmp_path}/told'", "failed", {"sentence": "MLflow at https://me:hunter2@example.org does not answer"})
    assert "hunter2" not in (tmp_path / "told").read_text(encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        notify.notify("echo no such room >&2; exit 3", "finished", {})
    assert caplog.messages == ["tracking.notify: the command exited with 3: no such room"]
