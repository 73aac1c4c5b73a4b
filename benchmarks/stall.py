"""Prints what a save costs training: `.venv/bin/python benchmarks/stall.py [CASE ...]`.

The stall is what the training thread loses when it calls for a save (waiting for an earlier one included), in wall time. What is
saved behind it takes from training, too: stretches of steps with a save in flight are compared with the same stretches without, in
turns. The replay is full and the history is that of a million steps. Each case runs in a process of its own.
"""

import argparse
import dataclasses
import json
import math
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measuring import in_a_process, machine, wall_seconds

from matwm.checkpoint import Checkpoint
from matwm.config import ReplayConfig
from matwm.errors import run_program
from matwm.history import Curve, Episodes
from matwm.manifest import ROOT
from matwm.params_yaml import load_config, preset_path
from matwm.replay import Replay
from matwm.stateful import Chunk
from matwm.step_names import step_name
from matwm.store import LocalStore
from matwm.trainer import Snapshot, Trainer, build_trainer
from matwm.types import EnvSpec, Step
from pipeline.memory import keep_freed_memory
from pipeline.training.saving import Saver

CASES: dict[str, dict[str, Any]] = {
    "cpu-small": {"preset": "cpu-small", "saves": 200, "steps": 5, "turns": 4},
    "paper": {"preset": "paper", "saves": 4, "steps": 1, "turns": 1},
    "image replay of 1 GB": {"preset": "cpu-small", "saves": 12, "steps": 40, "turns": 1, "image_rows": 20_000},
}
PAST_STEPS = 1_000_000
IMAGE = EnvSpec(name="images", agents=("eye",), obs_sizes=(3 * 64 * 64,), num_actions=(5,))
IMAGE_CHUNK_ROWS = 1000
IMAGE_ROWS_A_STEP = 20
"""So that a chunk is filled between two saves, as in 1,000 steps of a run."""


def seasoned_trainer(preset: str) -> Trainer:
    """Return a trainer with a full replay and the history of a million steps, just past its first updates."""
    config = load_config(preset_path(preset))
    schedule, rows = config.schedule, config.replay.chunk_rows
    trainer = build_trainer(config.model_copy(update={"schedule": schedule.model_copy(update={"warmup_steps": 2 * rows})}))
    while trainer.history.metrics == {} or trainer.env_step % (schedule.world_model_every * schedule.agents_every):
        trainer.step()
        trainer.history.close_interval(trainer.env_step)
    fill(trainer.replay, config.replay.capacity // rows)
    count = PAST_STEPS // config.run.metrics_interval
    past = np.stack([np.arange(1, count + 1) * config.run.metrics_interval, np.random.default_rng(0).random(count)], 1)
    trainer.history.metrics = {name: Curve(past) for name in trainer.history.metrics}
    ends = np.arange(25, PAST_STEPS, 25)
    trainer.history.episodes = Episodes(ends, np.full(len(ends), 25), np.zeros((len(ends), trainer.spec.num_agents)))
    return trainer


def fill(replay: Replay, num_chunks: int) -> None:
    """Put chunks like the first one before what the replay has, each with numbers of its own."""
    state: Any = replay.state_dict()
    rng, first = np.random.default_rng(0), state["chunks"][0].arrays
    copies = [Chunk({**first, "reward": rng.random(first["reward"].shape, np.float32)}) for _ in range(num_chunks)]
    rows = len(first["reward"])
    replay.load_state_dict({"total_rows": state["total_rows"] + num_chunks * rows, "chunks": [*copies, *state["chunks"]]})


class Images:
    """A trainer's snapshots with a replay of images in the place of its own, into which rows come as training goes on."""

    def __init__(self, trainer: Trainer, rows: int) -> None:
        self._trainer = trainer
        self._replay = Replay(IMAGE, ReplayConfig(capacity=rows, recency_decay=1.0, chunk_rows=IMAGE_CHUNK_ROWS))
        self._noise = np.random.default_rng(0).random(2 * IMAGE.obs_size, np.float32)
        self._add(rows)

    def step(self) -> None:
        """Take a training step, and the rows of several."""
        self._trainer.step()
        self._add(IMAGE_ROWS_A_STEP)

    def snapshot(self) -> Snapshot:
        """Return what would be saved."""
        found = self._trainer.snapshot()
        return dataclasses.replace(found, parts={**found.parts, "replay": self._replay.state_dict()})

    def _add(self, rows: int) -> None:
        replay, alive = self._replay, np.ones(1, bool)
        for row in range(replay.total_rows, replay.total_rows + rows):
            start = row * 7919 % IMAGE.obs_size
            obs, ones = self._noise[None, start : start + IMAGE.obs_size], np.ones((1, 5), bool)
            replay.add(Step(obs, ones, np.zeros(1, np.int64), np.full(1, row, np.float32), ~alive, alive, row == 0, is_last=False))


def measure(case: str) -> dict[str, Any]:
    """Return stalls, times behind and the slowing of one case."""
    plan = CASES[case]
    trainer = seasoned_trainer(plan["preset"])
    subject = Images(trainer, plan["image_rows"]) if "image_rows" in plan else trainer
    stalls, of_it_cpu, behind, size = [], [], [], 0

    def on_saved(checkpoint: Checkpoint, seconds: float) -> None:
        nonlocal size
        behind.append(seconds)
        size = checkpoint.total_bytes

    with tempfile.TemporaryDirectory() as folder, Saver(LocalStore(folder), ROOT, on_saved) as saver:
        saver.save(subject.snapshot)  # the first one writes the whole replay, and is counted apart
        saver.wait()
        first = behind.pop()
        subject.step()
        with_save: list[float] = []
        without: list[float] = []
        # Stretches with a save, then as many without: together as long as the schedule's cycle, so that updates fall evenly on both.
        while len(stalls) < plan["saves"]:
            for times in [with_save] * plan["turns"] + [without] * plan["turns"]:
                if times is with_save:
                    began = time.thread_time()
                    stalls.append(wall_seconds(lambda: saver.save(subject.snapshot)))
                    of_it_cpu.append(time.thread_time() - began)
                times.append(wall_seconds(lambda: [subject.step() for _ in range(plan["steps"])]))
                saver.wait()
                prune(Path(folder))
    pairs = [one - other for one, other in zip(with_save, without, strict=True)]
    return {
        "case": case,
        "stalls": stalls,
        "of_it_cpu": of_it_cpu,
        "behind": behind,
        "first": first,
        "bytes": size,
        "step": statistics.median(without) / plan["steps"],
        "lost": statistics.median(pairs),
        "lost_mean": statistics.fmean(pairs),
    }


def prune(folder: Path) -> None:
    """Keep the newest checkpoint only: the disk is not what is measured."""
    for old in LocalStore(folder).steps()[:-1]:
        shutil.rmtree(folder / step_name(old))


def row(found: dict[str, Any]) -> str:
    """Return one case as a line of a Markdown table."""
    stalls, behind = sorted(found["stalls"]), sorted(found["behind"])
    cells = [found["case"], f"{found['bytes'] / 1e6:,.0f} MB", str(len(stalls))]
    cells += [f"{1e3 * percentile(stalls, part):,.1f}" for part in (0.5, 0.9, 0.99, 1.0)]
    cells += [f"{1e3 * percentile(sorted(found['of_it_cpu']), 0.99):,.1f}"]
    cells += [f"{1e3 * percentile(behind, 0.5):,.0f} / {1e3 * behind[-1]:,.0f}", f"{1e3 * found['first']:,.0f}"]
    cells += [f"{1e3 * found['step']:,.0f}", f"{1e3 * found['lost']:,.0f}"]
    return f"| {' | '.join(cells)} |"


def percentile(ordered: list[float], part: float) -> float:
    """Return the smallest value that at least this part of all does not exceed."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def main() -> None:
    """Measure the cases named on the command line, or all."""
    parser = argparse.ArgumentParser(description="Print what a save costs training.")
    parser.add_argument("cases", nargs="*", default=list(CASES), help=f"default: {', '.join(CASES)}")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"no case {', '.join(unknown)}: there are {', '.join(CASES)}")
    if options.child:
        keep_freed_memory()
        print(json.dumps(measure(options.cases[0])))
        return
    print(f"{machine()}; milliseconds, wall time\n")
    columns = ["", "checkpoint", "saves", "stall p50", "p90", "p99", "max", "p99, CPU time", "behind: median / max", "the first", "a step"]
    print(f"| {' | '.join([*columns, 'steps lose, a save'])} |\n{'| --- ' * 12}|")
    for case in options.cases:
        print(row(in_a_process(__file__, case)), flush=True)


if __name__ == "__main__":
    raise SystemExit(run_program(main))
