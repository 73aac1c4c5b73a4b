"""Checkpoints in folders of the project: published and imported ones, which DVC keeps, and those of work directories."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from matwm.checkpoint import Checkpoint, CheckpointError, publish, read_manifest
from matwm.manifest import MANIFEST
from pipeline import project as places
from pipeline.run import Run
from pipeline.stores.protocol import is_there, missing


class FolderStore:
    """Checkpoints `step_…` in one folder for each run."""

    def __init__(self, kind: str, name: str, folder_of: Callable[[Run], Path | None], folders: Callable[[], Iterable[Path]]) -> None:
        """`folder_of` says where a run's checkpoints lie, `folders` where those of all runs do."""
        self.kind, self.name = kind, name
        self.home, self._folders = folder_of, folders

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
        found = (folder / places.step_folder(step) for folder in self._folders())
        return (folder for folder in found if is_there(folder))

    def _there(self, run: Run, step: int) -> Path:
        found = self.folder(run, step)
        if found is None:
            raise CheckpointError(missing(run, step, self.steps(run)))
        return found


class WorkStore(FolderStore):
    """The checkpoints of work directories, where training writes them."""

    def __init__(self, project: Path) -> None:
        super().__init__(
            "work",
            "work directory",
            lambda run: run.work and run.work / "checkpoints",
            lambda: [work / "checkpoints" for work in places.work_folders(project, "checkpoints")],
        )

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


def published(project: Path) -> FolderStore:
    """Return the store of `checkpoints/<segment>`, of the runs that git says these come from."""
    return FolderStore("published", "checkpoints/", lambda run: run.published, lambda: places.published_folders(project))


def imported(project: Path) -> FolderStore:
    """Return the store of `imports/<run>`."""
    imports = project / "imports"
    return FolderStore("imported", "imports/", lambda run: imports / run.run_id if run.run_id else None, lambda: _below(imports))


def delete_folders(home: Path, steps: Iterable[int]) -> None:
    """Remove checkpoints from a folder, manifest first: what is left after a crash is none any more, and goes the next time."""
    for step in steps:
        (home / places.step_folder(step) / MANIFEST).unlink(missing_ok=True)
    for folder in home.iterdir() if home.is_dir() else ():
        # None is ever written without a manifest.
        if places.step_of(folder) is not None and folder.is_dir() and not (folder / MANIFEST).exists():
            shutil.rmtree(folder)


def _below(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/"))
