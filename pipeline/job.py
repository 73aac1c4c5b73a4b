"""Says what a training process is to do: which segment, from which checkpoint, in which work directory."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from matwm.checkpoint import Parent, is_root, open_parent, read_manifest
from matwm.manifest import MANIFEST
from pipeline import project as places
from pipeline.params import imports
from pipeline.params.segments import ResolvedSegment


@dataclass(frozen=True)
class Start:
    """The checkpoint that a segment begins with, and the run that made it."""

    folder: Path
    parent: Parent
    is_root: bool
    run_id: str | None


@dataclass(frozen=True)
class Job:
    """One segment to be trained."""

    project: Path
    segment: ResolvedSegment
    start: Start
    launcher: str | None
    """The MLflow run that started this process (`mlflow run`), if any."""

    @cached_property
    def key(self) -> str:
        """The segment's key."""
        return self.segment.key(self.start.parent.digest)

    @property
    def work(self) -> Path:
        """The work directory."""
        return places.work_folder(self.project, self.segment.name, self.key)


def open_start(project: Path, segment: ResolvedSegment, graph: Mapping[str, ResolvedSegment]) -> Start:
    """Return what a segment begins with, its manifest verified.

    Raises:
        ProjectError: it is not there, or was not trained as params.yaml says.
        CheckpointError: its manifest is damaged.
    """
    origin = segment.origin
    folder = project / origin.folder
    if not (folder / MANIFEST).is_file():
        how = f"train {origin.segment} first" if origin.segment else 'run "dvc pull"' if origin.run else "restore it from git"
        raise places.ProjectError(f"segment {segment.name} starts from {origin.folder}, which is not there: {how}")
    parent = open_parent(folder)
    if parent.step != origin.step:
        raise places.ProjectError(f"{origin.folder} holds a checkpoint of step {parent.step}: it was renamed or replaced")
    if origin.segment is None:
        record = imports.record(project, origin.folder)
        if record.is_file() and record.read_bytes() != (folder / MANIFEST).read_bytes():
            raise places.ProjectError(
                f"{origin.folder} is not the checkpoint that was imported: {record.name} in git has another manifest; "
                f'run "dvc checkout --force {origin.folder}.dvc", or restore {record.name} from git'
            )
        return Start(folder, parent, is_root(folder), origin.run)
    if read_manifest(folder).config != graph[origin.segment].config.shaping():
        raise places.ProjectError(
            f'{origin.folder} was trained with other values than params.yaml has: run "matwm repro", not this stage alone'
        )
    facts = places.run_record(project, origin.segment)
    work = places.work_folder(project, origin.segment, str(facts.get("key")))
    here = places.read_json(work / "run.json") or {}  # MLflow may have given the run another ID than git has: `matwm import`.
    return Start(folder, parent, is_root=False, run_id=here.get("run_id") or facts.get("run_id"))
