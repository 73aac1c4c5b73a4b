"""The checkpoints of runs as artifacts of their runs in MLflow."""

import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import unquote, urlsplit

from matwm.checkpoint import MANIFEST, Checkpoint, CheckpointError, open_checkpoint, publish, read_manifest
from matwm.step_names import step_name
from pipeline import project, runs
from pipeline.addresses import database_of
from pipeline.run import Run
from pipeline.stores.folders import delete_folders
from pipeline.stores.protocol import is_there, missing
from pipeline.stores.scratch import beside, for_manifest

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

logger = logging.getLogger(__name__)


class MlflowStore:
    """The artifacts `checkpoints/step_…` of runs in one MLflow store.

    Artifacts in a folder of this machine are hard links to the files they were put from. On a server, replay chunks lie once
    a run under `replay/`, and the manifest comes last, so that half an upload is no checkpoint.
    """

    kind: ClassVar[str] = "mlflow"
    name = "MLflow"
    is_only_for_resume: ClassVar[bool] = False
    may_block: ClassVar[bool] = True
    needs_run_id: ClassVar[bool] = True
    is_witness: ClassVar[bool] = True

    def __init__(self, uri: str | None = None) -> None:
        self.uri = uri or runs.configured_uri()
        self._manifests: dict[tuple[str, int], Checkpoint | CheckpointError] = {}

    @classmethod
    def of(cls, project: Path) -> Self:
        """Return the store that a project's runs are logged to.

        Raises:
            TrackingError: MLFLOW_TRACKING_URI names one that cannot be used.
        """
        return cls(runs.tracking_uri(project))

    def steps(self, run: Run) -> list[int]:
        """Return the steps of a run's checkpoints, ascending; uploads without a manifest do not count, nor a run that MLflow does not know.

        Raises:
            TrackingError: MLflow does not answer.
        """
        if run.artifact_uri is None:
            return []
        with self._artifacts(run) as (folder, repository):
            if folder is not None:
                return project.steps_in(folder / "checkpoints")
            found = {project.step_of(path): path for path in _sizes(repository, "checkpoints", is_dir=True)}
            return sorted(step for step, path in found.items() if step is not None and f"{path}/{MANIFEST}" in _sizes(repository, path))

    def folder(self, run: Run, step: int) -> Path | None:
        """Return a checkpoint's folder, None if it lies on a server."""
        home = local_folder(run.artifact_uri) if run.artifact_uri else None
        found = home and home / "checkpoints" / step_name(step)
        return found if found and is_there(found) else None

    def open(self, run: Run, step: int) -> Checkpoint:
        """Return a checkpoint with its manifest verified; a server's manifest is fetched once.

        Raises:
            CheckpointError: there is none, or its manifest is damaged.
            TrackingError: MLflow does not answer, or has no such run.
        """
        with self._artifacts(run) as (folder, repository):
            if folder is not None:
                return read_manifest(folder / "checkpoints" / step_name(step))
            return self._manifest(run, step, repository)

    def pull(self, run: Run, step: int, target_dir: Path, near: Sequence[Path] = ()) -> Checkpoint:
        """Bring a checkpoint to `target_dir/step_…` and return it, every hash verified; nothing is left there if that fails.

        Raises:
            CheckpointError: it is damaged (the message names the file), or there is none of this step (it names those there are).
            TrackingError: MLflow does not answer, or has no such run.
        """
        name, target = step_name(step), target_dir / step_name(step)
        with self._artifacts(run) as (folder, repository):
            if step not in (there := self.steps(run)):
                raise CheckpointError(missing(run, step, there))
            if folder is not None:
                return publish(folder / "checkpoints" / name, target)
            with beside(target_dir) as scratch:
                arrived = scratch / "checkpoints" / name
                try:
                    _download(repository, name, scratch)
                    open_checkpoint(arrived)
                except CheckpointError as error:
                    raise CheckpointError(str(error).replace(str(arrived), f"run {run.run_id}: checkpoints/{name}")) from None
                return publish(arrived, target)

    def put(self, run: Run, checkpoint: Path, on_answer: Callable[[], None] = lambda: None) -> None:
        """Add a checkpoint to a run's artifacts; what is there already is not sent again. `on_answer` is called after each file.

        Raises:
            CheckpointError: the folder is no sound checkpoint, cannot be linked there, or the run has another one of the same step.
            TrackingError: MLflow or its storage does not take it.
        """
        found = open_checkpoint(checkpoint)
        with self._artifacts(run) as (folder, repository):
            if folder is not None:
                publish(checkpoint, folder / "checkpoints" / checkpoint.name)
            else:
                _upload(found, repository, on_answer)

    def delete(self, run: Run, steps: Iterable[int], *, is_live: bool) -> None:
        """Remove checkpoints, manifests first, then the replay chunks on a server that no checkpoint lists which is still there.

        Raises:
            ProjectError: they are not this project's own.
            TrackingError: MLflow does not answer.
        """
        if run.artifact_uri is None:
            return
        home = local_folder(run.artifact_uri)
        if home is None:
            with self._artifacts(run) as (_, repository):
                self._delete(run, steps, repository, is_live=is_live)
        elif refusal := self.refusal(run):
            if set(steps) & set(self.steps(run)):
                raise project.ProjectError(refusal)
        else:
            delete_folders(home / "checkpoints", steps)

    def refusal(self, run: Run) -> str | None:
        """Say why nothing may be removed of this run: its artifacts may be another project's; None if they are our own."""
        if run.artifact_uri is None or elsewhere(run.artifact_uri, self.uri) is None:
            return None
        return (
            f"MLflow's database here leads to {local_folder(run.artifact_uri)}, which is not beside it: this project was copied or moved, "
            'and those may be another project\'s checkpoints. Nothing is removed: "matwm doctor" says what to do'
        )

    def freed(self, run: Run, steps: Iterable[int]) -> int:
        """Return the bytes on a server that would be free if these checkpoints were removed."""
        if run.artifact_uri is None or local_folder(run.artifact_uri) is not None:
            return 0
        gone = set(steps)
        with self._artifacts(run) as (_, repository):
            stay = self._chunks(run, [step for step in self.steps(run) if step not in gone], repository)
            own, chunks = 0, dict[str, int]()
            for step in gone:
                try:
                    files = self._manifest(run, step, repository).manifest["files"]
                except CheckpointError:
                    continue
                own += sum(facts["size"] for name, facts in files.items() if not name.startswith("replay/"))
                chunks |= {name: facts["size"] for name, facts in files.items() if name.startswith("replay/")}
        return own + (0 if stay is None else sum(size for name, size in chunks.items() if name not in stay))

    def _delete(self, run: Run, steps: Iterable[int], repository: "ArtifactRepository", *, is_live: bool) -> None:
        present = self.steps(run)
        gone = [step for step in steps if step in present]
        listed = self._chunks(run, gone, repository)
        for step in gone:
            repository.delete_artifacts(f"checkpoints/{step_name(step)}/{MANIFEST}")
        there = self.steps(run)
        for folder in _sizes(repository, "checkpoints", is_dir=True):
            step = project.step_of(folder)
            if step in gone or (step is not None and step not in there and not is_live):
                repository.delete_artifacts(folder)
        kept = self._chunks(run, there, repository)
        if kept is None:
            return  # What a damaged manifest lists is unknown: its chunks may be any.
        # Without a checkpoint that lists them they are of an upload that a live run is about to finish, or of one that broke off.
        for chunk in (listed or set()) - kept if is_live else set(_sizes(repository, "replay")) - kept:
            repository.delete_artifacts(chunk)

    def _chunks(self, run: Run, steps: Iterable[int], repository: "ArtifactRepository") -> set[str] | None:
        """Return the chunks that some checkpoints list, None if a manifest is damaged."""
        try:
            files = (name for step in steps for name in self._manifest(run, step, repository).manifest["files"])
            return {name for name in files if name.startswith("replay/")}
        except CheckpointError:
            return None

    def _manifest(self, run: Run, step: int, repository: "ArtifactRepository") -> Checkpoint:
        """Return a checkpoint on a server of which the manifest alone is here."""
        from mlflow.exceptions import MlflowException

        key = (str(run.run_id), step)
        if key not in self._manifests:
            target, name = for_manifest(self.kind, key[0]), f"checkpoints/{step_name(step)}"
            try:
                repository.download_artifacts(f"{name}/{MANIFEST}", str(target))
            except MlflowException:
                if step not in (there := self.steps(run)):
                    raise CheckpointError(missing(run, step, there)) from None
                raise
            try:
                self._manifests[key] = read_manifest(target / name)
            except CheckpointError as error:
                self._manifests[key] = error
        found = self._manifests[key]
        if isinstance(found, CheckpointError):
            raise found
        return found

    @contextmanager
    def _artifacts(self, run: Run) -> "Iterator[tuple[Path | None, ArtifactRepository]]":
        """Yield the run's artifacts: a folder of this machine (else None), and MLflow's way to them."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        if run.artifact_uri is None:
            raise runs.TrackingError(f"MLflow at {runs.shown(self.uri)} has no run {run.id}")
        with runs.explained(self.uri):
            yield local_folder(run.artifact_uri), get_artifact_repository(run.artifact_uri, tracking_uri=self.uri)


def local_folder(artifact_uri: str) -> Path | None:
    """Return where a run's artifacts lie if that is a folder of this machine."""
    parts = urlsplit(artifact_uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(artifact_uri) if not parts.scheme else None


@dataclass(frozen=True)
class Elsewhere:
    """Artifacts that do not lie beside the database that knows them."""

    mlruns: Path
    """The folder `mlruns` that they are in, else their own."""
    is_there: bool
    is_here: bool
    """Whether there is a folder of the same name beside the database: the project was copied or moved from there."""


def elsewhere(location: str, uri: str) -> Elsewhere | None:
    """Return where artifacts lie if that is not beside the database that knows them: a copied project's still lead to the original's.

    None if it is, and for what a server keeps on this machine, which is its own.
    """
    database, folder = database_of(uri), local_folder(location)
    if database is None or folder is None:
        return None
    # What is above `mlruns` is resolved and that itself is not: it may be a link to a larger disk.
    path, home = Path(os.path.abspath(folder)), database.parent.resolve()  # noqa: PTH100
    above = [one for one in path.parents if one.name == "mlruns"]
    if any(one.parent.resolve() == home for one in above):
        return None
    if not above:
        return Elsewhere(path, path.exists(), is_here=False)
    return Elsewhere(above[-1], path.exists(), (home / "mlruns" / path.relative_to(above[-1])).exists())


def _upload(checkpoint: Checkpoint, repository: "ArtifactRepository", on_answer: Callable[[], None]) -> None:
    """Send what the server lacks of a checkpoint, the manifest last."""
    path, files = checkpoint.path, checkpoint.manifest["files"]
    places = {name: _remote_name(path.name, name) for name in files}
    there: dict[str, int | None] = {}
    for folder in {str(PurePosixPath(place).parent) for place in places.values()} | {f"checkpoints/{path.name}"}:
        there.update(_sizes(repository, folder))
    manifest = f"checkpoints/{path.name}/{MANIFEST}"
    if manifest in there and not _is_same(path, manifest, repository):
        del there[manifest]
    for name, place in places.items():
        if there.get(place) != files[name]["size"]:
            repository.log_artifact(str(path / name), str(PurePosixPath(place).parent))
            on_answer()
    if manifest not in there:
        repository.log_artifact(str(path / MANIFEST), str(PurePosixPath(manifest).parent))


def _is_same(path: Path, manifest: str, repository: "ArtifactRepository") -> bool:
    """Return whether MLflow has this very checkpoint, False if what it has of the step is damaged.

    Raises:
        CheckpointError: it has another one.
    """
    with tempfile.TemporaryDirectory() as temporary:
        theirs = Path(repository.download_artifacts(manifest, temporary))
        if theirs.read_bytes() == (path / MANIFEST).read_bytes():
            return True
        try:
            read_manifest(theirs.parent)
        except CheckpointError as error:
            logger.warning("%s in MLflow is replaced: %s", manifest, error)
            return False
    raise CheckpointError(
        f"{manifest} in MLflow is another checkpoint of the same step, made otherwise: it is kept, {path} stays here only"
    )


def _download(repository: "ArtifactRepository", name: str, target: Path) -> None:
    """Bring `checkpoints/<name>` and the replay chunks that it lists into `target`, which gets the same layout."""
    folder = Path(repository.download_artifacts(f"checkpoints/{name}", str(target)))
    chunks = [file for file in read_manifest(folder).manifest["files"] if file.startswith("replay/")]
    there = _sizes(repository, "replay") if chunks else {}
    for chunk in chunks:
        place = _remote_name(name, chunk)
        if place not in there:
            raise CheckpointError(f"{folder / chunk} is missing: {place} is not among the run's artifacts")
        arrived = Path(repository.download_artifacts(place, str(target)))
        (folder / chunk).parent.mkdir(exist_ok=True)
        arrived.rename(folder / chunk)


def _remote_name(checkpoint: str, file: str) -> str:
    """Return where a checkpoint's file lies on a server: replay chunks, named by their content, once for all checkpoints."""
    return file if file.startswith("replay/") else f"checkpoints/{checkpoint}/{file}"


def _sizes(repository: "ArtifactRepository", folder: str, *, is_dir: bool = False) -> dict[str, Any]:
    """Return what lies in a folder of the artifacts: the sizes of its files, or (None) its folders."""
    return {info.path: info.file_size for info in repository.list_artifacts(folder) if info.is_dir == is_dir}
