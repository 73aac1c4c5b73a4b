"""Tells MLflow about a run from a thread of its own, so that training never waits for it."""

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pipeline import runs
from pipeline.metrics.journal import Journal, Point, TimedPoint, num_sent_bytes
from pipeline.metrics.mismatches import Mismatch
from pipeline.process import if_free
from pipeline.reporting.delivery import AbandonedError, Delivery, ElsewhereError, NoSuchRunError
from pipeline.reporting.outbox import Outbox
from pipeline.runs import TrackingError, close_run, configure, find_by_key, get_run, list_runs, metric_history

__all__ = [
    "ElsewhereError",
    "Tracker",
    "TrackingError",
    "close_run",
    "configure",
    "find_by_key",
    "get_run",
    "list_runs",
    "metric_history",
    "send_missed",
]

logger = logging.getLogger(__name__)

LONGEST_PAUSE_SECONDS = 60.0


class Tracker:
    """A run in MLflow as a stage sees it: every call returns at once, whatever the server does.

    All that is told is on the disk first (`journal.jsonl` and `outbox.json` in the work directory). One thread talks to
    MLflow every `upload_seconds`, and tries again with growing pauses. What is still missing at the end is sent by the next
    tracker in this directory, or by `send_missed`.
    """

    def __init__(
        self, root: Path, experiment: str, work_dir: Path, upload_seconds: float = 10.0, on_run: Callable[[str], None] | None = None
    ) -> None:
        """`on_run` gets the run's ID, in the thread, as soon as the store has the run."""
        self.uri = runs.tracking_uri(root)
        self.experiment = experiment
        self.work_dir = work_dir
        self.journal = Journal(work_dir / "journal.jsonl")
        self._outbox = Outbox(work_dir / "outbox.json")
        if not len(self.journal) or self.journal.has_lost_sent_points or not self._outbox.contents.writer:
            self._outbox.renew_writer()
        self._abandoned = threading.Event()
        self._delivery = Delivery(self.uri, self.journal, self._outbox, self._note_answer, self._abandoned, upload_seconds)
        self._upload_seconds = upload_seconds
        self._on_run = on_run or (lambda run_id: None)
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._wake = threading.Event()
        self._has_tried = threading.Event()
        self._closing = threading.Event()
        self._elsewhere: ElsewhereError | None = None
        self._is_told = False
        self._is_unknown = False
        self._failures = 0
        self._answered = time.monotonic()

    @property
    def run_id(self) -> str | None:
        """The run's ID, None as long as no store has made it."""
        return self._outbox.contents.run_id

    @property
    def tags(self) -> dict[str, str]:
        """The tags that were told to MLflow, but the one that says whose journal its points come from."""
        return {key: value for key, value in self._outbox.contents.tags.items() if key != "matwm.writer"}

    @property
    def mismatches(self) -> list[Mismatch]:
        """Every metric point that was contradicted by computing it again: empty if all resumes were exact."""
        return self.journal.mismatches.all()

    def start(
        self,
        run_id: str | None,
        name: str,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        wait_seconds: float | None = None,
        *,
        started_ms: int | None = None,
    ) -> None:
        """Open the run (again), or make it; wait at most `wait_seconds` for it (default: 60 for a database here, 10 for a server).

        Without an ID it is the run that this work directory had, else the newest with the tags' segment and key, else a new
        one. It is RUNNING from then on. Tags may change later, parameters keep their first values.

        Raises:
            ElsewhereError: another process trains it. Where it may be alive, this is waited for.
        """
        self._outbox.open(self.experiment, run_id, name, params, tags, started_ms)
        self._delivery.is_training = True
        self._begin(wait_seconds)
        self.check()

    def check(self) -> None:
        """Return if the run is still ours, as far as is known; asked again and again while training.

        Raises:
            ElsewhereError: it is another's now, and gets nothing more from here.
        """
        if self._elsewhere is not None:
            self._is_told = True
            raise self._elsewhere

    def attach(self, run_id: str | None, wait_seconds: float | None = None) -> None:
        """Add to a run without changing its status, as the stages after training do.

        A run that is unknown here (this is a clone with a store of its own) gets nothing, with a warning.
        """
        if self.run_id is None:
            with self._outbox.change() as contents:
                contents.run_id = run_id
        self._begin(wait_seconds)

    def is_foreign(self) -> bool:
        """Return whether this directory only adds to a run of another place, which the store here does not have.

        Raises:
            TrackingError: the store does not answer.
        """
        contents = self._outbox.contents
        return contents.name is None and (contents.run_id is None or get_run(contents.run_id, self.uri) is None)

    def bury(self) -> None:
        """Call a run whose process died before MLflow heard that it runs KILLED, since its last point."""
        if self._outbox.contents.status == "RUNNING":
            self._outbox.end("KILLED", self.journal.last_ms or self._outbox.contents.started_ms)

    def log(self, points: Iterable[Point], *, is_revision: bool = False) -> list[Mismatch]:
        """Record metric points; return those that an earlier recording contradicts (they are reported as errors too).

        With `is_revision` another value at the same step joins the old one without complaint: an evaluation done again.
        """
        mismatches = self.journal.record(points, time.time_ns() // 1_000_000, is_revision=is_revision)
        if mismatches:
            self.tag(self.journal.mismatches.tags())
        return mismatches

    def inherit(self, points: Iterable[TimedPoint], until: int) -> None:
        """Begin the run's curves with those of its ancestors, which end at step `until`: their points, at their times, once."""
        self.journal.inherit(points, until)

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        with self._outbox.change() as contents:
            contents.tags.update({key: str(value) for key, value in tags.items()})
            contents.has_news = True
        self._wake.set()

    def artifact(self, local_path: Path, artifact_path: str = "") -> None:
        """Queue a file or a folder's contents for the folder `artifact_path` among the run's artifacts.

        A checkpoint (a folder with a manifest) goes to `checkpoints/<its name>` by way of `stores`, whatever `artifact_path` is.
        """
        entry = (str(local_path.absolute()), artifact_path)
        with self._outbox.change() as contents:
            if entry not in contents.uploads:
                contents.uploads.append(entry)
        self._wake.set()

    def close(
        self,
        status: str | None,
        timeout: float = 600.0,
        patience: float = 30.0,
        *,
        ended_ms: int | None = None,
        left: Callable[[], float] = lambda: math.inf,
    ) -> str | None:
        """Send what is left, then set the status (FINISHED, KILLED or FAILED; None leaves it as it is).

        Gives up after `timeout` seconds in any case, after `patience` seconds without an answer, and when `left`, which is
        asked all the while, says that no seconds are left. Returns None when MLflow has everything, else the sentence (a
        warning too) that says what it lacks.
        """
        if status and self._elsewhere is None:
            self._outbox.end(status, ended_ms)
        closed = self._answered = time.monotonic()
        self._closing.set()
        self._wake.set()
        while self._thread.is_alive() and time.monotonic() - closed < timeout and left() > 0:
            silence = time.monotonic() - self._answered
            if self._delivery.is_waiting or silence > (
                patience if self._failures else 4 * patience
            ):  # A large file is silent, too, while it is on its way.
                break
            self._thread.join(0.05)
        self._delivery.abandon()
        self._wake.set()
        missing = self.missing()
        if missing:
            logger.warning(missing)
        if self._elsewhere is not None and not self._is_told:
            logger.error("%s", self._elsewhere)
        if not self._thread.is_alive():
            self.journal.close()
        return missing

    def missing(self) -> str | None:
        """Say in one sentence what MLflow lacks of this run, None if it has everything."""
        num_points = 0 if self._is_unknown else self.journal.num_unsent(self.run_id)
        parts = [f"{num_points} metric points"] if num_points else []
        parts += [] if self._is_unknown else self._outbox.missing()
        if not parts:
            return None
        name = self._outbox.contents.name or self.run_id
        return (
            f"MLflow at {runs.shown(self.uri)} lacks {', '.join(parts)} of {name}: "
            f"they are kept in {self.work_dir} and sent when it answers at the next run"
        )

    def _begin(self, wait_seconds: float | None) -> None:
        import mlflow  # noqa: F401  # Here, not in the thread: of two threads that import at once, one can see half a module.

        self._thread.start()
        is_local = self.uri.startswith("sqlite")
        self._has_tried.wait((60.0 if is_local else 10.0) if wait_seconds is None else wait_seconds)
        while self._delivery.is_waiting or (self._delivery.has_waited and not self._has_tried.is_set()):
            self._has_tried.wait(0.1)

    def _work(self) -> None:
        """Be the thread: send until closed and done. Nothing that goes wrong ends it before that."""
        is_open = False
        while not self._abandoned.is_set():
            self._wake.clear()
            is_last = self._closing.is_set()
            try:
                if not is_open:
                    self._on_run(self._delivery.open_run())
                    self._tag_mismatches()
                    is_open = True
                self._has_tried.set()
                self._send()
                if is_last:
                    break
            except AbandonedError:
                break
            except ElsewhereError as error:
                self._note_loss(error)
                break
            except NoSuchRunError:
                self._is_unknown = True
                logger.warning("MLflow at %s has no run %s: nothing is added to it", runs.shown(self.uri), self.run_id)
                break
            except Exception as error:  # noqa: BLE001  # Whatever it is, training goes on.
                is_open = False  # The run may be gone: look again.
                self._note_failure(error)
            self._has_tried.set()
            self._wake.wait(self._pause())
        self._has_tried.set()

    def _tag_mismatches(self) -> None:
        """Mark the run if what MLflow had of it contradicts what is here."""
        tags = self.journal.mismatches.tags()
        if not tags.items() <= self._outbox.contents.tags.items():
            self.tag(tags)

    def _send(self) -> None:
        """Send everything there is, points before artifacts, the status last."""
        has_more = True
        while has_more and not self._abandoned.is_set():
            self._delivery.check_writer()
            self._delivery.send_labels()
            has_more = self._delivery.send_points() or self._delivery.send_upload()
        if self._closing.is_set() and not self._abandoned.is_set():
            self._delivery.send_status()

    def _pause(self) -> float:
        if self._closing.is_set():
            return 0.5
        return min(self._upload_seconds * 2 ** min(self._failures, 10), max(self._upload_seconds, LONGEST_PAUSE_SECONDS))

    def _note_answer(self) -> None:
        self._answered = time.monotonic()
        if self._failures:
            logger.warning("MLflow at %s answers again", runs.shown(self.uri))
        self._failures = 0

    def _note_loss(self, error: ElsewhereError) -> None:
        if not self._delivery.is_training:
            logger.warning("%s. Until then nothing is added to it from here", error)
            return
        with contextlib.suppress(AbandonedError):
            self._delivery.let_go()
        self._is_unknown = True
        self._elsewhere = error

    def _note_failure(self, error: Exception) -> None:
        self._failures += 1
        if not runs.is_expected(error):
            logger.error("telling MLflow failed in a way that nobody thought of; training goes on", exc_info=error)
        elif self._failures == 1:
            logger.warning("%s. Training goes on; what MLflow misses is kept in %s", runs.sentence(self.uri, error), self.work_dir)


def send_missed(root: Path, work_dir: Path, timeout: float = 60.0, patience: float = 10.0) -> str | None:
    """Send what earlier processes in this work directory could not; return what MLflow still lacks, None if nothing.

    A live process there sends it itself: then nothing is done. A dead one that MLflow has not heard of ends as KILLED.
    """
    if not owes(work_dir):
        return None
    with if_free(work_dir / "lock") as is_free:
        if not is_free or not owes(work_dir):
            return None
        tracker = Tracker(root, "", work_dir)
        if tracker.is_foreign():
            return None
        tracker.bury()
        tracker.attach(None, wait_seconds=0)
        return tracker.close(None, timeout, patience)


def owes(work_dir: Path) -> bool:
    """Return whether MLflow may lack something of this work directory: without asking it, and without reading the journal."""
    outbox = Outbox(work_dir / "outbox.json")
    if outbox.path.is_file() and outbox.missing():
        return True
    journal = work_dir / "journal.jsonl"
    return journal.is_file() and num_sent_bytes(journal, outbox.contents.run_id) < journal.stat().st_size
