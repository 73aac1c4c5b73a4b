"""Brings a run's checkpoint into `imports/<run>/`, where DVC keeps it as the start of a segment."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from matwm import durable
from matwm.checkpoint import Checkpoint, open_checkpoint
from matwm.manifest import MANIFEST
from pipeline import project as places
from pipeline.catalog.checkpoints import Checkpoints
from pipeline.params import imports
from pipeline.project import ProjectError
from pipeline.run import Run


@dataclass
class Import:
    """A checkpoint that lies in `imports/`, and the files beside it that belong into git."""

    checkpoint: Checkpoint
    files: list[Path]
    source: str = "imports/"
    """The store that it came from."""
    is_kept: bool = False

    def keep(self, project: Path) -> None:
        """Make it DVC's business, with its manifest beside the pointer for git; to repeat it changes nothing.

        Raises:
            ProjectError: DVC does not take it.
        """
        done = subprocess.run(
            [places.tool("dvc"), "add", str(self.checkpoint.path.relative_to(project))],
            cwd=project, env=places.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            why = " ".join(done.stderr.split())
            raise ProjectError(f'"dvc add" does not take the imported checkpoint: {why}')
        record = imports.record(project, self.checkpoint.path.relative_to(project).as_posix())
        places.write_text(record, (self.checkpoint.path / MANIFEST).read_text(encoding="utf-8"))
        self.is_kept = True


@contextmanager
def imported(checkpoints: Checkpoints, run: Run, step: int) -> Iterator[Import]:
    """Yield a run's checkpoint in `imports/`; unless the block keeps it and ends well, what was not there before is removed.

    Raises:
        ProjectError: it is not here, or the run has no ID.
        CheckpointError, TrackingError: it is damaged (the message names the file) or cannot be had.
    """
    if run.run_id is None:
        raise ProjectError(f"{run.name} was trained without MLflow: it has no ID to be imported by")
    project = checkpoints.project
    parent = project / "imports" / run.run_id
    folder = parent / places.step_folder(step)
    pointer, ignored = folder.with_name(f"{folder.name}.dvc"), parent / ".gitignore"
    files = [pointer, imports.record(project, folder.relative_to(project).as_posix()), ignored]
    if folder.is_dir() and pointer.is_file():
        yield Import(open_checkpoint(folder), files)
        return
    outermost = next(path for path in (project / "imports", parent, folder) if not path.exists() or path == folder)
    before = {path: path.read_bytes() for path in files if path.exists()}
    found = None
    is_done = False
    try:
        checkpoint, store = checkpoints.bring(run, step, parent)
        found = Import(checkpoint, files, store.name)
        yield found
        is_done = True
    finally:
        if not (is_done and found and found.is_kept):
            shutil.rmtree(outermost, ignore_errors=True)
            for path in files:
                if path in before:
                    durable.replace(path, before[path])
                else:
                    path.unlink(missing_ok=True)
