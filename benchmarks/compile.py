"""Prints what torch.compile brings on the CPU: `.venv/bin/python benchmarks/compile.py [PRESET ...]`.

Compiled are the world model's loss and a step of imagination. CPU seconds of this process on one thread, with and without in
turns on the same batch, medians. torch keeps what it has compiled (TORCHINDUCTOR_CACHE_DIR): name an empty folder to see a first start.
"""

import argparse
import os
import shutil
import statistics

import torch
from measuring import at_least, cpu_seconds, known_presets, machine, refuse, wall_seconds
from step_cost import filled_trainer

from matwm.errors import run_program
from matwm.learner import Learner
from matwm.params_yaml import load_config, preset_path
from matwm.rng import generator_for


def compile_world_model(learner: Learner) -> None:
    """Replace the functions that take most of the time, and can be compiled, by their compiled versions."""
    for name in ("loss", "advance"):
        setattr(learner.world_model, name, torch.compile(getattr(learner.world_model, name)))


def measure(preset: str, repetitions: int) -> None:
    """Print what both updates of one preset cost."""
    config = load_config(preset_path(preset))
    trainer = filled_trainer(config)
    plain, compiled = trainer.learner, Learner(trainer.spec, config, torch.device("cpu"))
    compile_world_model(compiled)
    rng = generator_for(0, "benchmark", 0)
    (windows, _), contexts = trainer.sample_windows(rng), trainer.sample_contexts(rng)
    for name, calls in {
        "world-model update": [lambda one=one: one.update_world_model(windows) for one in (plain, compiled)],
        "agents' update": [lambda one=one: one.update_agents(contexts) for one in (plain, compiled)],
    }.items():
        first = wall_seconds(calls[1])
        for call in calls:
            call()
        timed = [[cpu_seconds(call) for call in calls] for _ in range(repetitions)]
        without, with_it = (1e3 * statistics.median(column) for column in zip(*timed, strict=True))
        ratio = statistics.median(pair[1] / pair[0] for pair in timed)
        print(f"{preset}, {name}: {without:.1f} ms, compiled {with_it:.1f} ms ({ratio:.2f}); first call {first:.0f} s wall", flush=True)


def main() -> None:
    """Measure the presets named on the command line."""
    parser = argparse.ArgumentParser(description="Print what torch.compile brings on the CPU.")
    parser.add_argument("presets", nargs="*", default=["cpu-small", "paper"], metavar="PRESET", help="(cpu-small paper)")
    parser.add_argument("--repetitions", type=int, default=9, metavar="N", help="(9)")
    options = parser.parse_args()
    at_least("--repetitions", options.repetitions, 1)
    known_presets(options.presets)
    if not shutil.which(compiler := os.environ.get("CXX", "g++")):
        refuse(f"torch.compile needs a C++ compiler, and {compiler} is not here: install it, or name another one in CXX")
    print(machine())
    for preset in options.presets:
        measure(preset, options.repetitions)


if __name__ == "__main__":
    raise SystemExit(run_program(main))
