"""`run.json` of a work directory: the facts of a run, what MLflow shall show of it, and how much of that it has."""

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from matwm import durable
from pipeline import project as places

logger = logging.getLogger(__name__)


class ReleasedError(Exception):
    """Nobody waits for this thread any more, and another process may have the work directory by now."""


@dataclass
class Contents:
    """Everything of a run that neither checkpoints nor tail nor records hold."""

    segment: str | None = None
    key: str | None = None
    run_id: str | None = None
    started: str | None = None
    finished: str | None = None
    until: int | None = None
    resumed_at: list[int] = field(default_factory=list)
    machine: dict[str, Any] | None = None
    resume: str = "replay"
    """Whether steps come out the same again; `episode`: they do not."""
    start: str | None = None
    """The folder of the checkpoint that the segment starts from."""
    has_inherited: bool = False
    """Whether the records begin with the ancestors'."""

    # What MLflow shall show.
    experiment: str = ""
    name: str | None = None
    """None if this directory only adds to a run that was trained elsewhere."""
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    status: str | None = None
    ended_ms: int | None = None
    artifacts: dict[str, str] = field(default_factory=dict)
    """Files here by their paths among the run's artifacts."""

    # What it has, as far as is known here.
    store: str | None = None
    """Which store that is."""
    unknown_in: str | None = None
    """The store that does not have the run, though nothing is known here from which to create it."""
    created_in: str = ""
    """The experiment in which the run was created, and when that was: it is not created there a second time."""
    owner: str | None = None
    """By which name this directory's last process has trained the run."""
    start_ms: int = 0
    """When the run began, as MLflow says: timestamps count from there."""
    synced: int = -1
    """The step up to which it has all training points."""
    compare_until: int = -1
    """Another machine has sent points up to this step: until then all points are compared before any is sent."""
    records: int = 0
    """The position in the records up to which it has them."""
    labels: str = ""
    """Digest of the parameters and tags that it has."""
    shown_status: str | None = None
    checkpoints: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    """Checkpoints that it cannot have: they are damaged, or it has others of these steps."""
    sent_artifacts: dict[str, str] = field(default_factory=dict)

    def forget_store(self) -> None:
        """Take nothing for granted of what MLflow has: it is another store, or another run."""
        blank = Contents()
        for name in ("store", "unknown_in", "synced", "compare_until", "records", "labels", "shown_status", *MUTABLE):
            setattr(self, name, getattr(blank, name))


MUTABLE = ("checkpoints", "refused", "sent_artifacts")


class State:
    """The contents, in memory and in one file: `change` alters both, for two threads and through a crash."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = _read(path)
        self._lock = threading.RLock()
        self._is_refused = self._is_released = False

    @contextmanager
    def change(self) -> Iterator[Contents]:
        """Yield the contents for a change that is on the disk when the block ends, or as soon as a full disk takes one again.

        Raises:
            ReleasedError: the directory may be another process's by now.
        """
        with self._lock:
            if self._is_released:
                raise ReleasedError
            yield self.now
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                durable.replace(self.path, json.dumps(asdict(self.now), indent=1).encode())
                self._is_refused = False
            except OSError as error:
                if not self._is_refused:
                    logger.error("%s cannot be written: %s. It is held in memory until it can", self.path, error)
                self._is_refused = True

    def release(self) -> None:
        """Return when nothing is being written; from now on, nothing is."""
        with self._lock:
            self._is_released = True


def _read(path: Path) -> Contents:
    data = places.read_json(path)
    if data is None:
        if path.exists():
            logger.warning("%s cannot be read: the run is looked up in MLflow", path)
        return Contents()
    known = {each.name for each in fields(Contents)}
    return Contents(**{name: value for name, value in data.items() if name in known})
