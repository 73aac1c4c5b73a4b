"""What the benchmarks share: timers, the machine's state, an episode's middle, cases in processes of their own, and refusals."""

import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from matwm.acting import EpisodeContext
from matwm.config import Config
from matwm.envs import missing
from matwm.errors import UserError
from matwm.params_yaml import load_config, preset_path
from matwm.trainer import Trainer

HALF_AN_EPISODE = 13
"""Rows that have been seen in the middle of an episode of 25 steps."""


def cpu_seconds(call: Callable[[], object]) -> float:
    """Return the CPU seconds that a call takes this process."""
    began = time.process_time()
    call()
    return time.process_time() - began


def wall_seconds(call: Callable[[], object]) -> float:
    """Return the wall seconds of a call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def median_ms(call: Callable[[], object], repetitions: int) -> float:
    """Return the median CPU milliseconds of a call, after one that does not count."""
    call()
    return 1e3 * statistics.median(cpu_seconds(call) for _ in range(repetitions))


def acting_rows(config: Config) -> int:
    """Return how many rows policies see in the middle of an episode."""
    return min(HALF_AN_EPISODE, config.schedule.acting_context)


def half_an_episode(trainer: Trainer) -> EpisodeContext:
    """Return what policies see behind the newest rows of a replay."""
    context, rows = EpisodeContext(range(trainer.spec.num_agents), trainer.config.schedule.acting_context), acting_rows(trainer.config)
    obs, actions = trainer.replay.recent(rows)
    for row in range(rows):
        context.see(obs[row][None])
        if row < rows - 1:
            context.did(actions[row][None])
    return context


def refuse(sentence: str) -> NoReturn:
    """Raise a UserError with a sentence about what the command line asks for."""
    raise UserError(sentence)


def at_least(option: str, value: float, least: float) -> None:
    """Refuse a value that is too small, or infinite."""
    if not least <= value < math.inf:  # nor is nan
        refuse(f"{option} {value}: {'a finite number' if value == math.inf else f'at least {least}'} is needed")


def ready_folder(option: str, folder: Path) -> None:
    """Make a folder of results; refuse one that cannot be written to before anything is measured."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        refuse(f"{option} {folder}: nothing can be written there ({error.strerror}): name another folder")


def known_presets(names: Sequence[str]) -> None:
    """Refuse names of no preset, and presets whose environment is not installed."""
    for name in names:
        family = load_config(preset_path(name)).env.family
        if problem := missing(family):
            refuse(f"{name} is of the family {family}, but {problem}")


def in_a_process(script: str, *words: str) -> Any:
    """Return what a script prints as JSON about one case: in a process of its own, peak memory is its own.

    Where it fails it has said why: this process ends with its exit code, as a shell would.
    """
    done = subprocess.run([sys.executable, script, "--child", *words], check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode < 0:
        sys.stderr.write(f"{Path(script).name} {' '.join(words)} was ended by {signal.Signals(-done.returncode).name}\n")
        raise SystemExit(128 - done.returncode)
    if done.returncode:
        raise SystemExit(done.returncode)
    return json.loads(done.stdout)


def machine() -> str:
    """Say on what is measured, and what else it is doing."""
    return f"torch {torch.__version__}, one thread, {_processor()}, {os.cpu_count()} cores with a load of {os.getloadavg()[0]:.1f}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
