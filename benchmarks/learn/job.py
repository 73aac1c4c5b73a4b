"""Trains and judges one plan: stopped at any moment, by whatever, the same call goes on where its newest sound checkpoint is."""

import resource
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.learn import files
from benchmarks.learn.facts import diagnosis_of, parameters_of, rows_of
from benchmarks.learn.measures import TASKS
from benchmarks.learn.plan import CURVE_SEED, Plan, differences
from benchmarks.learn.thinning import thinned
from matwm.envs.scripted import LineUp, opponents, sides
from matwm.errors import UserError
from matwm.evaluation import Mode, evaluate, matchup_name
from matwm.manifest import ROOT, CheckpointError
from matwm.step_names import step_name
from matwm.store import LocalStore
from matwm.trainer import Trainer, build_trainer
from pipeline.source_code import git_facts

REPOSITORY = Path(__file__).parents[2]
KEPT = 2
"""Newest checkpoints that stay in the work folder."""
SHOWN_EPISODES = 100


class JobError(UserError):
    """The job cannot be done as asked; one sentence."""


class Job:
    """A plan with its files: `progress.json` and checkpoints in the work folder, one result file when it is finished."""

    def __init__(self, plan: Plan, work: Path, results: Path, *, save_every: int, say: Callable[[str], None]) -> None:
        self.plan, self._save_every, self._say = plan, save_every, say
        self.folder = work / plan.place
        self.result_file = results / plan.place.with_suffix(".json")
        self._store = LocalStore(self.folder)
        self._progress: dict[str, Any] = {}
        self._seconds = self._judging_seconds = 0.0

    def is_finished(self) -> bool:
        """Return whether the result is there.

        Raises:
            JobError: a result of another configuration is, of this seed or of another: one name has one configuration.
        """
        for file in sorted(self.result_file.parent.glob("seed_*.json")):
            found = files.read(file) or {}
            self._hold_to(found, found.get("seed"), "finished", file)
        return self.result_file.exists()

    def run(self, should_stop: Callable[[], bool]) -> bool:
        """Train, judge and write the result; return False if it was stopped before, with everything saved.

        Raises:
            JobError: work of another configuration, or another version of the arithmetic, is there, of this seed or of another.
            CheckpointError: a checkpoint cannot be written.
            NonFiniteLossError: training diverged.
        """
        trainer = self._begin()
        while True:
            step = trainer.env_step
            if self.plan.is_judged_at(step) and str(step) not in self._progress["curve"] and not self._judge_curve(trainer, should_stop):
                break
            if step == self.plan.steps:
                if self._finish(trainer, should_stop):
                    return True
                break
            self._advance(trainer, should_stop)
            if should_stop():
                break
        if trainer.env_step and trainer.env_step not in self._store.steps():
            self._save(trainer)
        self._say(f"{self.plan}: stopped at step {trainer.env_step:,}; the same command goes on")
        return False

    def _begin(self) -> Trainer:
        """Return a trainer in the newest saved state of this plan."""
        begun = {file.parent: files.read(file) or {} for file in sorted(self.folder.parent.glob("seed_*/progress.json"))}
        for folder, progress in begun.items():
            before = progress.get("identity")
            if not isinstance(before, dict):
                raise JobError(f"{folder / 'progress.json'} does not say what was begun: remove {folder}")
            self._hold_to(before, before["config"]["seed"], "begun", folder)
        found = begun.get(self.folder)
        if not found and self._store.steps():
            raise JobError(f"{self.folder} holds checkpoints, but no progress.json: remove it")
        self._progress = found or {"identity": self.plan.identity(), "code": [], "spent": {}, "curve": {}}
        code = git_facts(REPOSITORY)
        if code not in self._progress["code"]:
            self._progress["code"].append(code)
        files.write(self.folder / "progress.json", self._progress)
        checkpoint = self._store.newest(at_most=self.plan.steps)
        trainer = build_trainer(self.plan.config)
        if checkpoint is not None:
            try:
                trainer.resume(checkpoint)
            except CheckpointError:
                raise
            except ValueError as error:
                raise JobError(f"{checkpoint.path} does not fit {self.plan}: {error}") from error
            spent = self._progress["spent"].get(str(checkpoint.step), {})
            self._seconds = spent.get("cpu_seconds", 0.0)
            self._judging_seconds = spent.get("judging_cpu_seconds", 0.0)
            self._say(f"{self.plan}: goes on from step {checkpoint.step:,}")
        return trainer

    def _advance(self, trainer: Trainer, should_stop: Callable[[], bool]) -> None:
        """Train to the next step at which something is due, saving on the way."""
        plan, began = self.plan, time.process_time()
        while True:
            trainer.step()
            trainer.drain()
            step = trainer.env_step
            is_saved = step % self._save_every == 0 or step == plan.steps
            if is_saved or plan.is_judged_at(step) or should_stop():
                break
        self._seconds += time.process_time() - began
        if is_saved:
            began = time.process_time()
            self._save(trainer)
            self._seconds += time.process_time() - began
            self._say(self._line(trainer))

    def _save(self, trainer: Trainer) -> None:
        """Save a checkpoint, and before it what it has cost to come here."""
        self._progress["spent"][str(trainer.env_step)] = {
            "cpu_seconds": round(self._seconds, 2),
            "judging_cpu_seconds": round(self._judging_seconds, 2),
            "peak_bytes": self._peak(),
        }
        files.write(self.folder / "progress.json", self._progress)
        trainer.save(self._store, ROOT)
        for step in self._store.steps()[:-KEPT]:
            shutil.rmtree(self.folder / step_name(step))

    def _judge_curve(self, trainer: Trainer, should_stop: Callable[[], bool]) -> bool:
        plan = self.plan
        task = TASKS.get(plan.scenario)
        wanted = {measure.matchup for measure in task.measures if measure.has_curve} if task else {"self_play"}
        env = plan.config.env
        every = [LineUp((None,) * len(sides(env))), *opponents(env)]
        line_ups = [line_up for line_up in every if matchup_name(line_up) in wanted]
        rows = self._judge(trainer, line_ups, plan.judging.curve_episodes, CURVE_SEED, ["sampled"], should_stop)
        if rows:
            self._progress["curve"][str(trainer.env_step)] = rows
            files.write(self.folder / "progress.json", self._progress)
            self._say(f"{plan}: step {trainer.env_step:,} judged: {', '.join(map(_phrase, rows))}")
        return bool(rows)

    def _finish(self, trainer: Trainer, should_stop: Callable[[], bool]) -> bool:
        plan = self.plan
        peak = self._peak()  # before the environments of the last judgement
        rows = self._judge(trainer, None, plan.judging.episodes, plan.first_seed, ["sampled", "greedy"], should_stop)
        if not rows:
            return False
        checkpoint, began = self._store.open(plan.steps), time.process_time()
        diagnosis = diagnosis_of(checkpoint, plan.judging.curve_episodes)
        self._judging_seconds += time.process_time() - began
        facts = {
            "name": plan.name,
            "scenario": plan.scenario,
            "seed": plan.config.seed,
            "preset": plan.preset,
            "changes": dict(plan.changes),
            "code": self._progress["code"],
            "fingerprint": checkpoint.fingerprint,
            "cpu_seconds": round(self._seconds, 1),
            "judging_cpu_seconds": round(self._judging_seconds, 1),
            "peak_bytes": peak,
            "parameters": parameters_of(trainer),
            **plan.identity(),
            "evaluation": rows,
            "curve": self._progress["curve"],
            "diagnosis": diagnosis,
            "training": thinned(trainer.history, trainer.spec, plan.steps),
        }
        files.write(self.result_file, facts)
        minutes = self._seconds / 60
        self._say(f"{plan}: finished after {minutes:.1f} CPU minutes of training; {self.result_file}")
        return True

    def _judge(
        self,
        trainer: Trainer,
        line_ups: Sequence[LineUp] | None,
        episodes: int,
        first_seed: int,
        modes: list[Mode],
        should_stop: Callable[[], bool],
    ) -> list[dict[str, Any]]:
        """Return a row for each mode, match-up (None: all) and learned role, metric or speaker; nothing if stopped."""
        learner, began = trainer.learner, time.process_time()
        results = evaluate(
            learner.world_model,
            learner.actors,
            self.plan.config.env,
            episodes=episodes,
            first_seed=first_seed,
            modes=modes,
            acting_context=self.plan.config.schedule.acting_context,
            against=line_ups,
            should_stop=should_stop,
        )
        self._judging_seconds += time.process_time() - began
        return [row for result in results for row in rows_of(result)]

    def _line(self, trainer: Trainer) -> str:
        recent = trainer.history.episodes[-SHOWN_EPISODES:]
        roles = trainer.spec.roles().items()
        cost = 1e3 * self._seconds / trainer.env_step
        line = f"{self.plan}: step {trainer.env_step:,} of {self.plan.steps:,}, {cost:.1f} CPU ms a step"
        if not recent:
            return f"{line}, no episode has ended"
        means = {role: sum(episode.returns[i] for episode in recent for i in mine) / (len(recent) * len(mine)) for role, mine in roles}
        return f"{line}, return {', '.join(f'{role} {mean:.3g}' for role, mean in means.items())}"

    def _peak(self) -> int:
        """Return the most memory that any of the job's processes has had so far, in bytes."""
        here = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return max([here, *(spent["peak_bytes"] for spent in self._progress["spent"].values())])

    def _hold_to(self, before: Mapping[str, Any], seed: int | None, state: str, place: Path) -> None:
        """Refuse this plan where, but for the seed, it is not what was finished or begun with a seed of its name."""
        now = self.plan.identity()
        ours = {**now, "config": {**now["config"], "seed": seed}}
        if phrases := list(differences({key: before.get(key) for key in now}, ours)):
            more = f" (and {len(phrases) - 1} more)" if len(phrases) > 1 else ""
            raise JobError(f"{self.plan}: {state} with seed {seed} otherwise: {phrases[0]}{more}: give another --name, or remove {place}")


def _phrase(row: Mapping[str, Any]) -> str:
    if "speaker" in row:
        return f"{row['speaker']}'s words {row['information']:.2g} nats, swapped followed {row['swapped_followed']:.2g} ({row['matchup']})"
    return f"{row.get('role') or row['metric']} {row['mean']:.3g} ({row['matchup']})"
