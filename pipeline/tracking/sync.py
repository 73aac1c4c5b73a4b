"""Brings MLflow up to date with one run of this machine; every call here may wait for a server."""

import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from hashlib import sha256
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from matwm.manifest import CheckpointError
from pipeline import runs
from pipeline.metrics.mismatches import Mismatch
from pipeline.metrics.points import TimedPoint, is_record
from pipeline.run import HEARTBEAT, ORIGINAL, PARENT, SHOWN_BELOW, SWEEP, WATERMARK, Run
from pipeline.stores.mlflow import MlflowStore, elsewhere
from pipeline.tracking.difference import difference
from pipeline.tracking.heartbeat import Heartbeat
from pipeline.tracking.local_run import LocalRun, file_mark
from pipeline.tracking.state import ReleasedError

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

POINTS_PER_CALL = 1000
LABELS_PER_CALL = 100
LONGEST_PARAM = 6000
LONGEST_TAG = 8000

Item = TypeVar("Item")


def sync(
    run: LocalRun,
    uri: str | None = None,
    process: Heartbeat | None = None,
    *,
    on_answer: Callable[[], None] = lambda: None,
    is_closing: bool = True,
    released: threading.Event | None = None,
) -> None:
    """Send MLflow what it lacks of a run, in one order: labels, training points, checkpoints, records, other artifacts, the status.

    To repeat it changes nothing, and costs no call if nothing is pending. `process` is who trains the run; without it, the run is only
    added to, and a run that is not there is created where its directory says how. The caller holds the lock of the work directory.

    Raises:
        OwnedError: another process trains the run.
        Exception: MLflow does not answer or refuses; what was sent until then is known.
    """
    uri = uri or runs.configured_uri()
    if process or run.has_pending(uri):
        _Sync(run, uri, process, on_answer, is_closing, released or threading.Event()).all()


class _Sync:
    """One call of `sync`."""

    def __init__(
        self,
        run: LocalRun,
        uri: str,
        process: Heartbeat | None,
        on_answer: Callable[[], None],
        is_closing: bool,
        released: threading.Event,
    ) -> None:
        self.run, self.uri, self.process, self.state = run, uri, process, run.state
        self._on_answer, self._is_closing, self._released = on_answer, is_closing, released

    def all(self) -> None:
        """Send everything."""
        found = self._opened()
        if found is None:
            return
        self._note_sweep(found)
        self._send_labels()
        refused: Exception | None = None
        if self.state.now.resume == "episode":
            self._send_training_points(self._send_checkpoints(found))  # Of each step, the first checkpoint to arrive is the run's.
        else:
            self._send_training_points(self.run.last_step())
            try:
                self._send_checkpoints(found)
            except Exception as error:
                if not self._is_closing:
                    raise
                refused = error  # Raised at the end: what the place of artifacts refuses must not hold up the rest.
        # While somebody trains, another machine could go on from the last checkpoint sent: what it measures again must not be there yet.
        self._send_records(float("inf") if self._is_closing else max(self.state.now.checkpoints, default=-1))
        if refused is None:
            self._send_artifacts()
        self._send_status(found)
        if refused is not None:
            raise refused

    @property
    def _client(self) -> "MlflowClient":
        return runs.client(self.uri)

    @property
    def _run_id(self) -> str:
        run_id = self.state.now.run_id
        assert run_id, "the run is found first"
        return run_id

    def _opened(self) -> Run | None:
        """Return the run in MLflow, ours if `process` trains it, created if need be; None if it cannot or shall not be."""
        contents, mark = self.state.now, runs.store_mark(self.uri)
        found = runs.get_run(contents.run_id, self.uri) if contents.run_id else None
        if contents.run_id and found is None:
            if self.process is None and runs.is_deleted(contents.run_id, self.uri):
                return self._give_up(mark)
            logger.warning("MLflow at %s has no run %s (any more)", runs.shown(self.uri), contents.run_id)
        if found is None and contents.segment and contents.key and contents.name:
            found = runs.find_by_key(contents.segment, contents.key, self.uri, contents.experiment)
        if found is None and contents.name is None:
            logger.warning("MLflow at %s has no run %s: nothing is added to it", runs.shown(self.uri), contents.run_id)
            return self._give_up(mark)
        owner = self.process.owner if self.process else uuid.uuid4().hex[:16]
        found = found or self._created(owner)
        self._check_place(found)
        beat = found.heartbeat
        is_ours = beat is not None and beat.owner in (owner, contents.owner)
        if self.process:
            self.process.check(found, contents.owner, self.uri)
            self.process.show(found.id, self.uri)
            if contents.status == "RUNNING" and found.status != "RUNNING":
                self._client.update_run(found.id, "RUNNING")
        if contents.run_id != found.id or contents.store != runs.store_mark(self.uri) or not is_ours or self._is_behind_another():
            self._compare(found)
        if self.process:
            if not self.run.has_compared and found.experiment != contents.experiment:
                logger.warning(
                    "this training is run %s of experiment %s already, where it goes on: tracking.experiment (%s) is for new runs",
                    *(found.id[:12], found.experiment, contents.experiment),
                )
            self.run.has_compared = True
            if (contents.owner, contents.shown_status) != (owner, contents.status):
                with self.state.change() as contents:
                    contents.owner = owner
                    contents.shown_status = "RUNNING" if contents.status == "RUNNING" else contents.shown_status
        return found

    def _note_progress(self) -> None:
        """Tell the caller that MLflow has taken something, and other processes that this one lives: a sync may take minutes."""
        self._on_answer()
        if self.process:
            self.process.show(self._run_id, self.uri)

    def _shown(self) -> AbstractContextManager[None]:
        """Show other processes that this one lives while one file is on its way."""
        return self.process.shown(self._run_id, self.uri) if self.process else nullcontext()

    def _is_behind_another(self) -> bool:
        """Return whether MLflow may have points that this directory does not know of: another machine sent them, and we have died since."""
        return not self.run.has_compared and self.state.now.synced < self.state.now.compare_until

    def _check_place(self, found: Run) -> None:
        """Refuse to write into the folder of the project that this one was copied from.

        Raises:
            TrackingError: the run's artifacts lie there.
        """
        old = elsewhere(str(found.artifact_uri).rsplit("/", 2)[0], self.uri)  # its experiment's: the run may have none yet
        if old and old.is_here:
            raise runs.TrackingError(
                f"MLflow's database here keeps artifacts in {old.mlruns}: this project was copied or moved from there. Nothing is sent: "
                '"matwm doctor" says what to do'
            )

    def _give_up(self, mark: str) -> None:
        with self.state.change() as contents:
            contents.unknown_in = mark

    def _created(self, owner: str) -> Run:
        """Create the run, and look again: of two that were created at the same time, the later one is deleted.

        Raises:
            TrackingError: the run was created in this very experiment before, is not there, and nobody has deleted it.
        """
        contents = self.state.now
        beat = self.process.text() if self.process else f"{owner} 0 0"
        experiment = self._client.get_experiment(runs.experiment_id(self.uri, contents.experiment))
        mark = f"{experiment.experiment_id} {experiment.creation_time}"
        if contents.created_in == mark and not runs.is_deleted(str(contents.run_id), self.uri):
            raise runs.TrackingError(
                f"MLflow at {runs.shown(self.uri)} has experiment {experiment.name!r}, but no longer run {contents.run_id}, created in it: "
                f'it is not created a second time; "matwm doctor --fix" does if it is gone for good'
            )
        before = contents.run_id
        if before:
            with self.state.change() as contents:
                contents.tags.setdefault(ORIGINAL, before)
        tags = cut({**self._tags(), HEARTBEAT: beat}, LONGEST_TAG)
        run = self._client.create_run(experiment.experiment_id, start_time=self.run.started_ms, run_name=contents.name, tags=tags)
        made = run.info.run_id
        with self.state.change() as contents:  # At once: whatever goes wrong now, a second one is never created.
            contents.forget_store()
            contents.run_id, contents.created_in = made, mark
        twins = []
        if contents.segment and contents.key:
            twins = runs.find_all_by_key(contents.segment, contents.key, self.uri)
        first = min(twins, key=lambda run: (run.started_ms, run.id), default=None)
        for run in twins:
            # A client that got no answer may have created one more: it is ours as well.
            if run is not first and run.heartbeat is not None and run.heartbeat.owner == owner:
                self._client.delete_run(run.id)
        found = first or runs.get_run(made, self.uri)
        if found is None:
            raise runs.TrackingError(f"MLflow at {runs.shown(self.uri)} does not have run {made}, which it has just created")
        if self.process is None and found.id == made:
            with self.state.change() as changed:
                changed.owner = owner
        if before:
            self._adopt_children(before, found.id)
        return found

    def _adopt_children(self, before: str, run_id: str) -> None:
        """Let the runs that start from this one's checkpoints name it by its new ID."""
        for child in runs.list_runs(f"tags.`{PARENT}` = '{before}'", self.uri):
            for key in _parent_tags(child.tags):
                self._client.set_tag(child.id, key, run_id)

    def _tags(self) -> dict[str, str]:
        """Return the run's tags; its parent by the ID that it has in this store today."""
        tags = self.state.now.tags
        parent = tags.get(PARENT)
        if SWEEP in tags:
            tags = {key: text for key, text in tags.items() if key != SHOWN_BELOW}  # `_note_sweep` sets it.
        return {**tags, **dict.fromkeys(_parent_tags(tags), runs.id_today(parent, self.uri))} if parent else tags

    def _compare(self, found: Run) -> None:
        """Compare every point with MLflow's, and send those that it lacks: on first contact, and after another process had the run."""
        with self.state.change() as contents:
            contents.forget_store()
            contents.run_id = found.id
        is_exact = self.state.now.resume != "episode"  # Else checkpoints come first, and points of those that are the run's.
        last = self.run.last_step() if is_exact else -1
        mine, (own, end) = self.run.training_points(-1, last), self.run.records.snapshot()
        keys = None if mine or self.process or not is_exact else [key for key in found.metrics if is_record(key)]
        theirs = runs.metric_history(found.id, self.uri, keys) if found.metrics else []
        trained = difference(mine, theirs)
        self._report([mismatch for mismatch in trained.mismatches if mismatch.step > self.run.start_step])
        training = [point for point in theirs if not is_record(point.key)]
        furthest = max((point.step for point in training), default=-1)
        if is_exact:
            self.run.tail.expect(point for point in training if point.step > last)
        with self.state.change() as contents:
            contents.start_ms = found.started_ms
            self.run.records.take(point for point in theirs if is_record(point.key))
        self._send([TimedPoint(point.key, point.step, point.value, self._time(point.step)) for point in trained.missing])
        lacking = {(point.key, point.step, repr(point.value)) for point in difference(own, theirs).missing}
        self._send([point for point in own if (point.key, point.step, repr(point.value)) in lacking])
        last = last if is_exact else furthest
        self._set_watermark(max(last, furthest))
        with self.state.change() as contents:
            contents.store, contents.synced, contents.compare_until = runs.store_mark(self.uri), last, furthest
            contents.records = end  # What was recorded meanwhile is not sent yet.

    def _report(self, mismatches: Sequence[Mismatch]) -> None:
        """Report points that another machine has computed otherwise; the ancestors' are no business of this run."""
        if mismatches:
            self.run.tail.mismatches.report(mismatches)
            self.run.tag(self.run.tail.mismatches.tags())

    def _note_sweep(self, found: Run) -> None:
        """Have MLflow show a trial below the run of its sweep."""
        contents = self.state.now
        if (sweep := contents.tags.get(SWEEP)) and found.tags.get(SHOWN_BELOW) is None:
            self._client.set_tag(found.id, SHOWN_BELOW, runs.sweep_run(sweep, found.experiment or contents.experiment, self.uri))

    def _send_labels(self) -> None:
        """Send the parameters that the run has not got, and all tags; a parameter that it has stays as it is."""
        from mlflow.entities import Param, RunTag

        contents, digest = self.state.now, self.run.labels()
        if contents.labels == digest:
            return
        there = self._client.get_run(self._run_id).data.params
        wanted, tags = cut(dict(contents.params), LONGEST_PARAM), cut(self._tags(), LONGEST_TAG)
        for key in sorted(key for key in wanted if there.get(key, wanted[key]) != wanted[key]):
            logger.warning("run %s keeps %s = %s in MLflow, though it is %s now", self._run_id, key, there[key], wanted[key])
        for batch in batches([Param(key, value) for key, value in wanted.items() if key not in there], LABELS_PER_CALL):
            self._client.log_batch(self._run_id, params=batch, synchronous=True)
        for batch in batches([RunTag(key, value) for key, value in tags.items()], LABELS_PER_CALL):
            self._client.log_batch(self._run_id, tags=batch, synchronous=True)
        with self.state.change() as contents:
            contents.labels = digest

    def _send_training_points(self, until: int) -> None:
        contents = self.state.now
        if until <= contents.synced:
            return
        points = self.run.training_points(contents.synced, until)
        for start in range(0, len(points), POINTS_PER_CALL):
            batch = points[start : start + POINTS_PER_CALL]
            self._send([TimedPoint(point.key, point.step, point.value, self._time(point.step)) for point in batch])
            self._note_synced(batch[-1].step - 1)
            if self._released.is_set():
                raise ReleasedError
        self._note_synced(until)

    def _note_synced(self, step: int) -> None:
        if step > self.state.now.synced:
            self._set_watermark(step)
            with self.state.change() as contents:
                contents.synced = step

    def _set_watermark(self, step: int) -> None:
        if step >= 0:
            self._client.set_tag(self._run_id, WATERMARK, str(step))

    def _send_checkpoints(self, found: Run) -> int:
        """Send the checkpoints, oldest first; return the step of the last that is the run's."""
        for step in self.run.unsent_checkpoints():
            try:
                with self._shown():
                    MlflowStore(self.uri).put(found, self.run.folder(step), self._note_progress)
            except CheckpointError as error:
                if isinstance(error.__cause__, OSError):
                    raise error.__cause__ from None  # Such as a full disk: it may have room later.
                logger.error("MLflow does not get %s: %s", self.run.folder(step), error)
                with self.state.change() as contents:
                    contents.refused.append(step)
            else:
                with self.state.change() as contents:
                    contents.checkpoints.append(step)
        contents = self.state.now
        refused = min(contents.refused, default=float("inf"))
        return max((step for step in contents.checkpoints if step < refused), default=-1)

    def _send_records(self, until: float) -> None:
        for batch in batches(self.run.records.unsent(self.state.now.records, until), POINTS_PER_CALL):
            self._send([record.point for record in batch])
            with self.state.change() as contents:
                contents.records = batch[-1].end

    def _send_artifacts(self) -> None:
        for name, path in self.run.unsent_artifacts().items():
            mark = file_mark(path)
            if mark:
                with self._shown():
                    self._client.log_artifact(self._run_id, str(path), str(PurePosixPath(name).parent).removeprefix(".") or None)
            else:
                logger.error("%s is gone before MLflow got it", path)
            with self.state.change() as contents:
                contents.sent_artifacts[name] = mark

    def _send_status(self, found: Run) -> None:
        """Set the status that the run ended with, unless another process has gone on with it since."""
        contents = self.state.now
        status, beat = contents.status, found.heartbeat
        if status in (None, "RUNNING", contents.shown_status):
            return
        if self.process or beat is None or beat.owner == contents.owner or not beat.time_ms:
            self._client.set_terminated(self._run_id, status, end_time=contents.ended_ms)
        with self.state.change() as contents:
            contents.shown_status = status

    def _time(self, step: int) -> int:
        """Return the timestamp of a training point: a function of the run and the step, so that every machine sends the same point."""
        return self.state.now.start_ms + step

    def _send(self, points: Sequence[TimedPoint]) -> None:
        for batch in batches(points, POINTS_PER_CALL):
            self._send_batch(batch)
            self._note_progress()

    def _send_batch(self, points: Sequence[TimedPoint]) -> None:
        """Send points; where MLflow refuses one as such, send the others and log which it is."""
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        metrics = [Metric(point.key, point.value, point.timestamp_ms, point.step) for point in points]
        try:
            self._client.log_batch(self._run_id, metrics=metrics, synchronous=True)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE" or runs.get_run(self._run_id, self.uri) is None:
                raise
            if len(points) == 1:
                logger.error("MLflow refuses %s: %s", points[0], error)
                return
            for half in (points[: len(points) // 2], points[len(points) // 2 :]):
                self._send_batch(half)


def cut(texts: Mapping[str, str], longest: int) -> dict[str, str]:
    """Shorten what MLflow would refuse, ending in a digest, so that different long values stay different."""
    return {
        key: text if len(text) <= longest else f"{text[: longest - 80]}… sha256 {sha256(text.encode()).hexdigest()}"
        for key, text in texts.items()
    }


def _parent_tags(tags: Mapping[str, str]) -> tuple[str, ...]:
    """Return the tags of a run that name its parent."""
    return (PARENT,) if SWEEP in tags else (PARENT, SHOWN_BELOW)


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield items in lists that MLflow takes in one call."""
    return (items[start : start + size] for start in range(0, len(items), size))
