"""The display, without a terminal and with a clock of our own."""

import io
import os
import pty
import select
import subprocess
import sys

import pytest

from pipeline.training.progress import Display
from tests.pipeline.projects import SOURCE


def shown(monkeypatch: pytest.MonkeyPatch, paces: list[tuple[int, float]], until: int) -> tuple[Display, str]:
    """Train (steps, seconds each) one after the other, and return the display and what it wrote."""
    clock, stream = [100.0], io.StringIO()
    monkeypatch.setattr("pipeline.training.progress.time.monotonic", lambda: clock[0])
    with Display("s00", until, line_seconds=1e9, stream=stream) as display:
        for steps, seconds in paces:
            for _ in range(steps):
                clock[0] += seconds
                display.advance(display.step + 1)
        display.returns({"agent": -3.25}, 20)
        display.saved(display.step)
    return display, stream.getvalue()


def test_the_rate_is_that_of_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast warm-up would make the time that is left look like a fraction of what it is."""
    display, said = shown(monkeypatch, [(1000, 0.001), (2000, 0.1)], until=4000)
    assert display.rate == pytest.approx(10.0, rel=0.01)
    assert said == "s00 step 3000/4000 (75%), 10.0 steps/s, 0:01:40 left, return agent -3.2 (20 episodes), checkpoint 3000\n"


def test_slow_steps_have_a_rate_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, [(1, 5.0)], until=100)[0].rate == pytest.approx(0.2)
    assert shown(monkeypatch, [(70, 5.0)], until=100)[0].rate == pytest.approx(0.2)


def test_steps_of_an_earlier_process_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("pipeline.training.progress.time.monotonic", lambda: clock[0])
    display = Display("s00", 1000, line_seconds=1e9, stream=io.StringIO())
    display.begin(500)
    clock[0] = 2.0
    display.advance(510)
    assert display.rate == pytest.approx(5.0)


def test_a_terminal_of_80_columns_shows_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "80")
    clock, stream = [100.0], io.StringIO()
    monkeypatch.setattr("pipeline.training.progress.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(stream, "isatty", lambda: True)
    with Display("s00", 100000, line_seconds=1.0, stream=stream) as display:
        display.begin(40000)
        clock[0] += 1600.0
        display.returns({"adversary": 10.0, "agent": -23.5}, 1)
        display.saved(55000)
        display.advance(56000)
    for part in ("s00", "56%", "56000/100000", "10.0/s", "1:13:20", "checkpoint 55000", "return adversary 10.0, agent -23.5 (1 episode)"):
        assert part in stream.getvalue()


UNDER_A_TERMINAL = """
import fcntl, signal, sys, termios, time
fcntl.ioctl(0, termios.TIOCSCTTY)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored
from pipeline.process import Interruption
from pipeline.training.progress import Display
with Interruption() as interruption, interruption.deferred(), Display("s00", 10, line_seconds=0.1) as display:
    display.advance(1)
    sys.stdout.write("ready\\n")
    sys.stdout.flush()
    while interruption.signal is None:
        time.sleep(0.01)
    display.advance(2)
sys.stderr.write("interrupted\\n")
sys.stderr.flush()
sys.exit(interruption.exit_code)
"""


def test_a_closed_terminal_is_a_signal_like_others_and_no_failure_of_writing() -> None:
    terminal, its_end = pty.openpty()
    command = [sys.executable, "-c", UNDER_A_TERMINAL]
    child = subprocess.Popen(command, cwd=SOURCE, stdin=its_end, stdout=its_end, stderr=its_end, start_new_session=True)
    os.close(its_end)
    shown = b""
    try:
        while b"ready" not in shown:
            assert select.select([terminal], [], [], 300)[0], shown
            shown += os.read(terminal, 65536)
        os.close(terminal)
        assert child.wait(timeout=300) == 129, shown
    finally:
        child.kill()
