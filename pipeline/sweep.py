"""Stage `sweep@<sweep>`: trains and evaluates every trial of a sweep, each in a process of its own, several at a time if asked.

Killed at any moment the same call goes on: a finished trial is only put back (see finished_trials.py), others go on from their newest
checkpoint.
A trial that fails does not keep the others from being trained; the stage then exits with 1, so that DVC records nothing.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from matwm.errors import run_program
from pipeline.process import Interruption, follow_parent, leave

if TYPE_CHECKING:
    from pipeline.segments import ResolvedSegment

JOBS = "MATWM_JOBS"
"""In the environment: how many trials may be trained at a time; default 1."""
POLL_SECONDS = 0.1


def sweep(project: Path, name: str, jobs: int, interruption: Interruption) -> int:
    """Train and evaluate all trials of a sweep; return the exit code.

    Raises:
        ConfigError, ProjectError, CheckpointError: one sentence that a person can act on.
    """
    from matwm.params_yaml import read_params
    from pipeline import finished_trials, segments
    from pipeline import project as places
    from pipeline.job import Job, open_start
    from pipeline.notify import notify

    graph = segments.resolve_all(read_params(project / places.PARAMS), project)
    chosen = {trial: segment for trial, segment in graph.items() if trial.startswith(f"{name}/")}
    if not chosen:
        known = dict.fromkeys(trial.partition("/")[0] for trial in graph if "/" in trial)
        raise places.ProjectError(f"params.yaml has no sweep {name!r}: it has {', '.join(known) or 'none'}")
    for folder in ("plots", "metrics", "checkpoints"):  # outputs of the stage, also while nothing is in them
        (project / folder / name).mkdir(parents=True, exist_ok=True)
    finished = {
        trial
        for trial, segment in chosen.items()
        if finished_trials.restore(Job(project, segment, open_start(project, segment, graph), None))
    }
    if finished:
        sys.stderr.write(f"sweep {name}: {len(finished)} of {len(chosen)} trials are finished\n")
    waiting = {trial: segment for trial, segment in chosen.items() if trial not in finished}
    with interruption.deferred():
        failed = _train_all(project, name, waiting, jobs, interruption)
    if interruption.signal is not None:
        sys.stderr.write(f"sweep {name} is interrupted: the same command goes on where its trials were\n")
        return interruption.exit_code
    for trial, code in failed.items():
        sys.stderr.write(
            f"trial {trial} failed (exit code {code}; its own sentence stands above): mend that and run the same command again, or leave "
            f"the trial out: skip: [{trial.partition('/')[2]}] in sweeps.{name}\n"
        )
    facts = {"sweep": name, "trials": len(chosen), "failed": sorted(failed)}
    notify(next(iter(chosen.values())).config.tracking.notify, "failed" if failed else "finished", facts)
    return 1 if failed else 0


def _train_all(project: Path, name: str, waiting: "dict[str, ResolvedSegment]", jobs: int, interruption: Interruption) -> dict[str, int]:
    """Run a process for each trial; return the exit codes of those that failed. After a signal all are ended, and none is begun."""
    from pipeline.params.room import Room

    running: dict[str, subprocess.Popen[bytes]] = {}
    failed: dict[str, int] = {}
    room = Room(project, jobs)
    environment = {**os.environ, "MATWM_PARENT": str(os.getpid()), "MATWM_PLAIN_PROGRESS": "1" if jobs > 1 else ""}
    is_told = False
    while waiting or running:
        if interruption.signal is not None:
            return _end(running)
        for trial in list(waiting):
            if not room.has(waiting[trial].config, waiting[trial].until):
                break
            segment = waiting.pop(trial)
            room.take(trial, segment.config, segment.until)
            running[trial] = subprocess.Popen([sys.executable, "-m", "pipeline.trial", trial], env=environment, cwd=project)
        if not is_told and room.shortage:
            sys.stderr.write(f"sweep {name}: {room.shortage}\n")
            is_told = True
        time.sleep(POLL_SECONDS)
        for trial, process in list(running.items()):
            if (code := process.poll()) is not None:
                del running[trial]
                room.give_back(trial)
                if code:
                    failed[trial] = code if code > 0 else 128 - code
    return failed


def _end(running: "Mapping[str, subprocess.Popen[bytes]]") -> dict[str, int]:
    """Ask the trials to save and end, and wait for that: they follow this process, so none outlives it."""
    for process in running.values():
        process.terminate()
    for process in running.values():
        process.wait()
    return {}


def main(arguments: list[str] | None = None) -> int:
    """Run the stage for the sweep named on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.sweep", description="Train and evaluate the trials of a sweep of params.yaml."
    )
    parser.add_argument("sweep", help="its name")
    name = parser.parse_args(arguments).sweep
    follow_parent()
    with Interruption() as interruption:
        from pipeline.project import root

        return run_program(lambda: sweep(root(), name, _jobs(), interruption))


def _jobs() -> int:
    text = os.environ.get(JOBS, "1")
    from pipeline.project import ProjectError

    if not text.isdigit() or int(text) == 0:
        raise ProjectError(f"{JOBS} is {text!r}: expected how many trials may be trained at a time")
    return int(text)


if __name__ == "__main__":
    leave(main())
