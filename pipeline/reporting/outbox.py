"""Keeps on disk what MLflow is still to be told about a run, besides the metric points of the journal."""

import json
import logging
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from matwm import durable

logger = logging.getLogger(__name__)


@dataclass
class Contents:
    """Everything from which the run can be made again on an empty server."""

    experiment: str = ""
    run_id: str | None = None
    writer: str = ""
    """Whose journal the run's points come from; it stands in the run's tags too."""
    former: list[str] = field(default_factory=list)
    """What `writer` was before, in this directory."""
    adopting: str | None = None
    """The run that has our writer already and whose history the journal has not yet."""
    name: str | None = None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    status: str | None = None
    """To be set after everything else, None if it is."""
    started_ms: int | None = None
    ended_ms: int | None = None
    """When the process began and ended: a run that is made or closed later shows the true times."""
    is_running: bool = False
    """Whether MLflow shows the run as RUNNING: if then nobody holds the lock, its process is dead."""
    uploads: list[tuple[str, str]] = field(default_factory=list)
    """(path here, folder among the run's artifacts), oldest first."""
    has_news: bool = False
    """True if parameters or tags are not there yet."""


class Outbox:
    """The contents, in memory and in one file: `change` alters both, for two threads and through a crash."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.contents = _read(path)
        self._lock = threading.RLock()
        self._is_refused = False

    @contextmanager
    def change(self) -> Iterator[Contents]:
        """Yield the contents for a change that is on the disk when the block ends, or as soon as a full disk takes one again.

        What a crash loses until then is found out by the next process: it looks its run up in MLflow and queues every checkpoint.
        """
        with self._lock:
            yield self.contents
            try:
                durable.replace(self.path, json.dumps(asdict(self.contents), indent=1).encode())
                self._is_refused = False
            except OSError as error:
                if not self._is_refused:
                    logger.error("%s cannot be written: %s. It is held in memory until it can", self.path, error)
                self._is_refused = True

    def open(
        self, experiment: str, run_id: str | None, name: str, params: Mapping[str, str], tags: Mapping[str, str], started_ms: int | None
    ) -> None:
        """Describe the run that is to be running from now on; parameters get names that no `mlflow run -P` clashes with."""
        with self.change() as contents:
            contents.experiment = experiment
            contents.run_id = run_id or contents.run_id
            contents.name = name
            contents.params = {f"train.{key.removeprefix('train.')}": str(value) for key, value in params.items()}
            contents.tags.update({key: str(value) for key, value in tags.items()})
            contents.status = "RUNNING"
            contents.started_ms = contents.started_ms or started_ms or time.time_ns() // 1_000_000
            contents.has_news = True

    def end(self, status: str, ended_ms: int | None = None) -> None:
        """Note how the run ended, and when (default: now)."""
        with self.change() as contents:
            contents.status, contents.ended_ms = status, ended_ms or time.time_ns() // 1_000_000

    def renew_writer(self) -> None:
        """Claim that the journal beside this outbox is a new one."""
        with self.change() as contents:
            contents.former += [contents.writer] if contents.writer else []
            contents.writer = uuid.uuid4().hex

    @property
    def writers(self) -> list[str]:
        """What this directory is or was called as a writer: a run with one of these names was never another directory's since."""
        return [writer for writer in (self.contents.writer, *self.contents.former) if writer]

    def missing(self) -> list[str]:
        """Name what MLflow has not been told yet."""
        contents = self.contents
        parts = [f"{len(contents.uploads)} artifact{'s' * (len(contents.uploads) > 1)}"] if contents.uploads else []
        parts += ["parameters and tags"] if contents.has_news else []
        parts += [f"the status {contents.status}"] if contents.status else []
        return parts


def _read(path: Path) -> Contents:
    try:
        data = json.loads(path.read_bytes())
        data["uploads"] = [(str(local), str(folder)) for local, folder in data["uploads"]]
        return Contents(**{key: value for key, value in data.items() if key in {each.name for each in fields(Contents)}})
    except FileNotFoundError:
        return Contents()
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("%s cannot be read (%s): the run is looked up in MLflow, and artifacts that waited there are not sent", path, error)
        return Contents()
