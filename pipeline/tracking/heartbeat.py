"""The heartbeat of a run: the tag by which one process shows that it trains the run, and by which others stay away from it."""

import logging
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline import runs
from pipeline.run import HEARTBEAT, Beat, Run

EXIT_CODE = 75
"""Of a process that stops because another one owns the run: EX_TEMPFAIL of sysexits.h, to be tried again later."""
QUIET_UPLOADS = 5
LEAST_QUIET_SECONDS = 5.0

logger = logging.getLogger(__name__)


class OwnedError(runs.TrackingError):
    """Another process owns the run."""


class Heartbeat:
    """One process that trains a run."""

    def __init__(self, upload_seconds: float) -> None:
        self.owner = uuid.uuid4().hex[:16]
        self.quiet_seconds = max(QUIET_UPLOADS * upload_seconds, LEAST_QUIET_SECONDS)
        self.is_waiting = self.has_waited = False
        self._every, self._last = upload_seconds, -float("inf")

    def check(self, run: Run, former: str | None, uri: str, sleep: Callable[[float], None] = time.sleep) -> None:
        """Return if the run is ours: nobody has it, or who has it (`former`: the last process in this directory) is dead.

        Raises:
            OwnedError: another process has it.
        """
        beat = run.heartbeat
        if beat is None or beat.owner in (self.owner, former):
            return
        if self._last > 0:  # It was ours.
            raise OwnedError(
                f"another process owns run {run.id[:12]} in MLflow at {runs.shown(uri)} now: this one sends it nothing more and stops; "
                "to go on here, stop that one and give the same command again"
            )
        if run.status == "RUNNING":
            self._await_silence(run, beat, uri, sleep)

    def show(self, run_id: str, uri: str) -> None:
        """Set the tag if it is time to."""
        if time.monotonic() - self._last >= self._every:
            runs.client(uri).set_tag(run_id, HEARTBEAT, self.text())
            self._last = time.monotonic()

    @contextmanager
    def shown(self, run_id: str, uri: str) -> Iterator[None]:
        """Go on setting the tag from a thread: to send one file can take longer than others wait for a sign of life."""
        done = threading.Event()

        def work() -> None:
            while not done.wait(self._every):
                try:
                    self.show(run_id, uri)
                except Exception as error:  # noqa: BLE001  # Whoever sends the file meets and reports what is wrong with the store.
                    logger.debug("no heartbeat: %s", error)

        thread = threading.Thread(target=work, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def text(self) -> str:
        """Return the tag's value now."""
        return str(Beat(self.owner, time.time_ns() // 1_000_000, round(1000 * self.quiet_seconds)))

    def _await_silence(self, run: Run, beat: Beat, uri: str, sleep: Callable[[float], None]) -> None:
        """Return when the owner has been silent for so long that it must be dead."""
        left = min(self.quiet_seconds, beat.quiet_ms / 1000 - beat.age_seconds)
        if left <= 0:
            return
        sys.stderr.write(
            f"run {run.id[:12]} ({run.segment}) is RUNNING elsewhere, last heard of {max(0.0, beat.age_seconds):.0f} s ago: "
            f"waiting {left:.0f} s for another sign of life\n"
        )
        self.is_waiting = self.has_waited = True
        try:
            end = time.monotonic() + left
            while time.monotonic() < end:
                sleep(min(1.0, left / 5))
                now = runs.get_run(run.id, uri)
                if now is None or now.status != "RUNNING":
                    return
                if now.heartbeat != beat:
                    raise OwnedError(
                        f"run {run.id[:12]} of it, in MLflow at {runs.shown(uri)}, is being trained elsewhere: another process owns "
                        f'it; wait for that or stop it; a run that nobody trains is closed by "matwm runs --close {run.id[:12]}"'
                    )
        finally:
            self.is_waiting = False
