"""What the benchmarks of cost share: timers, the machine's state, an episode's middle, and cases in processes of their own."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from matwm.acting import EpisodeContext
from matwm.config import Config, ConfigError
from matwm.params_yaml import preset_path
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


def known_presets(parser: argparse.ArgumentParser, names: Sequence[str]) -> list[str]:
    """Return presets named on a command line; where there is none of a name, end with a sentence."""
    try:
        return [preset_path(name).stem for name in names]
    except ConfigError as error:
        parser.exit(2, f"{error}\n")


def in_a_process(script: str, *words: str) -> Any:
    """Return what a script prints as JSON about one case: in a process of its own, peak memory is its own.

    Raises:
        CalledProcessError: it failed, and has said why.
    """
    command = [sys.executable, script, "--child", *words]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


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
