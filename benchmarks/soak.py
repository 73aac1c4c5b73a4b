"""Trains for hours on an environment that owns a process; does anything grow? `.venv/bin/python benchmarks/soak.py --hours 2`.

Each episode starts a process of its own and talks to it through pipes. Every `--every` seconds the trainer is looked at: its
children, threads, open files, memory, and the CPU time that a step takes. Exit code 1 if the last quarter has more of anything than the
second one (the first one warms up): of children, threads and open files one more, of memory and time a tenth.
"""

import argparse
import csv
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from matwm.errors import run_program
from pipeline import project as places

sys.path.insert(0, str(Path(__file__).parents[1]))  # The tests' project maker serves here, too.

ENVIRONMENT = '''"""A walk on a line, whose place a process of each episode's own keeps."""

import subprocess
import sys
import time

import numpy as np
from gymnasium.spaces import Box, Discrete
from pettingzoo import ParallelEnv

KEEPER = """
import sys
place = 0
for line in sys.stdin:
    place += int(line)
    print(place, flush=True)
"""


class Kept(ParallelEnv):
    metadata = {"name": "kept"}

    def __init__(self, pause=0.0):
        self.possible_agents, self.pause = ["walker_0", "walker_1"], pause
        self.keeper = subprocess.Popen([sys.executable, "-S", "-c", KEEPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def observation_space(self, agent):
        return Box(-20, 20, (2,), np.float32)

    def action_space(self, agent):
        return Discrete(3)

    def reset(self, seed=None, options=None):
        self.agents, self.time = list(self.possible_agents), 0
        self.goal = int(np.random.default_rng(seed).integers(-5, 6))
        self.place = self.moved(0)
        return self.look(), {agent: {} for agent in self.agents}

    def step(self, actions):
        time.sleep(self.pause)
        self.time += 1
        self.place = self.moved(sum(int(action) - 1 for action in actions.values()))
        is_over = self.time >= 20
        told = (dict.fromkeys(self.agents, value) for value in (-float(abs(self.place - self.goal)), False, is_over, {}))
        returned = (self.look(), *told)
        self.agents = [] if is_over else self.agents
        return returned

    def moved(self, by):
        self.keeper.stdin.write(f"{by}\\n")
        self.keeper.stdin.flush()
        return int(self.keeper.stdout.readline())

    def look(self):
        return {agent: np.array([self.place, self.goal], np.float32).clip(-20, 20) for agent in self.agents}

    def close(self):
        for stream in (self.keeper.stdin, self.keeper.stdout):
            stream.close()
        self.keeper.wait()
'''
COLUMNS = ("minutes", "step", "children", "threads", "files", "memory_mib", "cpu_ms_per_step")
MAY_GROW = {"children": 1, "threads": 1, "files": 1}
MOST_GROWTH = 1.1


def main() -> int:
    """Train and watch; return 1 if anything grows.

    Raises:
        UserError: `--csv` cannot be written.
    """
    from benchmarks.measuring import ready_folder, refuse
    from tests.pipeline.projects import Project, tiny_params
    from tests.pipeline.servers import empty_store

    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two looks")
    parser.add_argument(
        "--pause", type=float, default=0.0, help="seconds that a step of the environment sleeps: leaves the machine to others"
    )
    parser.add_argument("--csv", type=Path, help="where every look is written")
    options = parser.parse_args()
    if options.csv and options.csv.is_dir():
        refuse(f"--csv {options.csv} is a folder: name a file")
    if options.csv:
        ready_folder("--csv", options.csv.parent)
    folder = Path(tempfile.mkdtemp(prefix="matwm-soak-"))
    changes = {
        "env": {"family": "pettingzoo", "name": "kept:Kept", "options": {"pause": options.pause}},
        "run": {"save_interval": 200},
        "retention": {"keep_last": 2},
        "evaluation": {"interval": 2000},
    }
    params = tiny_params(changes, {"s00": {"from": "checkpoints/root", "until": 10_000_000}})
    params["env"]["options"] = {"pause": options.pause}
    project = Project.create(folder / "project", params, empty_store(folder / "template.db"))
    (project.path / "kept.py").write_text(ENVIRONMENT, encoding="utf-8")
    command = [sys.executable, "-m", "pipeline.train", "s00"]
    trainer = subprocess.Popen(
        command,
        cwd=project.path,
        env=project.environment(),
        stdin=subprocess.DEVNULL,
    )
    try:
        looks = watch(trainer, project.path, 3600 * options.hours, options.every)
    finally:
        trainer.terminate()
        trainer.wait()
    if options.csv:
        with options.csv.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *looks])
    is_sound = say(looks)
    shutil.rmtree(folder)
    return 0 if is_sound else 1


def watch(trainer: "subprocess.Popen[bytes]", project: Path, seconds: float, every: float) -> list[tuple[float, ...]]:
    """Return what was seen of the trainer, from its first checkpoint on, in the order of `COLUMNS`."""
    process, began = psutil.Process(trainer.pid), time.monotonic()
    looks: list[tuple[float, ...]] = []
    before: tuple[int, float] | None = None
    while time.monotonic() - began < seconds:
        time.sleep(every)
        if trainer.poll() is not None:
            raise SystemExit(
                f"the training ended with exit code {trainer.returncode}: {project.with_name('log').read_text().splitlines()[-1:]}"
            )
        step = newest(project)
        with process.oneshot():
            cpu = sum(process.cpu_times()[:2])
            seen = (len(process.children(recursive=True)), process.num_threads(), process.num_fds(), process.memory_info().rss / 2**20)
        if before and step > before[0]:
            looks.append((round((time.monotonic() - began) / 60, 2), step, *seen, 1e3 * (cpu - before[1]) / (step - before[0])))
        if before is None or step > before[0]:
            before = (step, cpu) if step else None
    return looks


def newest(project: Path) -> int:
    """Return the newest checkpoint's step, 0 if there is none."""
    return max((step for work in places.work_folders(project) for step in places.steps_in(work / "checkpoints")), default=0)


def say(looks: list[tuple[float, ...]]) -> bool:
    """Print the medians of each quarter; return whether the last one has no more than the second."""
    if len(looks) < 8:
        sys.stdout.write(f"{len(looks)} looks are too few: let it train longer\n")
        return False
    ends = [round(quarter * len(looks) / 4) for quarter in range(5)]
    quarters = [looks[start:end] for start, end in zip(ends, ends[1:], strict=False)]
    sys.stdout.write(f"{len(looks)} looks in {looks[-1][0]:.0f} minutes, {looks[-1][1]:.0f} steps\n")
    grown: list[str] = []
    for column, name in enumerate(COLUMNS[2:], start=2):
        _, early, _, late = medians = [statistics.median(look[column] for look in quarter) for quarter in quarters]
        is_more = late > early + MAY_GROW[name] if name in MAY_GROW else late > early * MOST_GROWTH
        grown += [name] if is_more else []
        sys.stdout.write(
            f"{name:>16}  " + "  ".join(f"{median:10.2f}" for median in medians) + "  GROWS\n" * is_more + "\n" * (not is_more)
        )
    return not grown


if __name__ == "__main__":
    raise SystemExit(run_program(main))
