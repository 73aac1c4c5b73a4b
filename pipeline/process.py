"""Makes a training process end well: with its parent, on a signal, and never two of them for one segment."""

import _thread
import contextlib
import ctypes
import errno
import fcntl
import math
import os
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from pipeline.project import ProjectError
from pipeline.stopping import seconds_left

PR_SET_PDEATHSIG = 1
OWNED_NOTE = "MATWM_OWNED_NOTE"
"""The variable with the path of a file that a stage creates where another process owns its run: DVC passes no exit code on."""
PATIENCE_SECONDS = 5.0
"""For a process that has nothing to save to end after a signal."""


def follow_parent(*, is_asked: bool = False) -> None:
    """Ask for SIGTERM when DVC dies: killed alone, it would leave a trainer behind, and its next run would start a twin.

    Only under DVC, or where `is_asked`: started by hand, training may outlive its shell.
    """
    if not (is_asked or "DVC_STAGE" in os.environ) or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    started_by = os.environ.get("MATWM_PARENT")  # from bin/python, which was here first
    if started_by and int(started_by) != os.getppid():
        os.kill(os.getpid(), signal.SIGTERM)


def end_with(parent: int) -> None:
    """Ask to be killed when this parent dies: for a helper that has nothing to finish and must never be left behind."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def run_to_the_end(command: list[str], environment: Mapping[str, str]) -> int:
    """Run a program in our place and return its exit code: it gets our signals, and ends with us."""
    ours = os.getpid()

    def die_with_us() -> None:
        if sys.platform.startswith("linux"):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != ours:
                os.kill(os.getpid(), signal.SIGTERM)

    started: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and _is_in_foreground():  # Ctrl-C is sent to both.
            return
        number = signal.SIGTERM if number == signal.SIGUSR1 else number  # DVC knows no SIGUSR1 and would die of it.
        early.append(number)
        for process in started:
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)}
    try:
        started.append(subprocess.Popen(command, env=environment, preexec_fn=die_with_us))  # noqa: PLW1509  # No other thread runs.
        for number in early:
            started[0].send_signal(number)
        code = started[0].wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def _is_in_foreground() -> bool:
    """Return whether keys typed at the terminal send signals to this process and its children."""
    try:
        with Path("/dev/tty").open("rb") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


class Interruption:
    """Ends the process at a signal: at once while there is nothing to save, later when the training loop looks.

    Signals after the first change nothing: what it set off (saving, telling MLflow) takes seconds and must not be cut short.
    "At once" is an exception in the midst of whatever runs, so that it can tidy up; where a library swallows it, the next block
    of `deferred` or `prompt` does not begin, and after `PATIENCE_SECONDS` the process ends all the same.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._is_deferred = self._has_come = self._is_over = False
        self._previous: dict[int, Any] = {}
        self._ended = threading.Event()

    def __enter__(self) -> "Interruption":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):  # Slurm sends SIGUSR1.
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                self._previous[number] = signal.signal(number, self._note)
        if (seconds := seconds_left()) is not None:
            threading.Thread(target=self._stop_after, args=[seconds], name="stop at", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._ended.set()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Only take note of signals: the block looks at `signal` when it can stop."""
        with self._deferring(is_deferred=True):
            yield

    @contextlib.contextmanager
    def prompt(self) -> Iterator[None]:
        """Inside `deferred`, end at a signal after all: the block has nothing to save, and may take long."""
        with self._deferring(is_deferred=False):
            yield

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that a signal ended: DVC must not take the stage for complete."""
        assert self.signal is not None
        return 128 + self.signal

    @contextlib.contextmanager
    def _deferring(self, *, is_deferred: bool) -> Iterator[None]:
        before = self._is_deferred
        self._is_deferred = is_deferred
        try:
            if self._has_come and not (before and is_deferred):
                raise SystemExit(self.exit_code)
            yield
        finally:
            self._is_deferred = before

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP:
            leave_closed_terminal()
        if self.signal is None:
            self.signal, self._has_come = number, True
            if not self._is_deferred:
                _thread.start_new_thread(self._insist, ())  # not threading's: it takes locks that this thread may hold
                raise SystemExit(self.exit_code)

    def _stop_after(self, seconds: float) -> None:
        if not self._ended.wait(max(0.0, seconds)):
            os.kill(os.getpid(), signal.SIGUSR1)

    def _insist(self) -> None:
        time.sleep(PATIENCE_SECONDS)
        if not (self._is_deferred or self._is_over):
            os._exit(self.exit_code)


def allowance(interruption: Interruption, seconds: float) -> Callable[[], float]:
    """Return what says how long may still be waited: for ever until a signal is seen, `seconds` in all from then on."""
    end: float | None = None

    def left() -> float:
        nonlocal end
        if end is None and interruption.signal is not None:
            end = time.monotonic() + seconds
        return math.inf if end is None else end - time.monotonic()

    return left


def leave(code: int) -> NoReturn:
    """End the process, also where threads that an environment has left would keep it for ever."""
    end = time.monotonic() + PATIENCE_SECONDS
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread() and not thread.daemon]
    for thread in others:
        thread.join(max(0.0, end - time.monotonic()))
    if left := [thread.name for thread in others if thread.is_alive()]:
        sys.stderr.write(f"threads are still running that nobody has ended, perhaps of the environment: {', '.join(left)}\n")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def leave_closed_terminal() -> None:
    """Send to nowhere what is meant for a terminal that is closed: a line that cannot be shown must not end what it tells of."""
    for descriptor in (1, 2):
        try:
            termios.tcgetattr(descriptor)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                with Path(os.devnull).open("wb") as nothing:
                    os.dup2(nothing.fileno(), descriptor)


@contextlib.contextmanager
def exclusive(path: Path, what: str, wait_seconds: float = 60.0) -> Iterator[None]:
    """Hold a lock file; wait for a holder that is about to end.

    Raises:
        ProjectError: another process still has it after that.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="ascii") as file:
        end = time.monotonic() + wait_seconds
        is_waiting = False
        while not _acquired(file.fileno()):
            if time.monotonic() > end:
                file.seek(0)
                raise ProjectError(f"{what} is in the hands of process {file.read().strip() or 'unknown'}: wait for it, or stop it")
            if not is_waiting:
                sys.stderr.write(f"{what} is still in the hands of another process: waiting up to {wait_seconds:.0f} s for its end\n")
                is_waiting = True
            time.sleep(0.1)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


@contextlib.contextmanager
def if_free(path: Path) -> Iterator[bool]:
    """Hold a lock file without waiting for it; yield False, holding nothing, if another process has it."""
    with path.open("a+", encoding="ascii") as file:
        yield _acquired(file.fileno())


def is_held(lock: Path) -> bool:
    """Return whether a living process holds a lock file; nothing is made or written for that."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _acquired(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
