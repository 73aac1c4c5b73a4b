"""Prints environment steps per second of training on a GPU: `.venv/bin/python benchmarks/gpu.py [PRESET ...]`.

Each way is timed in a process of its own: warm-up and some steps with updates, which do not count (kernels are chosen, compiled and
recorded there), then whole steps by the wall clock, the environment on the CPU included.
"""

import argparse
import json
import time
from typing import Any

import torch
from compile import compile_world_model
from measuring import at_least, in_a_process, known_presets, machine, refuse

from matwm.config import Config, merge
from matwm.errors import run_program
from matwm.params_yaml import load_config, parse_config, preset_path
from matwm.trainer import build_trainer

WAYS = ("eager", "compiled", "graphed", "compiled and graphed")
PRECISIONS = ("float32", "bfloat16")
SETTLING_STEPS = 30
STEPS = 50_000
"""Of the run whose time is told too."""


def config_of(preset: str, way: str, precision: str, device: str = "cuda") -> Config:
    """Return a preset's configuration, to be trained in this way."""
    run = {"device": device, "precision": precision, "cuda_graphs": way.endswith("graphed")}
    return parse_config(merge(load_config(preset_path(preset)).resolved(), {"run": run}))


def measure(config: Config, steps: int, *, is_compiled: bool) -> dict[str, Any]:
    """Return the environment steps per second and the GPU's memory at its fullest."""
    trainer = build_trainer(config)
    if is_compiled:
        compile_world_model(trainer.learner)
    while trainer.env_step < config.schedule.random_steps + SETTLING_STEPS:
        trainer.step()
    trainer.snapshot()  # waits for everything
    began = time.perf_counter()
    for _ in range(steps):
        trainer.step()
    trainer.snapshot()
    taken = time.perf_counter() - began
    peak = torch.cuda.max_memory_allocated() if config.run.device == "cuda" else 0
    return {"environment": trainer.spec.name, "steps_per_second": steps / taken, "peak_bytes": peak}


def main() -> None:
    """Measure the presets named on the command line."""
    parser = argparse.ArgumentParser(description="Print environment steps per second of training on a GPU.")
    parser.add_argument("presets", nargs="*", default=["paper"], metavar="PRESET", help="(paper)")
    parser.add_argument("--steps", type=int, default=500, metavar="N", help="that are timed (500)")
    parser.add_argument("--child", nargs=2, metavar=("WAY", "PRECISION"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        refuse(f"torch {torch.__version__} sees no CUDA device here: there is nothing to measure")
    at_least("--steps", options.steps, 1)
    if options.child:
        way, precision = options.child
        config = config_of(options.presets[0], way, precision)
        print(json.dumps(measure(config, options.steps, is_compiled=way.startswith("compiled"))))
        return
    known_presets(options.presets)
    print(f"{torch.cuda.get_device_name()}; {machine()}")
    for preset in options.presets:
        for precision in PRECISIONS:
            for way in WAYS:
                found = in_a_process(__file__, way, precision, "--steps", str(options.steps), preset)
                rate, peak = found["steps_per_second"], found["peak_bytes"] / 2**20
                minutes = STEPS / rate / 60
                line = f"{rate:8.1f} environment steps a second, {minutes:6.1f} min for {STEPS:,}, {peak:,.0f} MiB of the GPU"
                print(f"{preset} on {found['environment']}, {precision}, {way}: {line}", flush=True)


if __name__ == "__main__":
    raise SystemExit(run_program(main))
