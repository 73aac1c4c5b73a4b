"""Pushes finished checkpoints to the DVC remote while training goes on: in a process of its own, one at a time."""

import logging
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from pipeline import project as places

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 120.0
"""For what is still on its way at the end; `dvc push` sends it otherwise."""
SLOW_SECONDS = 30.0


class Pusher:
    """Told of each save, it returns at once: whatever a remote does or does not do, training goes on."""

    def __init__(self, project: Path, work: Path) -> None:
        self._project, self._work = project, work
        self._news = threading.Condition()
        self._steps: list[int] = []
        self._is_wanted = self._has_failed = self._is_closing = False
        self._process: subprocess.Popen[str] | None = None
        self._began = 0.0
        self._thread = self._new_thread()

    def saved(self, steps: Iterable[int]) -> None:
        """Send what the remote lacks of these checkpoints, as soon as the push before has ended."""
        seconds = time.monotonic() - self._began
        if self._is_wanted and self._process and seconds > SLOW_SECONDS:
            logger.warning("the DVC remote is slow: a push began %.0f s ago, and two checkpoints are saved since", seconds)
        with self._news:
            self._steps = sorted(steps)
            self._is_wanted = True
            self._news.notify()
        if self._thread.is_alive():
            return
        try:
            self._thread = self._new_thread()
            self._thread.start()
        except RuntimeError as error:  # The machine has no thread to give at this moment.
            self._note(1, str(error))

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._work_off, name="push", daemon=True)

    def close(self, patience: float = PATIENCE_SECONDS, left: Callable[[], float] = lambda: math.inf) -> None:
        """Wait at most `patience` seconds for what is on its way, and for another try at what failed.

        `left`, which is asked all the while, can say that no seconds are left.
        """
        if self._thread.ident is None:
            return
        with self._news:
            self._is_wanted |= self._has_failed
            self._is_closing = True
            self._news.notify()
        end = time.monotonic() + patience
        while self._thread.is_alive() and (seconds := min(end - time.monotonic(), left())) > 0:
            self._thread.join(min(seconds, 0.1))
        if self._thread.is_alive():
            logger.warning('what the DVC remote still lacks is not waited for: "matwm push" or "dvc push" sends it')
            with self._news:
                self._is_wanted = False
                if self._process:
                    self._process.kill()
            self._thread.join(10.0)

    def _work_off(self) -> None:
        """Be the thread, until closed and nothing is wanted."""
        while True:
            with self._news:
                self._news.wait_for(lambda: self._is_wanted or self._is_closing)
                if not self._is_wanted:
                    return
                self._is_wanted = False
                try:
                    self._process = self._started()
                except OSError as error:  # No memory or no process number to be had: at the next save there may be.
                    self._note(1, f"no process can be started ({error.strerror})")
                    continue
            _, said = self._process.communicate()
            self._note(self._process.returncode, said)
            self._process = None

    def _started(self) -> "subprocess.Popen[str]":
        self._began = time.monotonic()
        command = [sys.executable, "-m", "pipeline.cli", "push", "--work", str(self._work), "--parent", str(os.getpid())]
        command += ["--steps", ",".join(map(str, self._steps))]
        return subprocess.Popen(
            command, cwd=self._project, env=places.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, process_group=0,  # Ctrl-C is for the trainer, which then decides
        )  # fmt: skip

    def _note(self, code: int, said: str) -> None:
        self._has_failed = code != 0
        if code > 0:
            why = (said.strip().splitlines() or [f"exit status {code}"])[-1]
            logger.warning("a checkpoint is not on the DVC remote: %s. Training goes on; it is tried again at the next save", why)
