"""Says where checkpoints come from and go to, by run ID and step: they are artifacts of their run in MLflow."""

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from matwm import durable
from matwm.checkpoint import MANIFEST, Checkpoint, CheckpointError, open_checkpoint, publish, read_manifest
from matwm.step_names import step_name
from pipeline import project, runs
from pipeline.runs import TrackingError

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

__all__ = ["CheckpointError", "CheckpointStore", "MlflowStore"]

logger = logging.getLogger(__name__)


class CheckpointStore(Protocol):
    """Somewhere that checkpoints can be put and got back from; only whole ones are ever seen in it."""

    def put(self, run_id: str, path: Path, on_answer: Callable[[], None] = ..., /) -> None:
        """Add a checkpoint; to repeat it changes nothing."""
        ...

    def steps(self, run_id: str) -> list[int]:
        """Return the steps of a run's checkpoints, ascending."""
        ...

    def pull(self, run_id: str, step: int, target_dir: Path) -> Checkpoint:
        """Bring a checkpoint to `target_dir/step_…`, verified."""
        ...


class MlflowStore:
    """The artifacts `checkpoints/step_…` of runs in one MLflow store.

    Artifacts in a folder of this machine are hard links to the files they were put from. On a server, replay chunks lie once
    a run under `replay/`, and the manifest comes last, so that half an upload is no checkpoint.
    """

    def __init__(self, uri: str | None = None) -> None:
        self.uri = uri or runs.configured_uri()

    def put(self, run_id: str, path: Path, on_answer: Callable[[], None] = lambda: None) -> None:
        """Add a checkpoint to a run's artifacts; what is there already is not sent again.

        Raises:
            CheckpointError: `path` is no sound checkpoint, cannot be linked there, or the run has another one of the same step.
            TrackingError: MLflow or its storage does not take it.
        """
        checkpoint = read_manifest(path)
        with self._artifacts(run_id) as (folder, repository):
            if folder is not None:
                publish(path, folder / "checkpoints" / path.name)
            else:
                _upload(checkpoint, repository, on_answer)

    def steps(self, run_id: str) -> list[int]:
        """Return the steps of a run's checkpoints, ascending; uploads without a manifest do not count."""
        with self._artifacts(run_id) as (folder, repository):
            if folder is not None:
                return project.steps_in(folder / "checkpoints")
            found = {project.step_of(path): path for path in sizes(repository, "checkpoints", is_dir=True)}
            return sorted(step for step, path in found.items() if step is not None and f"{path}/{MANIFEST}" in sizes(repository, path))

    def pull(self, run_id: str, step: int, target_dir: Path) -> Checkpoint:
        """Bring a checkpoint to `target_dir/step_…` and return it, every hash verified; nothing is left there if that fails.

        Raises:
            CheckpointError: it is damaged (the message names the file), or there is none of this step (it names those there are).
            TrackingError: MLflow does not answer, or has no such run.
        """
        name, target = step_name(step), target_dir / step_name(step)
        if step not in (there := self.steps(run_id)):
            raise CheckpointError(f"run {run_id} has no checkpoint of step {step}; it has {project.named(there) or 'none'}")
        with self._artifacts(run_id) as (folder, repository):
            if folder is not None:
                return publish(folder / "checkpoints" / name, target)
            with _scratch_folder(target_dir) as scratch:
                arrived = scratch / "checkpoints" / name
                try:
                    _download(repository, name, scratch)
                    open_checkpoint(arrived)
                except CheckpointError as error:
                    raise CheckpointError(str(error).replace(str(arrived), f"run {run_id}: checkpoints/{name}")) from None
                return publish(arrived, target)

    def folder(self, run_id: str) -> Path | None:
        """Return the folder of this machine that holds a run's checkpoints, None if they lie on a server."""
        with self._artifacts(run_id) as (folder, _):
            return folder and folder / "checkpoints"

    def peek(self, run_id: str, step: int, target_dir: Path) -> Checkpoint:
        """Return a checkpoint with only its manifest verified: in its folder if that is here, else the manifest alone in `target_dir`.

        Raises:
            CheckpointError: there is none, or its manifest is damaged.
            TrackingError: MLflow does not answer, or has no such run.
        """
        name = step_name(step)
        with self._artifacts(run_id) as (folder, repository):
            if folder is not None:
                return read_manifest(folder / "checkpoints" / name)
            target_dir.mkdir(parents=True, exist_ok=True)
            arrived = Path(repository.download_artifacts(f"checkpoints/{name}/{MANIFEST}", str(target_dir)))
            return read_manifest(arrived.parent)

    def newest(self, run_id: str, target_dir: Path) -> Checkpoint | None:
        """Bring the newest checkpoint of a run that verifies; damaged ones are skipped with a warning. None if there is none.

        Raises:
            TrackingError: MLflow does not answer, or has no such run.
        """
        for step in reversed(self.steps(run_id)):
            try:
                return self.pull(run_id, step, target_dir)
            except CheckpointError as error:
                logger.warning("%s: the checkpoint before it is taken", error)
        return None

    @contextmanager
    def _artifacts(self, run_id: str) -> "Iterator[tuple[Path | None, ArtifactRepository]]":
        """Yield the run's artifacts: a folder of this machine (else None), and MLflow's way to them."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        run = runs.get_run(run_id, self.uri)
        if run is None:
            raise TrackingError(f"MLflow at {runs.shown(self.uri)} has no run {run_id}")
        with runs.explained(self.uri):
            yield local_folder(run.artifact_uri), get_artifact_repository(run.artifact_uri, tracking_uri=self.uri)


def local_folder(artifact_uri: str) -> Path | None:
    """Return where a run's artifacts lie if that is a folder of this machine."""
    parts = urlsplit(artifact_uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(artifact_uri) if not parts.scheme else None


def is_own(folder: Path, uri: str) -> bool:
    """Return whether a run's artifacts lie beside the database that knows it; a copied project's still lead to the original's.

    What a server keeps on this machine is its own.
    """
    if not uri.startswith("sqlite:///"):
        return True
    home = Path(uri.removeprefix("sqlite:///")).parent.resolve()
    # What is above `mlruns` is resolved and that itself is not: it may be a link to a larger disk.
    return any(above.name == "mlruns" and above.parent.resolve() == home for above in Path(os.path.abspath(folder)).parents)  # noqa: PTH100


@contextmanager
def _scratch_folder(target_dir: Path) -> Iterator[Path]:
    """Yield a folder on the file system of `target_dir`, gone afterwards; without making `target_dir`, which may never be needed."""
    nearest = next(folder for folder in (target_dir, *target_dir.absolute().parents) if folder.is_dir())
    with durable.new_folder(nearest) as scratch:
        yield scratch


def _upload(checkpoint: Checkpoint, repository: "ArtifactRepository", on_answer: Callable[[], None]) -> None:
    """Send what the server lacks of a checkpoint, the manifest last."""
    path, files = checkpoint.path, checkpoint.manifest["files"]
    places = {name: _remote_name(path.name, name) for name in files}
    there: dict[str, int | None] = {}
    for folder in {str(PurePosixPath(place).parent) for place in places.values()} | {f"checkpoints/{path.name}"}:
        there.update(sizes(repository, folder))
    manifest = f"checkpoints/{path.name}/{MANIFEST}"
    if manifest in there:
        _refuse_another(path, manifest, repository)
    for name, place in places.items():
        if there.get(place) != files[name]["size"]:
            repository.log_artifact(str(path / name), str(PurePosixPath(place).parent))
            on_answer()
    if manifest not in there:
        repository.log_artifact(str(path / MANIFEST), str(PurePosixPath(manifest).parent))


def _refuse_another(path: Path, manifest: str, repository: "ArtifactRepository") -> None:
    with tempfile.TemporaryDirectory() as temporary:
        theirs = Path(repository.download_artifacts(manifest, temporary)).read_bytes()
    if theirs != (path / MANIFEST).read_bytes():
        raise CheckpointError(
            f"{manifest} in MLflow is another checkpoint of the same step, made otherwise: it is kept, {path} stays here only"
        )


def _download(repository: "ArtifactRepository", name: str, target: Path) -> None:
    """Bring `checkpoints/<name>` and the replay chunks that it lists into `target`, which gets the same layout."""
    folder = Path(repository.download_artifacts(f"checkpoints/{name}", str(target)))
    chunks = [file for file in read_manifest(folder).manifest["files"] if file.startswith("replay/")]
    there = sizes(repository, "replay") if chunks else {}
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


def sizes(repository: "ArtifactRepository", folder: str, *, is_dir: bool = False) -> dict[str, Any]:
    """Return what lies in a folder of the artifacts: the sizes of its files, or (None) its folders."""
    return {info.path: info.file_size for info in repository.list_artifacts(folder) if info.is_dir == is_dir}
