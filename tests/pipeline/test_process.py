"""A signal that comes before training has anything to save ends the process at once and leaves nothing behind."""

import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import tracking
from pipeline import train as stage
from pipeline.process import Interruption, allowance
from tests.pipeline.projects import SOURCE, tiny_params

ROOT = "checkpoints/root"
SET_UP = [
    "pipeline.tracking.configure",
    "pipeline.validate.validate",
    "pipeline.job.open_start",
    "pipeline.source_code.code_digest",
    "pipeline.training.session.survey",
    "pipeline.training.session.recover",
    "pipeline.tracking.tracker.Tracker.start",
    "pipeline.tracking.tracker.sync",
    "pipeline.training.session.build_trainer",
    "matwm.trainer.Trainer.resume",
    "matwm.replay.Replay.load_state_dict",
]
"""What happens before the first step, in order; some of it takes minutes when a checkpoint is large or a server slow."""


@pytest.fixture
def project(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(SOURCE / ROOT, root / ROOT)
    (root / "params.yaml").write_text(yaml.safe_dump(tiny_params(segments={"s00": {"from": ROOT, "until": 60}})), encoding="utf-8")
    monkeypatch.chdir(root)
    return root


def interrupted_in(place: str, number: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the stage, with a signal in the midst of a function; return the exit code."""
    from pkgutil import resolve_name

    original = resolve_name(place)

    def with_signal(*arguments: Any, **named: Any) -> Any:
        signal.raise_signal(number)
        return original(*arguments, **named)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as caught:
        patch.setattr(place, with_signal)
        sys.exit(stage.main(["s00"]))
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_a_signal_while_setting_up_ends_the_process_and_the_next_one_trains(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert interrupted_in("matwm.collector.Collector.step", signal.SIGTERM, monkeypatch) == 143, "a step is trained: it is kept"
    for place in SET_UP[:5] + SET_UP[6:]:
        for number in (signal.SIGTERM, signal.SIGINT):
            assert interrupted_in(place, number, monkeypatch) == 128 + number, place
            assert [run.status for run in tracking.list_runs()] == ["KILLED"], place
    assert not (project / "checkpoints/s00").exists()
    assert not (project / "metrics").exists()
    assert [path for path in project.rglob(".*") if path.name != ".matwm"] == []
    assert stage.main(["s00"]) == 0
    assert [run.status for run in tracking.list_runs()] == ["FINISHED"]


def test_a_signal_before_the_run_is_made_leaves_no_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in SET_UP[:7]:
        assert interrupted_in(place, signal.SIGTERM, monkeypatch) == 143, place
        assert tracking.list_runs() == [], place
    assert not list(project.glob(".matwm/work/*/checkpoints/*"))


def test_a_signal_that_a_library_swallows_still_stops_what_comes_next() -> None:
    with Interruption() as interruption:
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(SystemExit) as caught, interruption.deferred():
            pytest.fail("the block began")
        assert caught.value.code == 143


def test_a_process_that_swallows_its_signal_ends_all_the_same() -> None:
    """Its patience ends here as soon as the signal is swallowed."""
    program = """
import signal, threading, time, types
from pipeline import process
is_swallowed, patience = threading.Event(), []
process.time = types.SimpleNamespace(sleep=lambda seconds: patience.append(seconds) or is_swallowed.wait())
with process.Interruption():
    try:
        signal.raise_signal(signal.SIGTERM)
    except BaseException:
        while not patience:
            time.sleep(0.001)
        print("swallowed", *patience, flush=True)
    is_swallowed.set()
    time.sleep(3600)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600, check=False, cwd=SOURCE)
    assert (done.returncode, done.stdout) == (143, "swallowed 5.0\n")


def test_what_can_be_saved_is_waited_for() -> None:
    with Interruption() as interruption, interruption.deferred():
        with pytest.raises(SystemExit) as caught, interruption.prompt():
            signal.raise_signal(signal.SIGINT)
        assert caught.value.code == 130
        signal.raise_signal(signal.SIGTERM)
        assert interruption.signal == signal.SIGINT, "the first counts"


HALTS_WHEN_TORCH_IS_HALF_IMPORTED = """
import os, runpy, signal, sys
class Finder:
    def find_spec(name, *_):
        if name == "torch.nn":
            os.kill(os.getpid(), signal.SIGSTOP)
sys.meta_path.insert(0, Finder)
sys.argv = ["", "s00"]
runpy.run_module("pipeline.train", run_name="__main__", alter_sys=True)
"""


def test_a_process_in_the_midst_of_its_imports_ends_at_a_signal(project: Path) -> None:
    command = [sys.executable, "-c", HALTS_WHEN_TORCH_IS_HALF_IMPORTED]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    process = subprocess.Popen(command, cwd=project, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
    assert "libtorch" in Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8")
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    _, said = process.communicate(timeout=600)
    assert (process.returncode, said) == (143, "")
    assert not (project / ".matwm").exists()


def test_who_waits_for_others_waits_less_once_a_signal_has_come() -> None:
    with Interruption() as interruption, interruption.deferred():
        left = allowance(interruption, 8.0)
        assert left() == math.inf
        signal.raise_signal(signal.SIGTERM)
        first = left()
        assert left() <= first <= 8.0


RUNNER = """
import os, sys
from pipeline.process import run_to_the_end

sys.exit(run_to_the_end([sys.executable, "-c", sys.argv[1]], dict(os.environ)))
"""


def test_a_program_in_our_place_gets_our_signals_and_gives_us_its_exit_code() -> None:
    quick = subprocess.run([sys.executable, "-c", RUNNER, "raise SystemExit(7)"], check=False)
    assert quick.returncode == 7
    waiting = "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(9))\nprint('here', flush=True)\ntime.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", RUNNER, waiting], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 9
