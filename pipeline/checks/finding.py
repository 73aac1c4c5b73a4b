"""One thing that a check has to say, and what a check may look at."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline import dvc_config, source_code
from pipeline import project as places
from pipeline.addresses import VARIABLE, TrackingError, database_of, store_address


@dataclass(frozen=True)
class Finding:
    """Something that is wrong (or, as a hint, only worth knowing), in plain words."""

    what: str
    why: str
    remedy: str
    is_hint: bool = False
    mend: Callable[[], str] | None = field(default=None, compare=False)
    """Puts it right, and returns a sentence that says what was done; None if only a person can."""


@dataclass(frozen=True)
class Patient:
    """The project that is looked at."""

    project: Path
    environment: dict[str, str]
    is_deep: bool = False

    @property
    def home(self) -> Path:
        """Where the live runs and the MLflow store are."""
        return places.home(self.project)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """DVC's configuration of all levels together."""
        return dict(dvc_config.settings(self.project))

    @cached_property
    def database(self) -> Path | None:
        """The MLflow database file, None if the store is no such file or is not there yet."""
        try:
            path = database_of(store_address(self.environment.get(VARIABLE), self.home.absolute()))
        except TrackingError:  # The check of the address says it.
            return None
        return path if path is not None and path.is_file() else None

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The facts of the segments that were trained, from git."""
        return [facts for facts in places.run_records(self.project).values() if facts]

    def git(self, *arguments: str) -> str | None:
        """Return what a git command prints, None if it fails."""
        return source_code.git(self.project, *arguments)
