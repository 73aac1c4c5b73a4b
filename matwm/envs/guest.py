"""Keeps an environment of somebody's own to itself: what it does to the process while it is called, and calls that do not come back."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import FrameType
from typing import Any

import numpy as np
import torch

from matwm import rng
from matwm.envs.base import OverdueError

CALLS = ("reset", "step", "render", "close")
PATIENCE_SECONDS = 10.0
"""For a call that was told that it takes too long: a library may swallow that."""
_TICK_SECONDS = 0.2
_HEEDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGPIPE, signal.SIGCHLD, signal.SIGALRM)
"""Signals whose handlers are ours, whatever an environment makes of them."""


def _folder() -> str | None:
    with contextlib.suppress(FileNotFoundError):  # It may be deleted by now.
        return os.getcwd()  # noqa: PTH109
    return None


def _enter(folder: str | None) -> None:
    with contextlib.suppress(OSError):
        os.chdir(folder or "/")


_LENT: Sequence[tuple[Callable[[], Any], Callable[[Any], object]]] = (
    (_folder, _enter),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (np.geterr, lambda kept: np.seterr(**kept)),
)
"""What belongs to a whole process and everybody may change: how it is asked for, and how it is set."""


class Stay:
    """What one environment has made of the process, there only while it is called: folder, settings, random numbers."""

    def __init__(self, seed: int) -> None:
        """`seed` decides what it draws from the global generators if it does not seed them itself."""
        self._randomness = rng.GlobalNumbers(seed)
        self._settings = [get() for get, _ in _LENT]

    @contextlib.contextmanager
    def visit(self, what: str, seconds: float) -> Iterator[None]:
        """Let its code run, for so many seconds at most.

        Raises:
            OverdueError: it did not come back; the sentence begins with `what`.
        """
        is_main = threading.current_thread() is threading.main_thread()
        handlers = [signal.getsignal(number) for number in _HEEDED] if is_main else []
        ours = _exchanged(self._settings)
        try:
            with _watched(what, seconds, is_main), self._randomness.lent():
                yield
        finally:
            self._settings = _exchanged(ours)
            for number, handler in zip(_HEEDED, handlers, strict=False):
                if handler is not None and signal.getsignal(number) is not handler:
                    signal.signal(number, handler)


class Guest:
    """Stands before an environment, which it makes, and has its calls run as visits; all else of it is what it would be without."""

    def __init__(self, name: str, make: Callable[[], Any], *, seed: int, seconds: float) -> None:
        self._name, self._seconds, self._stay = name, seconds, Stay(seed)
        with self._stay.visit(f"making {name}", seconds):
            self._env = make()

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        """The environment's: it is asked for by who refuses one of a wrong kind."""
        return self._env.__class__

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._env, name)
        return partial(self._visit, name, found) if name in CALLS else found

    def _visit(self, call: str, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        with self._stay.visit(f"{call}() of {self._name}", self._seconds):
            return method(*arguments, **named)


class _Call:
    """One that is under way, and the seconds that it still has."""

    def __init__(self, what: str, seconds: float, is_main: bool) -> None:
        self.left, self.is_main = seconds, is_main
        self.sentence = f"{what} has not come back after {seconds:g} s: if it needs longer, raise env.seconds_per_call"


_under_way: set[_Call] = set()
_watch: threading.Thread | None = None


@contextlib.contextmanager
def _watched(what: str, seconds: float, is_main: bool) -> Iterator[None]:
    global _watch  # noqa: PLW0603
    if _watch is None or not _watch.is_alive():  # The second in a child of a fork.
        _watch = threading.Thread(target=_look_after_calls, name="environments", daemon=True)
        _watch.start()
    if is_main:
        signal.signal(signal.SIGALRM, _say_overdue)
    call = _Call(what, seconds, is_main)
    _under_way.add(call)
    try:
        yield
    finally:
        _under_way.discard(call)


def _look_after_calls() -> None:
    """End calls that take too long: first by an error in their midst, and if they swallow that, with the whole process."""
    before = time.monotonic()
    while True:
        time.sleep(_TICK_SECONDS)
        now = time.monotonic()
        passed, before = min(now - before, 5 * _TICK_SECONDS), now  # The time for which the process was stopped does not count.
        for call in list(_under_way):
            had, call.left = call.left, call.left - passed
            if call.left <= 0 < had and call.is_main:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
            if call.left <= -PATIENCE_SECONDS:
                os.write(2, f"{call.sentence}\n".encode())
                os._exit(1)


def _say_overdue(_: int, __: FrameType | None) -> None:
    for call in list(_under_way):
        if call.is_main and call.left <= 0:
            raise OverdueError(call.sentence)


def _exchanged(wanted: Sequence[Any]) -> list[Any]:
    """Set what is lent, and return what it was."""
    before = [get() for get, _ in _LENT]
    for (_, put), value, present in zip(_LENT, wanted, before, strict=True):
        if value != present:
            put(value)
    return before
