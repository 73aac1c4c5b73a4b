"""Checkpoints in folders of the project: published and imported ones, which DVC keeps, and those of work directories."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

from matwm.checkpoint import Checkpoint, CheckpointError, publish, read_manifest
from matwm.manifest import MANIFEST
from pipeline import project as places
from pipeline.run import Run
from pipeline.stores.protocol import is_there, missing


class FolderStore(ABC):
    """Checkpoints `step_…` in one folder for each run."""

    kind: ClassVar[str]
    name: str
    is_only_for_resume: ClassVar[bool] = False
    may_block: ClassVar[bool] = False
    needs_run_id: ClassVar[bool] = False
    is_witness: ClassVar[bool] = False

    def __init__(self, project: Path) -> None:
        self._project = project

    @classmethod
    def of(cls, project: Path) -> Self:
        """Return the store of a project."""
        return cls(project)

    @abstractmethod
    def home(self, run: Run) -> Path | None:
        """Return where a run's checkpoints lie, None if nowhere here."""

    @abstractmethod
    def homes(self) -> list[Path]:
        """Return where those of all runs lie."""

    def steps(self, run: Run) -> list[int]:
        """Return the steps that have a folder with a manifest."""
        home = self.home(run)
        return places.steps_in(home) if home else []

    def folder(self, run: Run, step: int) -> Path | None:
        """Return a checkpoint's folder."""
        home = self.home(run)
        found = home and home / places.step_folder(step)
        return found if found and is_there(found) else None

    def open(self, run: Run, step: int) -> Checkpoint:
        """Return a checkpoint with its manifest verified."""
        return read_manifest(self._there(run, step))

    def pull(self, run: Run, step: int, target_dir: Path, near: Sequence[Path] = ()) -> Checkpoint:
        """Link a checkpoint into another folder."""
        return publish(self._there(run, step), target_dir / places.step_folder(step))

    def with_step(self, step: int) -> Iterator[Path]:
        """Yield every folder that claims to be a checkpoint of a step, whichever run made it."""
        return iter(self._by_step.get(step, ()))

    @cached_property
    def _by_step(self) -> dict[int, list[Path]]:
        found: dict[int, list[Path]] = {}  # Listed once: a walk back asks for each step of a lineage in turn.
        for home in self.homes():
            for step in places.steps_in(home):
                found.setdefault(step, []).append(home / places.step_folder(step))
        return found

    def _there(self, run: Run, step: int) -> Path:
        found = self.folder(run, step)
        if found is None:
            raise CheckpointError(missing(run, step, self.steps(run)))
        return found


class WorkStore(FolderStore):
    """The checkpoints of work directories, where training writes them."""

    kind: ClassVar[str] = "work"
    name = "work directory"

    def home(self, run: Run) -> Path | None:
        """Return the folder below the run's work directory."""
        return run.work and run.work / "checkpoints"

    def homes(self) -> list[Path]:
        """Return the folders below all work directories."""
        return [work / "checkpoints" for work in places.work_folders(self._project, "checkpoints")]

    def put(self, run: Run, checkpoint: Path) -> Checkpoint:
        """Link a checkpoint into the run's work directory.

        Raises:
            CheckpointError: it is damaged, or another one is there.
        """
        home = self.home(run)
        if home is None:
            raise CheckpointError(f"run {run.id} has no work directory here")
        return publish(checkpoint, home / checkpoint.name)

    def delete(self, run: Run, steps: Iterable[int], *, is_live: bool) -> None:
        """Remove checkpoints; the caller keeps processes from training the run meanwhile."""
        if home := self.home(run):
            delete_folders(home, steps)

    def refusal(self, run: Run) -> str | None:
        """Refuse nothing: what is in a work directory is the project's."""
        return None

    def freed(self, run: Run, steps: Iterable[int]) -> int:
        """Return 0: nothing lies on a server."""
        return 0


class PublishedStore(FolderStore):
    """The checkpoints in `checkpoints/<segment>`, of the runs that git says these come from."""

    kind: ClassVar[str] = "published"
    name = "checkpoints/"

    def home(self, run: Run) -> Path | None:
        """Return the folder of the run's segment."""
        return run.published

    def homes(self) -> list[Path]:
        """Return the folders of all segments and trials."""
        return places.published_folders(self._project)


class ImportedStore(FolderStore):
    """The checkpoints in `imports/<run>`."""

    kind: ClassVar[str] = "imported"
    name = "imports/"

    def home(self, run: Run) -> Path | None:
        """Return the folder that is named after the run."""
        return self._project / "imports" / run.run_id if run.run_id else None

    def homes(self) -> list[Path]:
        """Return the folders of all runs."""
        return sorted((self._project / "imports").glob("*/"))


def delete_folders(home: Path, steps: Iterable[int]) -> None:
    """Remove checkpoints from a folder, manifest first: what is left after a crash is none any more, and goes the next time."""
    for step in steps:
        (home / places.step_folder(step) / MANIFEST).unlink(missing_ok=True)
    for folder in home.iterdir() if home.is_dir() else ():
        # None is ever written without a manifest.
        if places.step_of(folder) is not None and folder.is_dir() and not (folder / MANIFEST).exists():
            shutil.rmtree(folder)
