"""Measures what grows with the work: `.venv/bin/python benchmarks/scaling.py` (a good CPU minute).

One quantity at a time departs from `cpu-small` with four agents: agents (with the preset's own regime for so many), imagined
horizon, batch (starts and windows alike) and the length of the replay. The environment is synthetic and in-process, so that what
is measured is the core: CPU milliseconds of each part on one thread, medians, and the growth of the process's memory. A snapshot
is one with an empty history: what a long one adds is in `stall.py`. A save writes, in the background of training, what is new since
the one before; to resume is to verify and to load the whole checkpoint. Each point is a process of its own. Writes a table and a
figure to `benchmarks/results/`, or to another folder (`--out`).
"""

import argparse
import json
import resource
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from learn import files
from measuring import cpu_seconds, half_an_episode, in_a_process, machine, median_ms, ready_folder

from matwm import durable
from matwm.acting import choose_actions
from matwm.collector import Collector
from matwm.config import Config
from matwm.envs.episode_log import EpisodeLog
from matwm.errors import run_program
from matwm.learner import Learner
from matwm.manifest import ROOT
from matwm.params_yaml import load_config, parse_config, preset_path
from matwm.replay import Replay
from matwm.rng import generator_for, seed_torch
from matwm.store import LocalStore
from matwm.trainer import Trainer, prepare_torch
from matwm.types import EnvSpec, Step, Tick
from pipeline.memory import keep_freed_memory

RESULTS = Path(__file__).parent / "results"
AGENTS, HORIZON, BATCH, ROWS = "agents", "horizon", "batch", "replay rows"
POINTS: dict[str, list[int]] = {AGENTS: [2, 4, 8, 16], HORIZON: [5, 10, 15, 30], BATCH: [1, 2, 4], ROWS: [1000, 10_000, 100_000, 1_000_000]}
USUAL = {AGENTS: 4, HORIZON: 15, BATCH: 1, ROWS: 10_000}
"""The horizon is the preset's."""
TITLES = {AGENTS: "agents", HORIZON: "imagined steps", BATCH: "times the batch of cpu-small", ROWS: "rows in the replay"}
PARTS = ("act", "sample windows", "sample contexts", "world model", "agents' update", "snapshot", "save", "resume")
EPISODE = 25
SAVES = 3


class Crowd:
    """N agents that see noise; follows `matwm.envs.base.Env`."""

    def __init__(self, num_agents: int) -> None:
        names = tuple(f"agent_{number}" for number in range(num_agents))
        self.spec = EnvSpec("crowd", names, (16,) * num_agents, (5,) * num_agents)
        self._rng, self._t = generator_for(0, "crowd", 0), 0

    def reset(self, seed: int) -> Tick:
        """Begin an episode."""
        self._rng, self._t = generator_for(seed, "crowd", 0), 0
        return self._tick(np.zeros(self.spec.num_agents))

    def step(self, actions: np.ndarray) -> Tick:
        """Reward the agents by what they did."""
        self._t += 1
        return self._tick(np.asarray(actions, float))

    def render(self) -> np.ndarray:
        """Draw nothing."""
        return np.zeros((8, 8, 3), np.uint8)

    def close(self) -> None:
        """Let go of nothing."""

    def _tick(self, reward: np.ndarray) -> Tick:
        n = self.spec.num_agents
        obs = self._rng.normal(size=(n, 16)).astype(np.float32)
        mask = self.spec.action_exists.copy()
        return Tick(obs, mask, reward.astype(np.float32), np.zeros(n, bool), alive=np.ones(n, bool), truncated=self._t >= EPISODE)


def config_of(point: dict[str, int]) -> Config:
    """Return `cpu-small` with a point's replay capacity, and where they depart from the preset's, its horizon and batch."""
    data = load_config(preset_path("cpu-small")).resolved()
    for regime in data["actor_critic"]["imagination"]["regimes"]:
        regime["starts"] *= point[BATCH]
        if point[HORIZON] != USUAL[HORIZON]:
            regime["horizon"] = point[HORIZON]
    data["world_model"]["windows"] *= point[BATCH]
    data["replay"]["capacity"] = point[ROWS]
    return parse_config(data)


def trainer_of(point: dict[str, int]) -> Trainer:
    """Return a trainer of the synthetic environment whose replay is full of it, as its own steps would leave it."""
    config, env = config_of(point), EpisodeLog(Crowd(point[AGENTS]))
    spec, replay = env.spec, Replay(env.spec, config.replay)
    device = prepare_torch(config)
    seed_torch(0, "scaling", 0)
    rng, mask, ends = generator_for(0, "scaling", 0), spec.action_exists, np.zeros(spec.num_agents, bool)
    noise = rng.normal(size=(1000, spec.num_agents, 16)).astype(np.float32)
    for row in range(point[ROWS]):
        t = row % (EPISODE + 1)
        action = np.full(spec.num_agents, -1) if t == EPISODE else rng.integers(5, size=spec.num_agents)
        replay.add(
            Step(noise[row % len(noise)], mask, action, action.astype(np.float32), ends, alive=~ends, is_first=t == 0, is_last=t == EPISODE)
        )
    collector = Collector(env, replay, seed=0, acting_context=config.schedule.acting_context)
    return Trainer(config, env, replay, Learner(spec, config, device), collector)


def measure(point: dict[str, int]) -> dict[str, float]:
    """Return of one point the milliseconds by part, mebibytes, and from how many states in total agents imagine."""
    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    trainer = trainer_of(point)
    learner = trainer.learner
    rng = generator_for(0, "scaling", 1)
    windows, contexts = trainer.sample_windows(rng)[0], trainer.sample_contexts(rng)
    seen, mask = half_an_episode(trainer), trainer.spec.action_exists[None]
    found = {
        "act": median_ms(lambda: choose_actions(learner.world_model, learner.actors, seen, mask, greedy=False), 20),
        "sample windows": median_ms(lambda: trainer.sample_windows(rng), 20),
        "sample contexts": median_ms(lambda: trainer.sample_contexts(rng), 20),
        "world model": median_ms(lambda: learner.update_world_model(windows), 5),
        "agents' update": median_ms(lambda: learner.update_agents(contexts), 3),
        "snapshot": median_ms(trainer.snapshot, 3),
    }
    found["memory"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - imported) / 1024
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(folder)
        saves = []
        for _ in range(1 + SAVES):
            trainer.step()
            saves.append(1e3 * cpu_seconds(lambda: trainer.save(store, ROOT)))
        found["save"] = statistics.median(saves[1:])  # The first writes the whole replay.
        found["resume"] = median_ms(lambda: trainer.resume(store.open(store.steps()[-1])), 1)
    return {"starts": len(contexts.agent)} | {part: files.rounded(figure) for part, figure in found.items()}


def table(results: list[dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    lines = [f"| varied | value | starts | {' | '.join(f'{part}, ms' for part in PARTS)} | memory beyond the imports, MiB |"]
    lines.append("| --- |" + " ---: |" * (len(PARTS) + 3))
    for result in results:
        found = result["found"]
        figures = " | ".join(f"{found[part]:.2f}" for part in PARTS)
        lines.append(f"| {TITLES[result['varied']]} | {result['value']:,} | {found['starts']} | {figures} | {found['memory']:.0f} |")
    return "\n".join(lines)


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Draw one small plot for each quantity: milliseconds of the parts above, memory below."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(POINTS), figsize=(13, 6), sharey="row", sharex="col", layout="constrained")
    for column, varied in enumerate(POINTS):
        points = [result for result in results if result["varied"] == varied]
        values = [point["value"] for point in points]
        for part in PARTS:
            axes[0, column].plot(values, [point["found"][part] for point in points], marker="o", markersize=3, label=part)
        axes[1, column].plot(values, [point["found"]["memory"] for point in points], marker="o", markersize=3, color="black")
        axes[1, column].set(xscale="log", xlabel=TITLES[varied])
        axes[1, column].set_xticks(values, [f"{value:,}" for value in values])
        axes[1, column].minorticks_off()
        axes[0, column].set(yscale="log")
    axes[1, 0].set_ylim(0, 1.1 * max(point["found"]["memory"] for point in results))
    axes[0, 0].set_ylabel("CPU ms a call, one thread")
    axes[1, 0].set_ylabel("memory beyond the imports, MiB")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(PARTS), frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure every point in a process of its own and write the table and the figure."""
    parser = argparse.ArgumentParser(description="Measure what grows with the work.")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="where table and figure go (benchmarks/results)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        keep_freed_memory()
        print(json.dumps(measure(json.loads(options.child))))
        return
    ready_folder("--out", options.out)
    where, points, results = machine(), {}, []
    for varied, values in POINTS.items():
        for value in values:
            point = json.dumps({**USUAL, varied: value})
            if point not in points:  # the usual one is on every axis
                points[point] = in_a_process(__file__, point)
            results.append({"varied": varied, "value": value, "found": points[point]})
            print(varied, value, json.dumps(points[point]), flush=True)
    files.write(options.out / "scaling.json", {"machine": where, "usual": USUAL, "points": results})
    usual = ", ".join(f"{value:,} {TITLES[varied]}" for varied, value in USUAL.items())
    head = f"Made by `benchmarks/scaling.py`: {where}. What is not varied: {usual}. Snapshots are with an empty history."
    durable.replace(options.out / "scaling.md", f"{head}\n\n{table(results)}\n".encode())
    draw(results, options.out / "scaling.png")


if __name__ == "__main__":
    raise SystemExit(run_program(main))
