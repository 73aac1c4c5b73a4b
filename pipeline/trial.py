"""Trains one trial of a sweep to the end and evaluates it: the process that the stage `sweep@<sweep>` starts for each (see sweep.py)."""

import argparse
from pathlib import Path

from matwm.errors import run_program
from pipeline.memory import keep_freed_memory
from pipeline.process import Interruption, follow_parent, leave


def run_trial(project: Path, name: str, interruption: Interruption) -> int:
    """Train, evaluate, and keep the outcome; return the exit code.

    Raises:
        ConfigError, ProjectError, CheckpointError, TrackingError: one sentence that a person can act on.
    """
    from matwm.params_yaml import read_params
    from pipeline import finished_trials
    from pipeline import project as places
    from pipeline.evaluate import evaluate
    from pipeline.job import Job, open_start
    from pipeline.params import segments
    from pipeline.train import train

    if code := train(project, name, interruption):
        return code
    if interruption.signal is not None:
        return interruption.exit_code
    evaluate(project, name)
    graph = segments.resolve_all(read_params(project / places.PARAMS), project)
    finished_trials.keep(Job(project, graph[name], open_start(project, graph[name], graph), None))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the trial named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.trial", description="Train and evaluate one trial of a sweep of params.yaml.")
    parser.add_argument("trial", metavar="SWEEP/TRIAL")
    name = parser.parse_args(arguments).trial
    follow_parent(is_asked=True)
    keep_freed_memory()
    with Interruption() as interruption:
        from pipeline.project import root

        return run_program(lambda: run_trial(root(), name, interruption))


if __name__ == "__main__":
    leave(main())
