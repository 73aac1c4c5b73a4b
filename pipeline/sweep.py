"""Stage `sweep@<sweep>`: trains and evaluates every trial of a sweep, each in a process of its own, several at a time if asked.

Killed at any moment the same call goes on: a finished trial is only put back (see finished_trials.py), others go on from their newest
checkpoint.
A trial that fails does not keep the others from being trained; the stage then exits with 1, so that DVC records nothing.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from matwm.errors import run_program
from pipeline.process import Interruption, follow_parent, leave

if TYPE_CHECKING:
    from pipeline.params.segments import ResolvedSegment

JOBS = "MATWM_JOBS"
"""In the environment: how many trials may be trained at a time; default 1."""
POLL_SECONDS = 0.1


def sweep(project: Path, name: str, jobs: int, interruption: Interruption) -> int:
    """Train and evaluate all trials of a sweep; return the exit code.

    Raises:
        ConfigError, ProjectError, CheckpointError: one sentence that a person can act on.
    """
    from matwm.params_yaml import parse_sweeps, read_params
    from pipeline import project as places
    from pipeline.notify import notify

    known = parse_sweeps(read_params(project / places.PARAMS))
    if name not in known:
        raise places.ProjectError(f"params.yaml has no sweep {name!r}: it has {', '.join(known) or 'none'}")
    for folder in ("plots", "metrics", "checkpoints"):  # outputs of the stage, also while nothing is in them
        (project / folder / name).mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        queue = _Queue(project, name, is_decided=known[name].is_decided)
        if queue.is_decided:
            stack.enter_context(_opened_search(project, name))
        queue.refresh()
        if queue.finished:
            sys.stderr.write(f"sweep {name}: {len(queue.finished)} of {len(queue.trials)} trials are finished\n")
        stack.enter_context(interruption.deferred())
        failed = _train_all(project, name, queue, jobs, interruption)
    if interruption.signal is not None:
        sys.stderr.write(f"sweep {name} is interrupted: the same command goes on where its trials were\n")
        return interruption.exit_code
    for trial, code in failed.items():
        sys.stderr.write(
            f"trial {trial} failed (exit code {code}; its own sentence stands above): mend that and run the same command again, or leave "
            f"the trial out: skip: [{trial.partition('/')[2]}] in sweeps.{name}\n"
        )
    facts = {"sweep": name, "trials": len(queue.trials), "failed": sorted(failed)}
    notify(queue.notify, "failed" if failed else "finished", facts)
    return 1 if failed else 0


class _Queue:
    """The trials of a sweep: those that wait to be trained, and those that are finished."""

    def __init__(self, project: Path, name: str, *, is_decided: bool) -> None:
        """With `is_decided`, the trials become known while they are trained (see search.py and population.py)."""
        self.project, self.name, self.is_decided = project, name, is_decided
        self.trials: dict[str, ResolvedSegment] = {}
        self.waiting: dict[str, ResolvedSegment] = {}
        self.finished: set[str] = set()
        self.notify: str | None = None

    def refresh(self) -> None:
        """Decide what can be decided now, and take in the trials that are new; put back those of them that are finished."""
        from matwm.params_yaml import parse_sweeps, read_params
        from pipeline import population, search
        from pipeline import project as places
        from pipeline.params.segments import resolve_all

        decide = population.decide if parse_sweeps(read_params(self.project / places.PARAMS))[self.name].population else search.decide
        is_news = True
        while is_news:
            if self.is_decided:
                decide(self.project, self.name, self.finished.__contains__)
            graph = resolve_all(read_params(self.project / places.PARAMS), self.project)
            own = {name: one for name, one in graph.items() if name.startswith(f"{self.name}/")}
            new = {name: one for name, one in own.items() if name not in self.trials or one.until > self.trials[name].until}
            for name, segment in new.items():
                self.notify = segment.config.tracking.notify
                self.finished.discard(name)
                if self._is_put_back(segment, graph):
                    self.finished.add(name)
                else:
                    self.waiting[name] = segment
            self.trials |= new
            is_news = self.is_decided and any(name in self.finished for name in new)

    def can_begin(self, segment: "ResolvedSegment") -> bool:
        """Return whether the checkpoint is there that a trial starts from; if not, another trial makes it."""
        from matwm.manifest import MANIFEST

        return (self.project / segment.origin.folder / MANIFEST).is_file() or segment.origin.segment not in self.trials

    def _is_put_back(self, segment: "ResolvedSegment", graph: "Mapping[str, ResolvedSegment]") -> bool:
        from pipeline import finished_trials
        from pipeline.job import Job, open_start

        if not self.can_begin(segment):
            return False
        job = Job(self.project, segment, open_start(self.project, segment, graph), None)
        if finished_trials.restore(job):
            return True
        finished_trials.publish_starts(job)
        return False

    def has_come_to_nothing(self, trial: str) -> bool:
        """Return whether a trial that failed has diverged, which a search or a population takes for an answer."""
        from matwm.params_yaml import parse_sweeps, read_params
        from pipeline import project as places
        from pipeline.params import decisions

        params = read_params(self.project / places.PARAMS)
        log = decisions.read(self.project, params, self.name, parse_sweeps(params)[self.name])
        return bool(log.trials.get(trial.partition("/")[2], {}).get("diverged"))


@contextlib.contextmanager
def _opened_search(project: Path, name: str) -> Iterator[None]:
    """Open the log of a search's decisions, and hold its lock.

    Raises:
        ProjectError: the checkpoint that trials start from is not there.
    """
    from matwm.params_yaml import parse_sweeps, read_params
    from pipeline import project as places
    from pipeline.job import open_start
    from pipeline.params import decisions
    from pipeline.params.segments import resolve_all, sample_of
    from pipeline.process import exclusive

    params = read_params(project / places.PARAMS)
    config = parse_sweeps(params)[name]
    start = open_start(project, sample_of(params, project, name), resolve_all(params, project)).parent.digest
    with exclusive(decisions.lock_of(decisions.read(project, params, name, config)), f"sweep {name}"):
        decisions.open_log(project, params, name, config, start)
        yield


def _train_all(project: Path, name: str, queue: _Queue, jobs: int, interruption: Interruption) -> dict[str, int]:
    """Run a process for each trial; return the exit codes of those that failed. After a signal all are ended, and none is begun."""
    from pipeline.estimates.room import Room

    running: dict[str, subprocess.Popen[bytes]] = {}
    failed: dict[str, int] = {}
    room = Room(project, jobs)
    environment = {**os.environ, "MATWM_PARENT": str(os.getpid()), "MATWM_PLAIN_PROGRESS": "1" if jobs > 1 else ""}
    is_told = False
    while queue.waiting or running:
        if interruption.signal is not None:
            return _end(running)
        for trial in list(queue.waiting):
            if not queue.can_begin(queue.waiting[trial]):
                continue
            if not room.has(queue.waiting[trial].config, queue.waiting[trial].until):
                break
            segment = queue.waiting.pop(trial)
            room.take(trial, segment.config, segment.until)
            running[trial] = subprocess.Popen([sys.executable, "-m", "pipeline.trial", trial], env=environment, cwd=project)
        if not running:  # What they start from is not to be had.
            return {**failed, **dict.fromkeys(queue.waiting, 1)}
        if not is_told and room.shortage:
            sys.stderr.write(f"sweep {name}: {room.shortage}\n")
            is_told = True
        time.sleep(POLL_SECONDS)
        for trial, process in list(running.items()):
            if (code := process.poll()) is not None:
                del running[trial]
                room.give_back(trial)
                if code == 0:
                    queue.finished.add(trial)
                elif interruption.signal is None and not queue.has_come_to_nothing(trial):
                    failed[trial] = code if code > 0 else 128 - code
                if queue.is_decided and interruption.signal is None:
                    queue.refresh()
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
