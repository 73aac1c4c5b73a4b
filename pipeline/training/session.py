"""One process's share in training a segment: from its newest sound checkpoint on, telling MLflow, until it is complete or interrupted."""

import contextlib
import logging
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from matwm.changes import as_yaml
from matwm.checkpoint import Checkpoint, CheckpointError, open_checkpoint, read_manifest
from matwm.evaluation import evaluate
from matwm.history import Point
from matwm.manifest import reservation
from matwm.store import LocalStore
from matwm.trainer import Trainer, build_trainer
from matwm.version import NUMERICS
from pipeline import project as places
from pipeline import runs, source_code
from pipeline.finished_trials import publish_checkpoints
from pipeline.job import Job
from pipeline.metrics import best, records, words
from pipeline.metrics.mismatches import Mismatch
from pipeline.metrics.recorded import TIMES, write_recorded
from pipeline.params import decisions, sweeps
from pipeline.params.retention import retained_by
from pipeline.process import Interruption, allowance
from pipeline.run import CHANGED, PARENT, SHOWN_BELOW, SWEEP
from pipeline.tracking.committed import committed_records
from pipeline.tracking.heartbeat import Heartbeat
from pipeline.tracking.labels import params_of
from pipeline.tracking.local_run import LocalRun, milliseconds
from pipeline.tracking.run_facts import run_facts
from pipeline.tracking.tracker import Tracker
from pipeline.training.background import Pusher
from pipeline.training.elsewhere import inherited_records
from pipeline.training.progress import Display
from pipeline.training.recovery import recover, set_aside, survey
from pipeline.training.saving import Saver

logger = logging.getLogger(__name__)

SIGNAL_PATIENCE_SECONDS = 8.0
"""For MLflow and the DVC remote to take what is left when a signal has come: whoever sent it will not wait for long."""
LONG_SAVE_SECONDS = 3.0
"""After a save that took longer than this another one may not end before a signal's sender loses patience."""


class Session:
    """Trains a segment in its work directory; the caller holds the lock."""

    def __init__(self, job: Job) -> None:
        self.job, self.segment, self.config = job, job.segment, job.segment.config
        self.store = LocalStore(job.work / "checkpoints", chunks_from=[] if job.start.is_root else [job.start.folder])
        self._code = {**source_code.git_facts(job.project), "code": source_code.code_digest()}
        tracking = self.config.tracking
        self.run = LocalRun(job.work)
        self._facts = self.run.state.now
        self.tracker = Tracker(self.run, runs.tracking_uri(job.project), tracking.upload_seconds, Heartbeat(tracking.upload_seconds))
        self.saver = Saver(self.store, job.start.parent, self._note_save, prepare=self.run.records.flush)
        self._display: Display | None = None
        self._trainer: Trainer | None = None
        self._good_step: int | None = None
        self._save_seconds = 0.0
        self._machine = records.machine_facts(self.config.run.device, self.config.run.threads)
        self.pusher = Pusher(job.project, job.work) if tracking.push else None
        self._missing: tuple[int, ...] = ()
        self._newest: int | None = None
        self._is_open = False
        self._stopped: dict[str, int] = {}

    def open(self) -> None:
        """Find out what is left to do, bringing back what was lost, and open the run in MLflow."""
        if self._code["commit"] is None:
            logger.warning("segment %s is recorded without a commit: %s", self.segment.name, source_code.no_commit(self.job.project))
        self._look_for_drift()
        set_aside(self.store, self.job.key)
        found = survey(self.store, self.segment)
        if found.missing:
            recover(self.job, self.store)
            found = survey(self.store, self.segment)
        if gone := [str(step) for step in found.missing if step < (found.newest or 0)]:
            logger.warning(
                "segment %s is to keep step %s, of which there is no checkpoint any more: trained again", self.segment.name, ", ".join(gone)
            )
        if found.newest is None and not self.job.start.is_root:
            open_checkpoint(self.job.start.folder)  # Refuse one that is damaged before there is a run.
        self._missing, self._newest = found.missing, found.newest
        self._open_run()
        self._is_open = True
        self.tracker.start()

    def _open_run(self) -> None:
        """Describe the run that MLflow is to show, and take up its points where the newest checkpoint has them."""
        newest, start = self._newest, self.job.start
        with self.run.state.change() as run:
            run.segment, run.key, run.name = self.segment.name, self.job.key, sweeps.split(self.segment.name)[1]
            run.started, run.machine = run.started or _now(), self._machine
            run.start = None if start.is_root else str(start.folder.absolute())
            run.experiment = self.config.tracking.experiment
            run.params = {f"train.{key}": value for key, value in params_of(self.config).items()}
            run.tags |= self._tags()
            run.status, run.ended_ms = "RUNNING", None
            run.checkpoints, run.refused = [], []  # What is there already is not sent again, and what is not there, is.
        self.run.tail.resume(newest or start.parent.step, is_exact=self._facts.resume != "episode")
        if not len(self.run.records) and newest:
            self.run.records.take(
                point for point in committed_records(self.job.project, self.segment.name, self.job.key) if point.step <= newest
            )
        if start.run_id and not self._facts.has_inherited:
            self.run.records.take(inherited_records(self.job.project, start.run_id, start.parent.step))
        with self.run.state.change() as run:
            run.has_inherited = True

    def train(self, interruption: Interruption) -> bool:
        """Make every checkpoint that the segment must have and does not have; return False if interrupted.

        Raises:
            NonFiniteLossError: training diverged.
            CheckpointError: a checkpoint cannot be read or written.
        """
        display = self._display = Display(self.segment.name, self.segment.until, line_seconds=self.config.tracking.progress_seconds)
        try:
            with display, self.saver:
                return self._train_all(display, interruption)
        except Exception as error:
            error.add_note(f"segment {self.segment.name}: {self.last_good()}; once the cause is mended, the same command goes on")
            raise
        finally:
            self._close_trainer()

    def publish(self) -> None:
        """Give the finished checkpoints that stay their names in `checkpoints/<segment>`, all at once, and write the metrics' files.

        Raises:
            CheckpointError: a checkpoint is damaged or cannot be linked.
        """
        for path in publish_checkpoints(self.job, self.store):
            logger.warning("%s in DVC's cache is damaged: it is replaced", path)
        self._write_records(read_manifest(self.store.folder / places.step_folder(self.segment.until)))

    def close(self, status: str, interruption: Interruption) -> None:
        """End the run in MLflow if it was opened; wait for it and the DVC remote to take what is left, not long once a signal came."""
        if not self._is_open:
            return
        left = allowance(interruption, SIGNAL_PATIENCE_SECONDS)
        self.run.end(status, milliseconds(self._facts.finished) if status == "FINISHED" else None)
        self.tracker.close(left=left)
        if self.pusher:
            self.pusher.close(left=left)

    def note_divergence(self) -> None:
        """Record that a search's trial has come to nothing, so that the search goes on without it."""
        self._decide({"diverged": True})

    def leave(self) -> None:
        """Leave the run to the process that owns it: how this one ended is no news of it."""
        with self.run.state.change() as run:
            run.status = run.shown_status = None
        self.tracker.close()
        if self.pusher:
            self.pusher.close()

    def facts(self) -> dict[str, object]:
        """Return which training this is, for whoever is notified of its end."""
        found = {"segment": self.segment.name, "run_id": self.run.run_id, "experiment": self.config.tracking.experiment}
        return {**found, "step": self._good_step or self._newest, "until": self.segment.until}

    def contradiction(self) -> str | None:
        """Say that a resume was not exact, and where it was noticed first; None if nothing was noticed."""
        found = self.mismatches
        if not found:
            return None
        return (
            f"NOT REPRODUCED: {len(found)} metric point{'s' * (len(found) > 1)} of segment {self.segment.name} came out otherwise when "
            f"steps were computed again after an interruption, first {found[0]}: this run is not the one that no interruption would have "
            f"made. What is published is what was trained; metrics/{self.segment.name}/run.json and MLflow say so too"
        )

    @property
    def mismatches(self) -> list[Mismatch]:
        """Every metric point that was contradicted by computing it again: empty if all resumes were exact."""
        return self.run.tail.mismatches.all()

    def last_good(self) -> str:
        """Say which checkpoint there is to go on from."""
        if self._good_step is not None:
            return f"the last good checkpoint is of step {self._good_step}"
        if self.job.start.is_root:
            return "there is no checkpoint yet"
        return f"the last good checkpoint is its parent's, of step {self.job.start.parent.step}"

    def _targets(self) -> list[int]:
        """Return the steps to train to, and the newest checkpoint's if the process before could not evaluate it any more."""
        return sorted({*self._missing, *(step for step in [self._newest] if step is not None and self._owes_evaluation(step))})

    def _train_all(self, display: Display, interruption: Interruption) -> bool:
        trainer: Trainer | None = None
        for target in self._targets():
            if self._has_ended(target):
                break
            # To load a large replay takes long. Later there is something to save, and `_train_to` looks for signals.
            with interruption.prompt() if trainer is None else contextlib.nullcontext():
                trainer = self._at_most(target, trainer, display)
            if not self._train_to(target, trainer, display, interruption):
                return False
        else:
            self._has_ended(self.segment.until)  # A rule that came after the training.
        return True

    def _has_ended(self, target: int) -> bool:
        """Return whether the training is not to reach a step, by what its evaluations before it say; this is recorded first."""
        early = self._early_end()
        if early is None or target <= early[0]:
            return False
        step, is_pruned = early
        if is_pruned:
            self._decide({"until": step, "pruned": True})
            why = "it is below the search's floor"
        else:
            self._stopped = {"stopped_at": step, "patience": self.segment.patience or 0}
            self.run.tag({"matwm.stopped_at": str(step)})
            why = f"no evaluation of the latest {self.segment.patience} is better than those before them"
        self.segment = self.segment.ending(step)
        self.job = replace(self.job, segment=self.segment)
        self.run.tag({"matwm.until": str(step)})
        sys.stderr.write(f"{self.segment.name} ends at step {step}: {why}\n")
        return True

    def _early_end(self) -> tuple[int, bool] | None:
        """Return at which step the recorded evaluations end the training, and whether a search's floor does; None if they do not."""
        segment = self.segment
        if not segment.patience and not segment.floors:
            return None
        objective, mode = self.config.objectives[0], self.config.evaluation.modes[0]
        judged = best.curve(objective, mode, self.run.records.points(), self.job.start.parent.step)
        found: list[tuple[int, bool]] = []
        if (step := best.below(objective, judged, segment.floors)) is not None:
            found.append((step, True))
        if segment.patience:
            asked_for = max((step for step in segment.needed if step < segment.until), default=0)  # It does not end before these.
            steps = [step for step in segment.judged if step >= asked_for]
            if (step := best.stalled(objective, judged, segment.patience, steps)) is not None:
                found.append((step, False))
        return min(found, key=lambda one: one[0], default=None)

    def _decide(self, decision: dict[str, Any]) -> None:
        """Record what is decided about a trial, if its sweep decides while it runs."""
        if self.segment.log is not None:
            decisions.append(self.segment.log, [{"trial": sweeps.split(self.segment.name)[1], **decision}])

    def _at_most(self, target: int, trainer: Trainer | None, display: Display) -> Trainer:
        """Return the trainer, or one from the newest sound checkpoint on the way to `target` if that is farther."""
        if trainer is not None and not any(trainer.env_step < step <= target for step in self.store.steps()):
            return trainer
        newest = self.store.newest(at_most=target)
        if trainer is None or (newest is not None and newest.step > trainer.env_step):
            trainer = self._trainer_from(newest)
            display.begin(trainer.env_step)
        return trainer

    def _trainer_from(self, newest: Checkpoint | None) -> Trainer:
        self._close_trainer()
        trainer = self._trainer = build_trainer(self.config)
        checkpoint = newest or (None if self.job.start.is_root else open_checkpoint(self.job.start.folder))
        with self.run.state.change() as run:
            if newest is not None and newest.step not in run.resumed_at:
                run.resumed_at.append(newest.step)
            run.resume = trainer.spec.resume
        self._good_step = newest.step if newest else None
        modules = (trainer.learner.world_model, trainer.learner.agents)
        counted = sum(weight.numel() for module in modules for weight in module.parameters())
        self.run.tag({"matwm.parameters": str(counted), "matwm.resume": trainer.spec.resume})
        if said := reservation(trainer.spec):
            logger.warning("%s", said)
        if checkpoint is not None:
            try:
                trainer.resume(checkpoint)
            except CheckpointError:
                raise
            except ValueError as error:
                raise places.ProjectError(f"{checkpoint.path} does not fit segment {self.segment.name}: {error}") from error
            whose = "its own checkpoint" if newest else f"{self.segment.origin.folder},"
            sys.stderr.write(f"{self.segment.name} goes on from {whose} of step {checkpoint.step}\n")
        return trainer

    def _close_trainer(self) -> None:
        """Let the environment of the present trainer close what it holds."""
        trainer, self._trainer = self._trainer, None
        if trainer is not None:
            trainer.close()

    def _train_to(self, target: int, trainer: Trainer, display: Display, interruption: Interruption) -> bool:
        """Train to a step, where a checkpoint is saved; return False if a signal came first."""
        if self._owes_evaluation(trainer.env_step) and not self._evaluate(trainer, interruption):
            return False
        while trainer.env_step < target:
            if interruption.signal is not None:
                self._keep(trainer)
                return False
            trainer.step()
            self.saver.check()
            self.tracker.check()
            self._tell(trainer, display)
            if trainer.env_step == target:
                self._save(trainer)  # Before it is evaluated, which can take minutes.
            if self._is_evaluated(trainer.env_step) and not self._evaluate(trainer, interruption):
                return False
            display.advance(trainer.env_step)
        return True

    def _tell(self, trainer: Trainer, display: Display) -> None:
        """Tell MLflow, and whoever watches, what the step brought."""
        self.run.log(trainer.drain(), trainer.env_step)
        if trainer.history.episodes and trainer.history.episodes[-1].end_step == trainer.env_step:
            display.returns(*records.latest_of_roles(trainer.history, trainer.spec))
        if trainer.env_step % self.config.run.metrics_interval == 0:
            hours = max(0.0, time.time() - self.run.started_ms / 1000) / 3600
            self._record([Point("time/steps_per_second", trainer.env_step, display.rate), Point("time/hours", trainer.env_step, hours)])

    def _record(self, points: list[Point], *, is_revision: bool = False) -> None:
        """Log what no checkpoint holds."""
        self.run.records.add(points, time.time_ns() // 1_000_000, is_revision=is_revision)

    def _is_evaluated(self, step: int) -> bool:
        interval = self.config.evaluation.interval
        return bool(interval) and step % interval == 0

    def _owes_evaluation(self, step: int) -> bool:
        """Return whether a step of this segment that has been trained lacks its evaluation."""
        return self._is_evaluated(step) and step > self.job.start.parent.step and not self.run.records.has_evaluation(step)

    def _evaluate(self, trainer: Trainer, interruption: Interruption) -> bool:
        """Tell MLflow how the policies do now; return False if a signal came first: then nothing is told, and all is saved.

        Training goes on as if nobody had looked. What a signal cuts short is done by the process that goes on from here.
        """
        judging, learner = self.config.evaluation, trainer.learner
        results = evaluate(
            learner.world_model,
            learner.actors,
            self.config.env,
            episodes=judging.episodes,
            first_seed=judging.seed,
            modes=judging.modes,
            acting_context=self.config.schedule.acting_context,
            should_stop=lambda: interruption.signal is not None,
        )
        if not results:
            self._keep(trainer)
            return False
        points: list[Point] = []
        for result in results:
            learners = {trainer.spec.agents[number]: result.agents[trainer.spec.agents[number]] for number in result.learned}
            points += best.points(trainer.env_step, str(result.mode), result.matchup, learners, result.metrics)
            points += words.points(trainer.env_step, str(result.mode), result.matchup, result.communication)
        self._record(points, is_revision=True)
        judged = best.of_history(self.config.objectives, judging.modes[0], self.run.records.points(), self.job.start.parent.step)
        self.run.tag(best.tag(judged))
        return True

    def _keep(self, trainer: Trainer) -> None:
        """Save where a signal came; such a checkpoint is for going on and is not published.

        If a save was in flight and slow, its checkpoint has to do: whoever sent the signal will not wait for two in a row.
        """
        was_saving = self.saver.is_saving
        self.saver.wait()
        if was_saving and self._save_seconds > LONG_SAVE_SECONDS:
            return
        if trainer.env_step not in (self._good_step, self.job.start.parent.step):
            self._save(trainer)
            self.saver.wait()

    def _save(self, trainer: Trainer) -> None:
        """Have a checkpoint of now saved behind training, and record what training loses by it."""
        began = time.perf_counter()
        self.saver.save(trainer.snapshot)
        self._record([Point("checkpoint/stall_seconds", trainer.env_step, time.perf_counter() - began)])

    def _note_save(self, checkpoint: Checkpoint, seconds: float) -> None:
        before = self._good_step
        self._good_step, self._save_seconds = checkpoint.step, seconds
        self._record([Point("checkpoint/save_seconds", checkpoint.step, seconds)])
        if before is not None and before < checkpoint.step:
            self.run.tail.cut(before)
        self._saved(checkpoint)

    def _saved(self, checkpoint: Checkpoint) -> None:
        """Do what follows a save: the checkpoint is on the disk by now. Called in the saver's thread, once for each, in order."""
        self.run.note_saved(checkpoint.step)
        if self._display is not None:
            self._display.saved(checkpoint.step)
        if self.pusher:
            self.pusher.saved({*retained_by(self.segment, checkpoint), checkpoint.step})

    def _write_records(self, last: Checkpoint) -> None:
        folder = places.metrics_folder(self.job.project, self.segment.name)
        records.write_curves(folder, last.history(), last.spec.agents, last.step, self._stopped)
        write_recorded(folder / TIMES, self.run.records.points())
        with self.run.state.change() as run:
            if run.until != self.segment.until or run.finished is None:
                run.until, run.finished = self.segment.until, _now()
        places.write_json(folder / "run.json", run_facts(last, self._facts))

    def _look_for_drift(self) -> None:
        """Say if what is there was computed by other versions or on another device: then the end may be another, too."""
        origin = self.segment.origin.segment
        trained = places.run_record(self.job.project, origin) if origin else None
        for what, before in (
            (f"segment {self.segment.name} was begun", self._facts.machine),
            (f"its parent {origin} was trained", trained),
        ):
            if before and (found := records.drifted(before, self._machine)):
                logger.warning("%s with %s: what follows may not be bit for bit what it would have been", what, "; ".join(found))

    def _tags(self) -> dict[str, str]:
        tags = {
            "matwm.segment": self.segment.name,
            "matwm.key": self.job.key,
            "matwm.parent_digest": self.job.start.parent.digest,
            "matwm.numerics": str(NUMERICS),
            "matwm.code": self._code["code"],
            "matwm.until": str(self.segment.until),
            "matwm.env": self.config.env.name,
            "matwm.device": self._machine["device"],
            "matwm.torch": str(self._machine["libraries"]["torch"]),
            **best.tags(self.config),
            **{f"{CHANGED}{change.path}": f"{as_yaml(change.before)} -> {as_yaml(change.after)}" for change in self.segment.changed},
        }
        if not self.job.start.is_root:
            tags["matwm.parent_step"] = str(self.job.start.parent.step)
        if self.job.start.run_id:
            tags |= {PARENT: self.job.start.run_id}
            tags |= {SHOWN_BELOW: self.job.start.run_id} if "/" not in self.segment.name else {}  # Else it is below its sweep.
        if sweep := sweeps.split(self.segment.name)[0]:
            tags |= {SWEEP: sweep}
        if self.segment.patience:
            tags |= {"matwm.stopped_at": ""}
        if self._code["commit"]:
            tags |= {"matwm.git_commit": self._code["commit"], "matwm.git_dirty": str(self._code["dirty"]).lower()}
            tags["mlflow.source.git.commit"] = self._code["commit"]
        if self.job.launcher:
            tags["matwm.project_run"] = self.job.launcher
        return tags


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
