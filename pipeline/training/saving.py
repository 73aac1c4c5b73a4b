"""Saves snapshots behind training: one at a time, in a thread of its own, tried again where the disk refuses."""

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType

from matwm.checkpoint import Checkpoint, CheckpointError, Parent
from matwm.errors import hint
from matwm.store import LocalStore
from matwm.trainer import Snapshot

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0


class UnsavedError(CheckpointError):
    """A snapshot could not be saved, though it was tried until the next one was due, or until the end."""


class Saver:
    """Turns snapshots into checkpoints of a store while training goes on.

    A save that the disk refuses is tried again with the same snapshot, with growing pauses, until the next one is due.
    Whatever else goes wrong in the thread is raised by the next call.
    """

    def __init__(
        self,
        store: LocalStore,
        parent: Parent,
        on_saved: Callable[[Checkpoint, float], None],
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_saved` gets each checkpoint and the seconds it took, when it is on the disk; `prepare` is called before every attempt.

        Both are called in the thread. An OSError of `prepare` counts as a refusal of the disk.
        """
        self._store, self._parent = store, parent
        self._on_saved, self._prepare = on_saved, prepare
        self._thread: threading.Thread | None = None
        self._is_last_try = threading.Event()
        self._error: BaseException | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Wait for the save in flight; where something else has gone wrong already, only report what goes wrong with it."""
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            logger.error("%s", failure)

    @property
    def is_saving(self) -> bool:
        """Whether a save is in flight."""
        return self._thread is not None and self._thread.is_alive()

    def save(self, take: Callable[[], Snapshot]) -> None:
        """Take a snapshot and return; it is saved behind the caller. A save in flight is waited for first.

        Raises:
            UnsavedError: that one has failed for good.
        """
        self.wait()
        self._is_last_try.clear()
        self._thread = threading.Thread(target=self._work, args=(take(),), name="saver", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Return when nothing is in flight; a save that the disk refuses is tried for the last time, now.

        Raises:
            UnsavedError: it has failed for good.
        """
        if self._thread is not None:
            self._is_last_try.set()
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Raise what has gone wrong in the thread, if anything has."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self, snapshot: Snapshot) -> None:
        """Be the thread of one snapshot."""
        began, pause = time.perf_counter(), FIRST_PAUSE_SECONDS
        try:
            while (checkpoint := self._try(snapshot, pause)) is None:
                self._is_last_try.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            self._on_saved(checkpoint, time.perf_counter() - began)
        except BaseException as error:  # noqa: BLE001  # It is the caller's to handle.
            self._error = error

    def _try(self, snapshot: Snapshot, pause: float) -> Checkpoint | None:
        """Save; return None if the disk refuses and there is time to try again."""
        is_last = self._is_last_try.is_set()
        try:
            self._prepare()
            return snapshot.save(self._store, self._parent)
        except (OSError, CheckpointError) as error:
            refusal = error if isinstance(error, OSError) else error.__cause__
            if not isinstance(refusal, OSError):
                raise
            if is_last:
                raise UnsavedError(f"{self._sentence(snapshot, refusal)}: {hint(refusal)}") from error
            logger.error(
                "%s. Training goes on; it is tried again in %.0f s, for the last time when the next one is due",
                self._sentence(snapshot, refusal), pause,
            )  # fmt: skip
            return None

    def _sentence(self, snapshot: Snapshot, refusal: OSError) -> str:
        return f"the checkpoint of step {snapshot.step} cannot be saved in {self._store.folder} ({refusal.strerror or refusal})"
