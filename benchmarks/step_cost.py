"""Prints what one environment step costs, by part, for each preset: `.venv/bin/python benchmarks/step_cost.py [PRESET ...]`.

CPU seconds of this process on one thread, medians over repetitions. The parts of the schedule are weighted as the preset's
schedule says. Each preset runs in a process of its own, so that its peak memory is its own.

The last column is how many times as long a part takes as its dense floating-point operations (`dense_flops.py`) would at
this machine's own rate: of fp32 products of 2048 x 2048 matrices, timed just before each part in every repetition, since it
varies with what else the machine does. The ratio is each repetition's own: its median is shown, and its range.
"""

import argparse
import json
import resource
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from dense_flops import dense_flops
from measuring import acting_rows, at_least, cpu_seconds, half_an_episode, in_a_process, known_presets, machine, wall_seconds

from matwm.acting import choose_actions
from matwm.checkpoint import Parent
from matwm.config import Config
from matwm.errors import run_program
from matwm.params_yaml import load_config, preset_path
from matwm.rng import generator_for
from matwm.store import LocalStore
from matwm.trainer import Trainer, build_trainer
from pipeline.memory import keep_freed_memory

PRESETS = ("ci-tiny", "cpu-small", "paper")
MATRIX_SIZE = 2048
ROWS = 2000
"""Of play in the replay, where two windows are not longer."""
CALLS = {"act": 20, "environment": 100}
"""Of the parts that are too short to be timed alone."""


def filled_trainer(config: Config) -> Trainer:
    """Return a trainer whose replay holds random play."""
    rows = max(ROWS, 2 * config.world_model.window_length)
    schedule = config.schedule.model_copy(update={"warmup_steps": 10**9})
    trainer = build_trainer(config.model_copy(update={"schedule": schedule}))
    while trainer.env_step < rows:
        trainer.step()
    return trainer


class Saving:
    """Saves one checkpoint after another."""

    def __init__(self, trainer: Trainer, config: Config, folder: Path) -> None:
        self._trainer, self._config, self._store = trainer, config, LocalStore(folder)
        self.wall: list[float] = []
        self.total_bytes = 0

    def __call__(self) -> None:
        """Save the next one."""
        self.wall.append(wall_seconds(self._save))

    def _save(self) -> None:
        trainer, parent = self._trainer, Parent(0, "0" * 64)
        saved = self._store.save(
            len(self.wall) + 1,
            trainer.parts(),
            parent=parent,
            config=self._config.shaping(),
            spec=trainer.spec,
            policies=trainer.policies(),
        )
        self.total_bytes = saved.total_bytes


def parts_of(trainer: Trainer) -> dict[str, Callable[[], object]]:
    """Return a call of every part of a step but saving; "agents" is the imagination and the update on it."""
    learner = trainer.learner
    rng = generator_for(0, "benchmark", 0)
    seen, mask = half_an_episode(trainer), trainer.spec.action_exists[None]
    return {
        "act": lambda: choose_actions(learner.world_model, learner.actors, seen, mask, greedy=False),
        "environment": trainer.step,
        "world model": lambda: learner.update_world_model(trainer.sample_windows(rng)[0]),
        "imagine": lambda: learner.imagine(trainer.sample_contexts(rng)),
        "agents": lambda: learner.update_agents(trainer.sample_contexts(rng)),
    }


@dataclass(frozen=True)
class Repetition:
    """CPU seconds of a call of each part, and the matrix rate just before it, in operations a CPU second."""

    seconds: dict[str, float]
    rate: dict[str, float]

    @classmethod
    def of(cls, parts: Mapping[str, Callable[[], object]], matrix: torch.Tensor) -> "Repetition":
        """Time every part once, and what agents learn apart from what they imagine."""
        seconds, rate = {}, {}
        for name, call in parts.items():
            rate[name] = 2 * MATRIX_SIZE**3 / cpu_seconds(lambda: matrix @ matrix)
            calls = CALLS.get(name, 1)
            seconds[name] = cpu_seconds(lambda call=call, calls=calls: [call() for _ in range(calls)]) / calls
        seconds["actor-critic"] = seconds.pop("agents") - seconds["imagine"]
        rate["actor-critic"] = rate.pop("agents")
        return cls(seconds, rate)

    def ratios(self, flops: Mapping[str, float], every: Mapping[str, int]) -> dict[str, float]:
        """Return each part's time over that of its operations at the rate, and under `total` that of a step."""
        at_rate = {part: seconds * self.rate[part] for part, seconds in self.seconds.items()}
        step = sum(count / every.get(part, 1) for part, count in at_rate.items())
        needed = sum(count / every.get(part, 1) for part, count in flops.items())
        return {part: at_rate[part] / count for part, count in flops.items()} | {"total": step / needed}


def measure(preset: str, repetitions: int) -> dict[str, Any]:
    """Return the cost of every part of one preset in its own environment."""
    config = load_config(preset_path(preset))
    schedule = config.schedule
    trainer = filled_trainer(config)
    every = {"world model": schedule.world_model_every, "imagine": schedule.agents_every, "actor-critic": schedule.agents_every}
    every["checkpoint"] = config.run.save_interval
    matrix = torch.randn(MATRIX_SIZE, MATRIX_SIZE)
    with tempfile.TemporaryDirectory() as folder:
        saving = Saving(trainer, config, Path(folder))
        parts = {**parts_of(trainer), "checkpoint": saving}
        Repetition.of(parts, matrix)  # does not count
        timed = [Repetition.of(parts, matrix) for _ in range(repetitions)]
    seconds = {part: statistics.median(each.seconds[part] for each in timed) for part in timed[0].seconds}
    per_step = {part: value / every.get(part, 1) for part, value in seconds.items()}
    flops = dense_flops(config, trainer.spec, acting_rows=acting_rows(config))
    ratios = [each.ratios(flops, every) for each in timed]
    parameters = sum(p.numel() for module in (trainer.learner.world_model, trainer.learner.agents) for p in module.parameters())
    return {
        "preset": preset,
        "environment": trainer.spec.name,
        "seconds": seconds,
        "per_step": per_step,
        "total": sum(per_step.values()),
        "gflop": {part: count / 1e9 for part, count in flops.items()}
        | {"total": sum(count / every.get(part, 1) for part, count in flops.items()) / 1e9},
        "rates": [rate for each in timed for rate in each.rate.values()],
        "ratios": {part: [each[part] for each in ratios] for part in ratios[0]},
        "parameters": parameters,
        "checkpoint_bytes": saving.total_bytes,
        "save_wall_seconds": statistics.median(saving.wall[1:]),
        "save_share": per_step["checkpoint"] / sum(per_step.values()),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def show(costs: dict[str, Any]) -> None:
    """Print one preset's figures as a table."""
    print(f"\n{costs['preset']} on {costs['environment']}: {costs['parameters'] / 1e6:.2f} M parameters, slow critics included")
    print(f"  {'part':<14}{'ms a call':>12}{'ms an environment step':>26}{'dense GFLOP':>14}{'times the matrix rate (range)':>34}")
    for part, seconds in [*costs["seconds"].items(), ("total", None)]:
        call = "" if seconds is None else f"{seconds * 1e3:.2f}"
        line = f"  {part:<14}{call:>12}{costs['per_step'].get(part, costs['total']) * 1e3:>26.3f}"
        if part in costs["gflop"]:
            found = costs["ratios"][part]
            ratio = f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"
            line += f"{costs['gflop'][part]:>14.3f}{ratio:>34}"
        print(line)
    slow, usual, fast = (f"{rate / 1e9:.0f}" for rate in (min(costs["rates"]), statistics.median(costs["rates"]), max(costs["rates"])))
    print(f"  matrix rate {usual} ({slow} to {fast}) GFLOP a CPU second")
    print(f"  peak memory {costs['peak_bytes'] / 2**20:.0f} MiB; checkpoint {costs['checkpoint_bytes'] / 1e6:.1f} MB", end=", ")
    print(f"saved in {costs['save_wall_seconds'] * 1e3:.0f} ms wall, {100 * costs['save_share']:.2f} % of training's CPU time", flush=True)


def main() -> None:
    """Measure the presets named on the command line, or all."""
    parser = argparse.ArgumentParser(description="Print what one environment step costs, by part.")
    parser.add_argument("presets", nargs="*", default=PRESETS, metavar="PRESET", help=f"default: {' '.join(PRESETS)}")
    parser.add_argument("--repetitions", type=int, default=7, metavar="N", help="(7; at most 3 of `paper`)")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        keep_freed_memory()
        print(json.dumps(measure(options.presets[0], options.repetitions)))
        return
    at_least("--repetitions", options.repetitions, 1)
    known_presets(options.presets)
    print(machine())
    for preset in options.presets:
        repetitions = min(options.repetitions, 3) if preset == "paper" else options.repetitions
        show(in_a_process(__file__, "--repetitions", str(repetitions), preset))


if __name__ == "__main__":
    raise SystemExit(run_program(main))
