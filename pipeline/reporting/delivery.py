"""Brings one run in MLflow up to date with its journal and outbox; every call here may wait for a server."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from matwm.manifest import CheckpointError
from pipeline import runs
from pipeline.metrics.journal import Journal, TimedPoint
from pipeline.reporting import life
from pipeline.reporting.outbox import Contents, Outbox
from pipeline.run import Run
from pipeline.stores.mlflow import MlflowStore

logger = logging.getLogger(__name__)

POINTS_PER_CALL = 1000
LABELS_PER_CALL = 100
LONGEST_PARAM = 6000
LONGEST_TAG = 8000

Item = TypeVar("Item")


class NoSuchRunError(Exception):
    """The run is not in this store, and nothing is known from which to make it."""


class ElsewhereError(runs.TrackingError):
    """Another machine, or another folder of this one, trains the run: nothing is sent, or every point would stand there twice."""


class AbandonedError(Exception):
    """Nobody waits for this thread any more, and another process may have the work directory by now."""


class Delivery:
    """One run in one store. Whatever is sent twice ends up there once, so a call that failed is simply made again."""

    is_training = False
    """Whether the run is this process's own: to be running, and nobody else's at the same time. Else it is only added to."""
    is_waiting = False
    """Whether `open_run` is finding out if somebody else is alive."""

    has_waited = False

    def __init__(
        self,
        uri: str,
        journal: Journal,
        outbox: Outbox,
        on_answer: Callable[[], None],
        abandoned: threading.Event,
        upload_seconds: float,
    ) -> None:
        """`on_answer` is called whenever the store has taken something. After `abandon` nothing is written here any more."""
        self.uri = uri
        self._journal = journal
        self._outbox = outbox
        self._on_answer = on_answer
        self._abandoned = abandoned
        self._noting = threading.Lock()
        self._upload_seconds = upload_seconds
        self._has_opened = False
        self._shown = -float("inf")

    def abandon(self) -> None:
        """Return when nothing is being written to the work directory; from now on, nothing is."""
        with self._noting:
            self._abandoned.set()

    def open_run(self) -> str:
        """Make sure that the run is there, with its history in the journal, and running if it shall; return its ID.

        Raises:
            NoSuchRunError: it is not, and the outbox does not say how to make it.
            ElsewhereError: another process trains it.
        """
        contents = self._outbox.contents
        run_id = self._known_run() or self._same_training()
        if run_id is None:
            if contents.name is None:
                raise NoSuchRunError
            tags = cut({**contents.tags, "matwm.writer": contents.writer}, LONGEST_TAG)
            experiment = runs.experiment_id(self.uri, contents.experiment)
            made = runs.client(self.uri).create_run(experiment, start_time=contents.started_ms, run_name=contents.name, tags=tags)
            run_id = made.info.run_id
        else:
            self._take_over(run_id)
        with self._note() as contents:
            contents.has_news |= contents.run_id != run_id
            contents.run_id = run_id
            contents.is_running |= contents.status == "RUNNING"
            contents.status = None if contents.status == "RUNNING" else contents.status
        self._has_opened = True
        self._show_life()
        self._on_answer()
        return run_id

    def check_writer(self) -> None:
        """Make sure that the run's points come from here, and say that they still do.

        Raises:
            ElsewhereError: another directory has taken the run over.
        """
        writer = runs.client(self.uri).get_run(self._run_id).data.tags.get("matwm.writer")
        if writer not in (None, self._outbox.contents.writer):
            raise self._lost(self._run_id)
        if time.monotonic() - self._shown >= self._upload_seconds:
            self._show_life()

    def let_go(self) -> None:
        """Owe the run nothing more: it is another's, who will end it."""
        with self._note() as contents:
            contents.run_id = contents.name = contents.status = contents.adopting = None
            contents.is_running = contents.has_news = False
            contents.uploads = []

    def send_labels(self) -> None:
        """Send the parameters that the run has not got, and all tags; a parameter that it has stays as it is."""
        from mlflow.entities import Param, RunTag

        contents = self._outbox.contents
        if not contents.has_news:
            return
        params, all_tags = dict(contents.params), dict(contents.tags)
        tags = {key: value for key, value in all_tags.items() if key != "matwm.writer"}  # It is set by who opens the run, and only then.
        there = runs.client(self.uri).get_run(self._run_id).data.params
        wanted = cut(params, LONGEST_PARAM)
        for key in sorted(key for key in wanted if there.get(key, wanted[key]) != wanted[key]):
            logger.warning("run %s keeps %s = %s in MLflow, though it is %s now", self._run_id, key, there[key], wanted[key])
        for batch in batches([Param(key, value) for key, value in wanted.items() if key not in there], LABELS_PER_CALL):
            runs.client(self.uri).log_batch(self._run_id, params=batch, synchronous=True)
        for batch in batches([RunTag(key, value) for key, value in cut(tags, LONGEST_TAG).items()], LABELS_PER_CALL):
            runs.client(self.uri).log_batch(self._run_id, tags=batch, synchronous=True)
        with self._note() as contents:
            contents.has_news = contents.params != params or contents.tags != all_tags
        self._on_answer()

    def send_points(self) -> bool:
        """Send the oldest points that the run lacks, as many as fit into one call; return whether there were any."""
        points, position = self._journal.unsent(self._run_id, POINTS_PER_CALL)
        if points:
            self._send_batch(points)
            with self._noting:
                self._demand()
                self._journal.mark_sent(self._run_id, position)
            self._on_answer()
        return bool(points)

    def send_upload(self) -> bool:
        """Send the oldest artifact in the outbox; return whether there was one."""
        if not self._outbox.contents.uploads:
            return False
        entry = self._outbox.contents.uploads[0]
        path, folder = Path(entry[0]), entry[1] or None
        if not path.exists():
            logger.error("%s is gone before MLflow got it", path)
        elif (path / "manifest.json").is_file():
            self._send_checkpoint(path)
        elif path.is_dir():
            runs.client(self.uri).log_artifacts(self._run_id, str(path), folder)
        else:
            runs.client(self.uri).log_artifact(self._run_id, str(path), folder)
        with self._note() as contents:
            contents.uploads.remove(entry)
        self._on_answer()
        return True

    def send_status(self) -> None:
        """Set the status that the run ended with."""
        status = self._outbox.contents.status
        if status is None:
            return
        runs.client(self.uri).set_terminated(self._run_id, status, end_time=self._outbox.contents.ended_ms)
        self._shown = float("inf")  # There will be no other sign.
        if life.TAG in runs.client(self.uri).get_run(self._run_id).data.tags:
            runs.client(self.uri).delete_tag(self._run_id, life.TAG)
        with self._note() as contents:
            contents.is_running = False
            contents.status = None if contents.status == status else contents.status
        self._on_answer()

    @contextmanager
    def _note(self) -> Iterator[Contents]:
        """Yield the outbox's contents for a change.

        Raises:
            AbandonedError: the directory may be another process's by now.
        """
        with self._noting:
            self._demand()
            with self._outbox.change() as contents:
                yield contents

    def _demand(self) -> None:
        if self._abandoned.is_set():
            raise AbandonedError

    @property
    def _run_id(self) -> str:
        run_id = self._outbox.contents.run_id
        assert run_id, "open_run comes first"
        return run_id

    def _known_run(self) -> str | None:
        """Return the run of this outbox if the store (still) has it."""
        run_id = self._outbox.contents.run_id
        if run_id is None or runs.get_run(run_id, self.uri):
            return run_id
        logger.warning("MLflow at %s has no run %s (any more)", runs.shown(self.uri), run_id)
        return None

    def _same_training(self) -> str | None:
        """Return the newest run of the same training: this directory was lost, or a crash came right after the run was made."""
        tags = self._outbox.contents.tags
        if "matwm.segment" not in tags or "matwm.key" not in tags:
            return None
        found = runs.find_by_key(tags["matwm.segment"], tags["matwm.key"], self.uri)
        return found.run_id if found else None

    def _take_over(self, run_id: str) -> None:
        """Make a run that is there ours: first its writer, so that whoever had it stops, then its history."""
        run = runs.get_run(run_id, self.uri)
        if run is None:
            raise runs.TrackingError(f"MLflow at {runs.shown(self.uri)} has no run {run_id} any more")
        writer, contents = run.tags.get("matwm.writer"), self._outbox.contents
        if writer not in (None, *self._outbox.writers):
            self._yield_to(run)
            run = runs.get_run(run_id, self.uri) or run  # It may have ended meanwhile.
        if writer != contents.writer or contents.adopting == run_id:
            with self._note() as contents:
                contents.adopting, contents.has_news = run_id, True
            runs.client(self.uri).set_tag(run_id, "matwm.writer", contents.writer)
            self._show_life(run_id)
            history = runs.metric_history(run_id, self.uri)
            with self._noting:
                self._demand()
                self._journal.adopt(history)
            with self._note() as contents:
                contents.adopting = None
        if contents.status == "RUNNING" and run.status != "RUNNING":
            runs.client(self.uri).update_run(run_id, "RUNNING")

    def _yield_to(self, run: Run) -> None:
        """Leave a run alone that another directory has and trains; return if it does no longer.

        Raises:
            ElsewhereError: it does.
        """
        if self.is_training and self._has_opened:
            raise self._lost(run.id)
        if run.status == "RUNNING" and not self.is_training:
            raise self._elsewhere(run)
        if run.status == "RUNNING":
            self._await_silence(run)
        elif self._outbox.contents.status in ("KILLED", "FAILED"):
            with self._note() as contents:
                contents.status = None  # How it ended here is no news: it has gone on elsewhere since.

    def _await_silence(self, run: Run) -> None:
        """Return when a run has shown no sign of life for so long that its process must be dead."""
        quiet = life.quiet_seconds(self._upload_seconds)
        left = min(quiet, quiet - life.age_seconds(run))
        if left <= 0 or life.lives_here(run) is False:
            return
        sys.stderr.write(
            f"run {run.id[:12]} ({run.segment}) is RUNNING elsewhere, last heard of {max(0.0, life.age_seconds(run)):.0f} s ago: "
            f"waiting {left:.0f} s for another sign of life\n"
        )
        self.is_waiting = self.has_waited = True
        try:
            end = time.monotonic() + left
            while time.monotonic() < end:
                self._abandoned.wait(min(1.0, left / 5))
                self._demand()
                now = runs.get_run(run.id, self.uri)
                if now is None or now.status != "RUNNING":
                    return
                if life.sign_of(now) != life.sign_of(run):
                    raise self._elsewhere(run)
        finally:
            self.is_waiting = False

    def _show_life(self, run_id: str | None = None) -> None:
        if self.is_training:
            runs.client(self.uri).set_tag(run_id or self._run_id, life.TAG, life.mark())
            self._shown = time.monotonic()

    def _elsewhere(self, run: Run) -> ElsewhereError:
        return ElsewhereError(
            f"run {run.id[:12]} of it, in MLflow at {runs.shown(self.uri)}, is being trained elsewhere, by another machine or in "
            f'another folder: wait for that or stop it; a run that nobody trains is closed by "matwm runs --close {run.id[:12]}"'
        )

    def _lost(self, run_id: str) -> ElsewhereError:
        return ElsewhereError(
            f"another machine or folder has taken over run {run_id[:12]} in MLflow at {runs.shown(self.uri)}: this one sends it nothing "
            "more and stops; to go on here, stop that one and give the same command again"
        )

    def _send_batch(self, points: Sequence[TimedPoint]) -> None:
        """Send points; where MLflow refuses one as such, send the others and say which it is."""
        from mlflow.entities import Metric, RunTag
        from mlflow.exceptions import MlflowException

        metrics = [Metric(point.key, point.value, point.timestamp_ms, point.step) for point in points]
        step = RunTag("matwm.step", str(self._journal.last_step))
        try:
            runs.client(self.uri).log_batch(self._run_id, metrics=metrics, tags=[step], synchronous=True)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE" or self._known_run() is None:
                raise
            if len(points) == 1:
                logger.error("MLflow refuses %s, which stays in the journal only: %s", points[0], error)
                return
            for half in (points[: len(points) // 2], points[len(points) // 2 :]):
                self._send_batch(half)

    def _send_checkpoint(self, path: Path) -> None:
        try:
            run = runs.get_run(self._run_id, self.uri) or Run(self._run_id)
            MlflowStore(self.uri).put(run, path, self._on_answer)
        except CheckpointError as error:
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None  # Such as a full disk: it may have room later.
            logger.error("MLflow does not get %s: %s", path, error)


def cut(texts: Mapping[str, str], longest: int) -> dict[str, str]:
    """Shorten what MLflow would refuse, ending in a digest, so that different long values stay different."""
    return {
        key: text if len(text) <= longest else f"{text[: longest - 80]}… sha256 {sha256(text.encode()).hexdigest()}"
        for key, text in texts.items()
    }


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield items in lists that MLflow takes in one call."""
    return (items[start : start + size] for start in range(0, len(items), size))
