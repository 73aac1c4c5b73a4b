"""Says where the checkpoints of runs lie (work directories, MLflow's artifacts), who needs them, and removes them there."""

import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from matwm.checkpoint import Checkpoint, CheckpointError, open_checkpoint, read_manifest
from matwm.manifest import MANIFEST
from pipeline import project as places
from pipeline import runs, stores
from pipeline.process import is_held
from pipeline.reporting.outbox import Outbox

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

logger = logging.getLogger(__name__)

PIN = "matwm.pin."
"""The tag that pins a checkpoint is this and the name of its folder; its value is a note, or else:"""
PINNED = "pinned"


class Place(Protocol):
    """Somewhere that checkpoints of one run lie."""

    name: str

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint here, sound or not, ascending."""
        ...

    def manifest(self, step: int) -> Checkpoint:
        """Return a checkpoint of which only the manifest is verified; raise CheckpointError if that is damaged."""
        ...

    def open(self, step: int) -> Checkpoint:
        """Return a checkpoint on this machine, every byte verified; raise CheckpointError if it is damaged."""
        ...

    def remove(self, steps: Iterable[int], *, is_live: bool) -> None:
        """Remove checkpoints, each whole or not at all, and what an interrupted removal has left."""
        ...


class LocalPlace:
    """Checkpoints in a folder of this machine."""

    def __init__(self, name: str, folder: Path, work: Path | None = None, *, is_own: bool = True) -> None:
        """`work`: the work directory that the folder is in, whose lock a process that trains there has.

        Nothing is ever removed from a place that is not this project's own.
        """
        self.name, self.folder, self.work, self.is_own = name, folder, work, is_own

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint here."""
        return places.steps_in(self.folder)

    def manifest(self, step: int) -> Checkpoint:
        """Return a checkpoint of which only the manifest is verified."""
        return read_manifest(self.folder / places.step_folder(step))

    def open(self, step: int) -> Checkpoint:
        """Return a checkpoint, verified."""
        return open_checkpoint(self.folder / places.step_folder(step))

    def remove(self, steps: Iterable[int], *, is_live: bool) -> None:
        """Remove checkpoints, manifest first: what is left after a crash is none any more, and goes the next time.

        Raises:
            ProjectError: the place is not this project's own.
        """
        if not self.is_own:
            if set(steps) & set(self.steps()):
                raise places.ProjectError(not_own(self.folder))
            return
        for step in steps:
            (self.folder / places.step_folder(step) / MANIFEST).unlink(missing_ok=True)
        for folder in self.leftovers():
            shutil.rmtree(folder)

    def leftovers(self) -> list[Path]:
        """Return folders of checkpoints that have no manifest: none is ever written like that."""
        folders = self.folder.iterdir() if self.folder.is_dir() else ()
        return [path for path in folders if places.step_of(path) is not None and path.is_dir() and not (path / MANIFEST).exists()]

    def files(self, steps: Iterable[int]) -> Iterator[os.stat_result]:
        """Yield what the file system says of every file of some checkpoints."""
        for step in steps:
            for path in (self.folder / places.step_folder(step)).rglob("*"):
                if path.is_file():
                    yield path.lstat()


class RemotePlace:
    """A run's artifacts on a server: replay chunks lie once for all its checkpoints."""

    def __init__(self, run_id: str, repository: "ArtifactRepository", scratch: Path) -> None:
        self.name = "MLflow"
        self._run_id, self._repository, self._scratch = run_id, repository, scratch / run_id
        self._manifests: dict[int, Checkpoint | CheckpointError] = {}

    def steps(self) -> list[int]:
        """Return the steps whose manifest is there."""
        return stores.MlflowStore().steps(self._run_id)

    def manifest(self, step: int) -> Checkpoint:
        """Return a checkpoint of which only the manifest is here, and verified."""
        if step not in self._manifests:
            target = self._scratch / "manifests"
            target.mkdir(parents=True, exist_ok=True)
            name = f"checkpoints/{places.step_folder(step)}"
            with runs.explained(runs.configured_uri()):
                self._repository.download_artifacts(f"{name}/{MANIFEST}", str(target))
            try:
                self._manifests[step] = read_manifest(target / name)
            except CheckpointError as error:
                self._manifests[step] = error
        found = self._manifests[step]
        if isinstance(found, CheckpointError):
            raise found
        return found

    def open(self, step: int) -> Checkpoint:
        """Bring a checkpoint here, verified."""
        return stores.MlflowStore().pull(self._run_id, step, self._scratch / "whole")

    def remove(self, steps: Iterable[int], *, is_live: bool) -> None:
        """Remove checkpoints, manifests first, then the replay chunks that no checkpoint lists which is still there."""
        with runs.explained(runs.configured_uri()):
            self._remove(steps, is_live=is_live)

    def _remove(self, steps: Iterable[int], *, is_live: bool) -> None:
        present = self.steps()
        gone = [step for step in steps if step in present]
        listed = self._chunks(gone)
        for step in gone:
            self._repository.delete_artifacts(f"checkpoints/{places.step_folder(step)}/{MANIFEST}")
        there = self.steps()
        for folder in stores.sizes(self._repository, "checkpoints", is_dir=True):
            step = places.step_of(folder)
            if step in gone or (step is not None and step not in there and not is_live):
                self._repository.delete_artifacts(folder)
        kept = self._chunks(there)
        if kept is None:
            return  # What a damaged manifest lists is unknown: its chunks may be any.
        # Without a checkpoint that lists them they are of an upload that a live run is about to finish, or of one that broke off.
        for chunk in (listed or set()) - kept if is_live else set(stores.sizes(self._repository, "replay")) - kept:
            self._repository.delete_artifacts(chunk)

    def size_of(self, steps: Iterable[int]) -> int:
        """Return the bytes that would be free if these checkpoints were removed."""
        gone = set(steps)
        own, chunks, stay = 0, dict[str, int](), self._chunks([step for step in self.steps() if step not in gone])
        for step in gone:
            try:
                files = self.manifest(step).manifest["files"]
            except CheckpointError:
                continue
            own += sum(facts["size"] for name, facts in files.items() if not name.startswith("replay/"))
            chunks |= {name: facts["size"] for name, facts in files.items() if name.startswith("replay/")}
        return own + (0 if stay is None else sum(size for name, size in chunks.items() if name not in stay))

    def _chunks(self, steps: Iterable[int]) -> set[str] | None:
        """Return the chunks that some checkpoints list, None if a manifest is damaged."""
        try:
            return {name for step in steps for name in self.manifest(step).manifest["files"] if name.startswith("replay/")}
        except CheckpointError:
            return None


@dataclass
class Held:
    """One run's checkpoints, wherever they lie."""

    name: str
    """The run's ID, or its work directory's name if no store has made the run."""
    segment: str | None = None
    key: str | None = None
    parent_digest: str | None = None
    parent_step: int = 0
    parent_run: str | None = None
    is_live: bool = False
    writer: str | None = None
    """Whose journal the run's points came from last."""
    pins: dict[int, str] = field(default_factory=dict)
    pending: set[int] = field(default_factory=set)
    """Steps that wait here for their upload."""
    places: list[Place] = field(default_factory=list)

    @cached_property
    def where(self) -> dict[int, list[Place]]:
        """Every step with the places that have it, ascending."""
        found: dict[int, list[Place]] = {}
        for place in self.places:
            for step in place.steps():
                found.setdefault(step, []).append(place)
        return dict(sorted(found.items()))

    @cached_property
    def steps(self) -> dict[int, Checkpoint | CheckpointError]:
        """Every step with its manifest, or with what is wrong with it, ascending."""
        return {step: _manifest(step, there) for step, there in self.where.items()}

    def sound(self, step: int) -> Checkpoint | None:
        """Return a step's checkpoint, verified, from the first place where it is sound."""
        for place in self.where[step]:
            try:
                return place.open(step)
            except CheckpointError as error:
                logger.warning("%s", error)
        return None


def gather(project: Path, scratch: Path) -> list[Held]:
    """Return what every run that MLflow or a work directory here knows holds, newest run first.

    Raises:
        TrackingError: MLflow does not answer.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    held: dict[str, Held] = {}
    for info in runs.list_runs():
        one = Held(info.run_id, info.segment, info.key, info.tags.get("matwm.parent_digest"), info.parent_step or 0, info.parent_run_id)
        one.is_live, one.writer = info.status == "RUNNING", info.tags.get("matwm.writer")
        one.pins = {step: note for tag, note in info.tags.items() if tag.startswith(PIN) and (step := _pinned(tag)) is not None}
        folder = stores.local_folder(info.artifact_uri)
        repository = get_artifact_repository(info.artifact_uri, tracking_uri=runs.configured_uri())
        one.places.append(_in_mlflow(folder) if folder else RemotePlace(info.run_id, repository, scratch))
        held[info.run_id] = one
    for work in places.work_folders(project, "checkpoints"):
        _add_work(held, work)
    return list(held.values())


def not_own(folder: Path) -> str:
    """Say that checkpoints are not this project's to remove."""
    return (
        f"MLflow's database here leads to {folder}, which is not beside it: this project was copied or moved, and those may be "
        'another project\'s checkpoints. Nothing is removed: run "matwm doctor --fix" first'
    )


def _in_mlflow(folder: Path) -> LocalPlace:
    return LocalPlace("MLflow", folder / "checkpoints", is_own=stores.is_own(folder, runs.configured_uri()))


def _add_work(held: dict[str, Held], work: Path) -> None:
    """Add a work directory to the run that it belongs to; that process lives exactly while it has the lock."""
    facts = places.read_json(work / "run.json") or {}
    segment, key = facts.get("segment"), facts.get("key")
    name = facts.get("run_id") or next((one.name for one in held.values() if (one.segment, one.key) == (segment, key)), None) or work.name
    one = held.setdefault(name, Held(name, segment, key))
    one.places.insert(0, LocalPlace("work directory", work / "checkpoints", work))
    outbox = Outbox(work / "outbox.json").contents
    # RUNNING says more only of a run that another machine has gone on with since.
    one.is_live = is_held(work / "lock") or (one.is_live and outbox.writer != one.writer)
    for path, _ in outbox.uploads:
        if (step := places.step_of(Path(path))) is not None:
            one.pending.add(step)
    parents = [found.parent for found in one.steps.values() if isinstance(found, Checkpoint)]
    if one.parent_digest is None and parents:
        one.parent_digest, one.parent_step = parents[-1].digest, parents[-1].step


def ancestors(project: Path, held: Iterable[Held]) -> dict[str, str]:
    """Return the checkpoints from which something that is known here goes on, each with who does.

    Each is named by its digest and by `name_of` run and step: a damaged manifest has no digest to be known by.
    """
    found: dict[str, str] = {}
    for segment, facts in places.run_records(project).items():
        parent = facts.get("parent") or {}
        found |= dict.fromkeys([parent.get("digest", ""), name_of(parent.get("run_id"), parent.get("step", 0))], segment)
    for checkpoint in [*_outputs(project, "checkpoints"), *_outputs(project, "imports")]:
        found[checkpoint.parent.digest] = checkpoint.path.relative_to(project).as_posix()
    for checkpoint in _outputs(project, "imports"):
        found[checkpoint.digest] = checkpoint.path.relative_to(project).as_posix()
    for one in held:
        who = f"{one.name[:12]} ({one.segment})" if one.segment else one.name[:12]
        found |= {checkpoint.parent.digest: who for checkpoint in one.steps.values() if isinstance(checkpoint, Checkpoint)}
        found |= dict.fromkeys([one.parent_digest or "", name_of(one.parent_run, one.parent_step)], who)
    return found


def name_of(run: str | None, step: int) -> str:
    """Return the name by which `ancestors` knows a run's checkpoint."""
    return f"{run}@{step}"


def published(project: Path) -> dict[str, str]:
    """Return the digests of the checkpoints in `checkpoints/<segment>`, each with its folder."""
    return {checkpoint.digest: checkpoint.path.relative_to(project).as_posix() for checkpoint in _outputs(project, "checkpoints")}


def _outputs(project: Path, folder: str) -> list[Checkpoint]:
    found: list[Checkpoint] = []
    for path in sorted((project / folder).glob("*/step_*")):
        try:
            found.append(read_manifest(path))
        except CheckpointError as error:
            logger.warning("%s", error)
    return found


def _manifest(step: int, there: Iterable[Place]) -> Checkpoint | CheckpointError:
    found: list[CheckpointError] = []
    for place in there:
        try:
            return place.manifest(step)
        except CheckpointError as error:
            found.append(error)
    return found[0]


def _pinned(tag: str) -> int | None:
    return places.step_of(tag.removeprefix(PIN))
