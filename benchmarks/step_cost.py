"""Prints what one environment step costs, by part, for each preset: `.venv/bin/python benchmarks/step_cost.py [PRESET ...]`.

CPU seconds of this process on one thread, medians over repetitions. The parts of the schedule are weighted as the preset's
schedule says. Each preset runs in a process of its own, so that its peak memory is its own.

The last column is how many times as long a part takes as its dense floating-point operations (`dense_flops.py`) would at
this machine's own rate: of fp32 products of 2048 x 2048 matrices, timed beside every repetition, since it varies with what
else the machine does.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from dense_flops import dense_flops

from matwm.acting import EpisodeContext, choose_actions
from matwm.checkpoint import Parent
from matwm.config import Config, load_config, preset_path
from matwm.imagination import imagine
from matwm.rng import generator_for
from matwm.store import LocalStore
from matwm.trainer import Trainer, build_trainer

PRESETS = ("ci-tiny", "cpu-small", "paper")
MATRIX_SIZE = 2048
ACTING_ROWS = 13


class Clock:
    """Times calls on the CPU, and this machine's matrix rate beside them."""

    def __init__(self) -> None:
        self.matrix = torch.randn(MATRIX_SIZE, MATRIX_SIZE)
        self.rates: list[float] = []

    def seconds(self, function: Callable[[], object], repetitions: int, calls: int = 1) -> float:
        """Return the median CPU time of a call, after one that does not count; each repetition times several calls."""
        function()
        times = []
        for _ in range(repetitions):
            self.rates.append(2 * MATRIX_SIZE**3 / timed(lambda: self.matrix @ self.matrix))
            times.append(timed(lambda: [function() for _ in range(calls)]) / calls)
        return statistics.median(times)

    @property
    def rate(self) -> float:
        """Median floating-point operations a CPU second."""
        return statistics.median(self.rates)


def timed(function: Callable[[], object]) -> float:
    """Return the CPU seconds of one call."""
    began = time.process_time()
    function()
    return time.process_time() - began


def filled_trainer(config: Config, rows: int) -> Trainer:
    """Return a trainer whose replay holds random play."""
    schedule = config.schedule.model_copy(update={"warmup_steps": 10**9})
    trainer = build_trainer(config.model_copy(update={"schedule": schedule}))
    while trainer.env_step < rows:
        trainer.step()
    return trainer


def half_an_episode(trainer: Trainer, rows: int) -> EpisodeContext:
    """Return what policies see in the middle of an episode of 25 steps."""
    context = EpisodeContext(range(trainer.spec.num_agents), trainer.config.schedule.acting_context)
    obs, actions = trainer.replay.recent(rows)
    for row in range(rows):
        context.see(obs[row][None])
        if row < rows - 1:
            context.did(actions[row][None])
    return context


def measure(preset: str, repetitions: int) -> dict[str, Any]:
    """Return the cost of every part of one preset on its own environment."""
    config = load_config(preset_path(preset))
    trainer = filled_trainer(config, max(2000, 2 * config.world_model.window_length))
    learner, replay, schedule = trainer.learner, trainer.replay, config.schedule
    rng = generator_for(0, "benchmark", 0)
    windows_each = -(-config.world_model.windows // trainer.spec.num_agents)
    starts_each = -(-config.regime(trainer.spec.num_agents).starts // trainer.spec.num_agents)
    length = config.actor_critic.imagination.context_length

    def contexts() -> Any:
        return replay.sample_contexts(rng, per_agent=starts_each, length=length)

    def world_model() -> None:
        learner.update_world_model(replay.sample_windows(rng, per_agent=windows_each, length=config.world_model.window_length)[0])

    def imagination() -> None:
        imagine(learner.world_model, learner.actors, contexts(), horizon=config.regime(trainer.spec.num_agents).horizon, from_prior=False)

    def agents() -> None:
        learner.update_agents(contexts())

    acting_rows = min(ACTING_ROWS, schedule.acting_context)
    context, mask = half_an_episode(trainer, acting_rows), trainer.spec.action_exists[None]

    def act() -> None:
        choose_actions(learner.world_model, learner.actors, context, mask, greedy=False)

    def environment() -> None:
        for _ in range(100):
            trainer.step()

    clock = Clock()
    spent = {"act": clock.seconds(act, repetitions, calls=20), "environment": clock.seconds(environment, repetitions) / 100}
    spent["world model"] = clock.seconds(world_model, repetitions)
    spent["imagine"] = clock.seconds(imagination, repetitions)
    spent["actor-critic"] = clock.seconds(agents, repetitions) - spent["imagine"]
    with tempfile.TemporaryDirectory() as folder:
        save, total_bytes, wall = saving(trainer, config, Path(folder), repetitions)
    spent["checkpoint"] = save
    every = {"world model": schedule.world_model_every, "imagine": schedule.agents_every, "actor-critic": schedule.agents_every}
    every["checkpoint"] = config.run.save_interval
    per_step = {part: seconds / every.get(part, 1) for part, seconds in spent.items()}
    flops = dense_flops(config, trainer.spec, acting_rows=acting_rows)
    flops["total"] = sum(count / every.get(part, 1) for part, count in flops.items())
    ratios = {part: (spent.get(part) or sum(per_step.values())) * clock.rate / count for part, count in flops.items()}
    parameters = sum(p.numel() for module in (learner.world_model, learner.agents) for p in module.parameters())
    return {
        "preset": f"{preset} on {trainer.spec.name}",
        "seconds": spent,
        "per_step": per_step,
        "total": sum(per_step.values()),
        "gflop": {part: count / 1e9 for part, count in flops.items()},
        "rate": clock.rate,
        "ratios": ratios,
        "parameters": parameters,
        "checkpoint_bytes": total_bytes,
        "save_wall_seconds": wall,
        "save_share": per_step["checkpoint"] / sum(per_step.values()),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def saving(trainer: Trainer, config: Config, folder: Path, repetitions: int) -> tuple[float, int, float]:
    """Return CPU seconds, bytes and wall seconds of saving one checkpoint after another."""
    store, cpu, wall, size = LocalStore(folder), [], [], 0
    for step in range(1, repetitions + 1):
        began, clock = time.process_time(), time.perf_counter()
        checkpoint = store.save(
            step, trainer.parts(), parent=Parent(0, "0" * 64), config=config.shaping(), spec=trainer.spec, policies=trainer.policies()
        )
        cpu.append(time.process_time() - began)
        wall.append(time.perf_counter() - clock)
        size = checkpoint.total_bytes
    return statistics.median(cpu), size, statistics.median(wall)


def show(costs: dict[str, Any]) -> None:
    """Print one preset's figures as a table."""
    print(f"\n{costs['preset']}: {costs['parameters'] / 1e6:.2f} M parameters, slow critics included")
    print(f"  {'part':<14}{'ms a call':>12}{'ms an environment step':>26}{'dense GFLOP':>14}{'times the matrix rate':>24}")
    for part, seconds in [*costs["seconds"].items(), ("total", None)]:
        call = "" if seconds is None else f"{seconds * 1e3:.2f}"
        line = f"  {part:<14}{call:>12}{costs['per_step'].get(part, costs['total']) * 1e3:>26.3f}"
        print(f"{line}{costs['gflop'][part]:>14.3f}{costs['ratios'][part]:>24.2f}" if part in costs["gflop"] else line)
    print(f"  matrix rate {costs['rate'] / 1e9:.0f} GFLOP a CPU second")
    print(f"  peak memory {costs['peak_bytes'] / 2**20:.0f} MiB; checkpoint {costs['checkpoint_bytes'] / 1e6:.1f} MB", end=", ")
    print(f"saved in {costs['save_wall_seconds'] * 1e3:.0f} ms wall, {100 * costs['save_share']:.2f} % of training's CPU time")


def main() -> None:
    """Measure the presets named on the command line, or all."""
    parser = argparse.ArgumentParser(description="Print what one environment step costs, by part.")
    parser.add_argument("presets", nargs="*", default=PRESETS, help=f"default: {' '.join(PRESETS)}")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.presets[0], options.repetitions)))
        return
    print(f"torch {torch.__version__}, one thread")
    for preset in options.presets:
        repetitions = min(options.repetitions, 3) if preset == "paper" else options.repetitions
        command = [sys.executable, __file__, "--child", "--repetitions", str(repetitions), preset]
        show(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


if __name__ == "__main__":
    main()
