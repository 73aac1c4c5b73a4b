"""Calls `sync` again and again from a thread of its own, so that training never waits for MLflow."""

import logging
import math
import threading
import time
from collections.abc import Callable

from pipeline import runs
from pipeline.tracking.heartbeat import Heartbeat, OwnedError
from pipeline.tracking.local_run import LocalRun
from pipeline.tracking.state import ReleasedError
from pipeline.tracking.sync import sync

logger = logging.getLogger(__name__)

LONGEST_PAUSE_SECONDS = 60.0


class Tracker:
    """A run of this machine and its thread, which syncs every `upload_seconds`, and retries with growing pauses.

    What is still missing at the end is sent by the next process in the work directory, or by a later command.
    """

    def __init__(self, run: LocalRun, uri: str, upload_seconds: float = 10.0, process: Heartbeat | None = None) -> None:
        """`process` is given where this process trains the run."""
        self.run, self.uri = run, uri
        self._process = process
        self._upload_seconds = upload_seconds
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._wake, self._has_tried, self._closing, self._released = (threading.Event() for _ in range(4))
        self._owned: OwnedError | None = None
        self._is_told = False
        self._failures = 0
        self._answered = time.monotonic()
        run.on_change = self._wake.set

    def start(self, wait_seconds: float | None = None) -> None:
        """Start the thread; wait at most `wait_seconds` for its first sync (default: 60 for a database here, 10 for a server).

        Raises:
            OwnedError: another process trains the run. Where it may be alive, this is waited for.
        """
        import mlflow  # noqa: F401  # Here, not in the thread: of two threads that import at once, one can see half a module.

        self._thread.start()
        is_local = self.uri.startswith("sqlite")
        self._has_tried.wait((60.0 if is_local else 10.0) if wait_seconds is None else wait_seconds)
        while self._is_waiting or (self._process and self._process.has_waited and not self._has_tried.is_set()):
            self._has_tried.wait(0.1)
        self.check()

    def check(self) -> None:
        """Return if the run is still ours, as far as is known; called again and again while training.

        Raises:
            OwnedError: another process owns it, and it gets nothing more from here.
        """
        if self._owned is not None:
            self._is_told = True
            raise self._owned

    def close(self, timeout: float = 600.0, patience: float = 30.0, *, left: Callable[[], float] = lambda: math.inf) -> str | None:
        """Send what is left.

        Gives up after `timeout` seconds in any case, after `patience` seconds without an answer, and when `left`, which is called all
        the while, returns that no seconds are left. Returns None when MLflow has everything, else the sentence (a warning too) that says
        what it lacks.
        """
        closed = self._answered = time.monotonic()
        self._closing.set()
        self._wake.set()
        while self._thread.is_alive() and time.monotonic() - closed < timeout and left() > 0:
            silence = time.monotonic() - self._answered
            # A large file is silent, too, while it is on its way.
            if self._is_waiting or silence > (patience if self._failures else 4 * patience):
                break
            self._thread.join(0.05)
        self._released.set()
        self.run.state.release()
        self._wake.set()
        missing = self.missing()
        if missing:
            logger.warning(missing)
        if self._owned is not None and not self._is_told:
            logger.error("%s", self._owned)
        if not self._thread.is_alive():
            self.run.close()
        return missing

    def missing(self) -> str | None:
        """Return the sentence that says what MLflow lacks of this run, None if it has everything."""
        if self._owned is not None or not self.run.has_pending(self.uri):
            return None
        parts = self.run.missing()
        if not parts:
            return None
        name = self.run.state.now.name or self.run.run_id
        return (
            f"MLflow at {runs.shown(self.uri)} lacks {', '.join(parts)} of {name}: "
            f"they are kept in {self.run.work} and sent when it answers at the next run"
        )

    @property
    def _is_waiting(self) -> bool:
        return self._process is not None and self._process.is_waiting

    def _work(self) -> None:
        """Be the thread: sync until closed and done. Nothing that goes wrong ends it before that."""
        while not self._released.is_set():
            self._wake.clear()
            is_last = self._closing.is_set()
            try:
                sync(self.run, self.uri, self._process, on_answer=self._note_answer, is_closing=is_last, released=self._released)
                self._note_answer()
                if is_last:
                    break
            except ReleasedError:
                break
            except OwnedError as error:
                self._owned = error
                break
            except Exception as error:  # noqa: BLE001  # Whatever it is, training goes on.
                self._note_failure(error)
            self._has_tried.set()
            self._wake.wait(self._pause())
        self._has_tried.set()

    def _pause(self) -> float:
        if self._closing.is_set():
            return 0.5
        return min(self._upload_seconds * 2 ** min(self._failures, 10), max(self._upload_seconds, LONGEST_PAUSE_SECONDS))

    def _note_answer(self) -> None:
        self._answered = time.monotonic()
        if self._failures:
            logger.warning("MLflow at %s answers again", runs.shown(self.uri))
        self._failures = 0

    def _note_failure(self, error: Exception) -> None:
        self._failures += 1
        if not runs.is_expected(error):
            logger.error("unexpected error while logging to MLflow; training continues", exc_info=error)
        elif self._failures == 1:
            logger.warning("%s. Training goes on; what MLflow misses is kept in %s", runs.sentence(self.uri, error), self.run.work)
