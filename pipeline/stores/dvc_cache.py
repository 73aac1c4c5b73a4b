"""The checkpoints of segments in DVC's cache: what `checkpoints/<segment>` held when dvc.lock was written."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

from matwm import durable
from matwm.checkpoint import MANIFEST, Checkpoint, CheckpointError, publish, read_manifest
from pipeline import dvc_files
from pipeline import project as places
from pipeline.run import Run
from pipeline.stores.protocol import missing
from pipeline.stores.scratch import beside, for_manifest


class DvcCacheStore:
    """What the cache has of a segment's last training that DVC knows of, of which a run may be another: `is_of` says it."""

    kind: ClassVar[str] = "dvc_cache"
    name = "DVC's cache"
    is_only_for_resume: ClassVar[bool] = True
    may_block: ClassVar[bool] = False
    needs_run_id: ClassVar[bool] = False
    is_witness: ClassVar[bool] = False

    def __init__(self, project: Path) -> None:
        self._project = project
        self._files: dict[str, dict[str, Path]] = {}

    @classmethod
    def of(cls, project: Path) -> Self:
        """Return the cache of a project."""
        return cls(project)

    def steps(self, run: Run) -> list[int]:
        """Return the steps of the segment whose files are all in the cache."""
        manifests = (name.partition("/") for name in self._of(run) if name.count("/") == 1)
        return sorted(step for folder, _, name in manifests if name == MANIFEST and (step := places.step_of(folder)) is not None)

    def folder(self, run: Run, step: int) -> Path | None:
        """Return None: the cache keeps files by their hash."""
        return None

    def open(self, run: Run, step: int) -> Checkpoint:
        """Return a checkpoint with its manifest verified."""
        files, name = self._there(run, step), places.step_folder(step)
        folder = for_manifest(self.kind, run.id, name)
        (folder / MANIFEST).write_bytes(files[f"{name}/{MANIFEST}"].read_bytes())
        return read_manifest(folder)

    def pull(self, run: Run, step: int, target_dir: Path, near: Sequence[Path] = ()) -> Checkpoint:
        """Put a checkpoint together by hard links."""
        files, name = self._there(run, step), places.step_folder(step)
        with beside(target_dir) as scratch:
            for relative, source in files.items():
                if relative.startswith(f"{name}/"):
                    (scratch / relative).parent.mkdir(parents=True, exist_ok=True)
                    durable.link(source, scratch / relative)
            return publish(scratch / name, target_dir / name)

    def _of(self, run: Run) -> dict[str, Path]:
        segment = str(run.segment)
        if segment not in self._files:
            self._files[segment] = dvc_files.checkpoint_files(self._project, segment) or {}
        return self._files[segment]

    def _there(self, run: Run, step: int) -> dict[str, Path]:
        if step not in (there := self.steps(run)):
            raise CheckpointError(missing(run, step, there))
        return self._of(run)
