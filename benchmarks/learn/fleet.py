"""Carries jobs out side by side, each in a process of its own: its peak memory is its own, and none can disturb another."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

CODE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def run_all(commands: Sequence[Sequence[str]], at_once: int, should_stop: Callable[[], bool]) -> list[int]:
    """Run commands, at most `at_once` together; return their exit codes. Asked to stop, pass it on and wait for them.

    Commands that have not begun then do not begin: their exit code is that of SIGTERM.
    """
    codes = [128 + signal.SIGTERM] * len(commands)
    waiting = list(enumerate(commands))
    running: dict[int, subprocess.Popen[bytes]] = {}
    is_told = False
    while waiting or running:
        while waiting and len(running) < at_once and not is_told:
            number, command = waiting.pop(0)
            # A group of its own: Ctrl-C comes from here alone, once.
            running[number] = subprocess.Popen(command, env={**os.environ, **CODE}, start_new_session=True)
        for number, process in list(running.items()):
            if process.poll() is not None:
                codes[number] = process.returncode if process.returncode >= 0 else 128 - process.returncode
                del running[number]
        if should_stop() and not is_told:
            is_told, waiting = True, []
            for process in running.values():
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    return codes


def child_command(script: Path, arguments: Sequence[str]) -> list[str]:
    """Return the command of a job's process, which stops when this one is gone."""
    return [sys.executable, str(script), *arguments, "--parent", str(os.getpid())]
