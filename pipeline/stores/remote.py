"""Carries finished checkpoints to a DVC remote and back while no commit knows of them yet.

<remote>/files/md5/ab/cdef…                         the objects that `dvc push` makes: what is there already it does not send again
<remote>/matwm/<segment key>/step_000005000.json    the index: hash of the folder, digest of its manifest; written last

DVC is not asked, for a stage may be running and hold its lock: a folder, SSH and S3 are written to through fsspec. Remotes of other
kinds are for `dvc push` alone.
"""

import contextlib
import hashlib
import json
import os
import posixpath
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pipeline import dvc_config
from pipeline import project as places
from pipeline.keys import manifest_key
from pipeline.masking import is_secret, masked, secrets_in
from pipeline.run import Run
from pipeline.stores import filesystems
from pipeline.stores.entries import Entry, entry_in, listed_files
from pipeline.stores.folder_hash import hashed_files, tree_of

if TYPE_CHECKING:
    from matwm.checkpoint import Checkpoint

INDEX = "json"
"""What the name of a checkpoint's file in the index ends with."""
JOBS = 8
"""Files on their way at the same time, unless the remote's option `jobs` says otherwise."""


LEFT_TO_DVC = '"dvc push" sends it what a commit knows of, but neither "matwm push" nor tracking.push do'


class RemoteError(places.ProjectError):
    """A DVC remote does not do what was asked; the message is one sentence that names it."""


class UnsupportedError(RemoteError):
    """A DVC remote is of a kind that only DVC itself writes to."""


@dataclass(frozen=True)
class Sent:
    """What a push had to send, and what was there."""

    objects: int = 0
    bytes: int = 0
    present: int = 0


class Remote:
    """One DVC remote, by the name it has in `.dvc/config`. It knows trainings by their segment keys."""

    kind: ClassVar[str] = "remote"
    is_only_for_resume: ClassVar[bool] = True
    may_block: ClassVar[bool] = True
    needs_run_id: ClassVar[bool] = False
    is_witness: ClassVar[bool] = False

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        """`settings`: DVC's whole configuration. Nothing is asked of the remote yet.

        Raises:
            RemoteError: checkpoints cannot be carried to it before `dvc push`.
        """
        try:
            self._options = filesystems.options_of(settings, name)
            self._kind = filesystems.scheme_of(self._options)
        except filesystems.OptionError as error:
            raise RemoteError(f"DVC remote {name} cannot be used: {error}") from None
        secret = {key for key in self._options if is_secret(key) and not key.startswith("ask_")}
        addresses = (str(self._options.get(option, "")) for option in ("url", "endpointurl"))
        self._secrets = [*(str(self._options[key]) for key in secret), *(part for url in addresses for part in secrets_in(url))]
        self.name = f"DVC remote {name} ({masked(str(self._options['url']), self._secrets)})"
        if dvc_config.is_on(self._options.get("worktree")) or dvc_config.is_on(self._options.get("version_aware")):
            raise UnsupportedError(f"{self.name} is cloud-versioned: {LEFT_TO_DVC}")
        if self._kind not in filesystems.KINDS:
            raise UnsupportedError(f"{self.name} is neither a folder nor ssh:// nor s3://: {LEFT_TO_DVC}")

    @classmethod
    def of(cls, project: Path) -> Self | None:
        """Return the project's default remote, None if it has none that checkpoints can be carried to early.

        Raises:
            RemoteError: its options are wrong.
        """
        try:
            return cls.default(project)
        except UnsupportedError:
            return None

    @classmethod
    def default(cls, project: Path) -> Self | None:
        """Return the project's default remote, None if it has none.

        Raises:
            RemoteError: checkpoints cannot be carried to it before `dvc push`, or its options are wrong.
        """
        settings = dvc_config.settings(project)
        name = settings.get("core", {}).get("remote")
        return cls(name, settings) if name in settings.get("remote", {}) else None

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        with self._explained():
            return filesystems.opened(self._options)

    @property
    def _jobs(self) -> int:
        jobs = str(self._options.get("jobs") or JOBS)
        return max(1, int(jobs)) if jobs.isdecimal() else JOBS

    @property
    def _fs(self) -> Any:
        return self._opened[0]

    def _path(self, *parts: str) -> str:
        return posixpath.join(self._opened[1], *parts)

    def _object(self, oid: str) -> str:
        """Return where DVC keeps an object."""
        return self._path("files", "md5", oid[:2], oid[2:])

    def steps(self, run: Run) -> list[int]:
        """Return the steps that the remote's index lists of a training, ascending; whether an entry can be read is not looked at."""
        if run.key is None:
            return []
        with self._explained():
            try:
                names = [PurePosixPath(path) for path in self._fs.ls(self._path("matwm", run.key), detail=False)]
            except FileNotFoundError:
                return []
        return sorted(step for name in names if name.suffix == ".json" and (step := places.step_of(name.stem)) is not None)

    def readable(self, run: Run, steps: Iterable[int]) -> set[int]:
        """Return those of a training's steps whose entries can be read: a pusher that was killed may have left half of one."""
        asked = list(steps)
        with ThreadPoolExecutor(JOBS) as pool:
            return {step for step, entry in zip(asked, pool.map(partial(self._entry, str(run.key)), asked), strict=True) if entry}

    def folder(self, run: Run, step: int) -> Path | None:
        """Return None: a remote keeps files by their hash."""
        return None

    def open(self, run: Run, step: int) -> "Checkpoint":
        """Return a checkpoint of which the manifest alone is fetched, and verified (see `pull`)."""
        from pipeline.stores.scratch import for_manifest

        return self._manifest(run, step, for_manifest(self.kind, str(run.key), places.step_folder(step)))[0]

    def pull(self, run: Run, step: int, target_dir: Path, near: Sequence[Path] = ()) -> "Checkpoint":
        """Bring a checkpoint to `target_dir/step_…`, every byte verified; replay chunks that lie in `near` are linked.

        Raises:
            RemoteError: the remote does not answer or has no such checkpoint.
            CheckpointError: it is damaged there; the object is named.
        """
        from matwm.checkpoint import publish
        from pipeline.stores.scratch import beside

        with beside(target_dir) as temporary:
            scratch = temporary / places.step_folder(step)
            scratch.mkdir()
            checkpoint, listed = self._manifest(run, step, scratch)
            for name in checkpoint.manifest["files"]:  # Names that are safe to use: the manifest is checked.
                (scratch / name).parent.mkdir(exist_ok=True)
                if not (name.startswith("replay/") and _linked(name, near, scratch)):
                    self._fetch(listed.get(name, ""), scratch / name, f"{name} of {scratch.name}")
            return publish(scratch, target_dir / scratch.name)

    def put(self, run: Run, checkpoint: Path, *, verify: bool = False) -> Sent:
        """Send what the remote lacks of a checkpoint, then its index.

        With `verify` every object that is there is read back, and replaced if it is damaged.

        Raises:
            RemoteError: the remote does not take it, or has another checkpoint of the same training and step.
            ProjectError: the folder is no sound checkpoint.
        """
        files, step = hashed_files(checkpoint), places.step_of(checkpoint)
        assert run.key is not None
        assert step is not None
        tree, listing = tree_of(files)
        manifest = hashlib.sha256((checkpoint / "manifest.json").read_bytes()).hexdigest()
        new = Entry(run.key, step, tree, manifest, segment=run.segment, run_id=run.run_id)
        there = self._entry(new.key, new.step)
        if there and there.manifest != new.manifest:
            raise RemoteError(
                f"{self.name} has another checkpoint of step {new.step} of segment {new.segment}, made otherwise: it is kept there"
            )
        with self._explained(), tempfile.TemporaryDirectory() as temporary:
            (Path(temporary) / "tree").write_bytes(listing)
            sources = {md5: checkpoint / name for name, md5 in files.items()} | {tree: Path(temporary) / "tree"}
            sent = self._add(sources, verify=verify)
            if there is None or there.tree != new.tree:
                text = json.dumps(asdict(new), indent=1) + "\n"
                self._write(Path(temporary), self._name(new.key, new.step), text.encode())
        return sent

    def delete(self, run: Run, steps: Iterable[int], *, is_live: bool) -> None:
        """Take checkpoints out of the index, after which nobody finds them; the objects are DVC's, which may need them: `dvc gc --cloud`.

        Raises:
            RemoteError: the remote does not answer.
        """
        for step in steps:
            with self._explained(), contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self._name(str(run.key), step))

    def refusal(self, run: Run) -> str | None:
        """Refuse nothing."""
        return None

    def freed(self, run: Run, steps: Iterable[int]) -> int:
        """Return 0: the objects stay."""
        return 0

    def _entry(self, key: str, step: int) -> Entry | None:
        """Return the index of a checkpoint, None if there is none or it cannot be read (then it is written again)."""
        with self._explained():
            try:
                return entry_in(self._fs.cat_file(self._name(key, step)), key, step)
            except FileNotFoundError:
                return None

    def _manifest(self, run: Run, step: int, folder: Path) -> "tuple[Checkpoint, dict[str, str]]":
        """Fetch a checkpoint's manifest into a folder; return it, and the md5 of each of its files by name."""
        from matwm.checkpoint import CheckpointError, read_manifest

        key = str(run.key)
        entry = self._entry(key, step)
        if entry is None:
            raise RemoteError(f"{self.name} has no checkpoint of step {step} of this segment")
        with tempfile.TemporaryDirectory() as temporary:
            tree = Path(temporary) / "tree"
            self._fetch(entry.tree, tree, f"the list of files of {folder.name}")
            try:
                listed = listed_files(tree.read_bytes())
            except ValueError as error:
                raise CheckpointError(f"{self.name}: the list of files of {folder.name} is damaged: {error}") from None
        self._fetch(listed.get("manifest.json", ""), folder / "manifest.json", f"manifest.json of {folder.name}")
        checkpoint = read_manifest(folder)
        if (checkpoint.digest, checkpoint.step) != (entry.manifest, step):
            raise CheckpointError(f"{self.name}: the index of {folder.name} names another manifest than lies there")
        if manifest_key(checkpoint.manifest) != key:
            raise CheckpointError(f"{self.name}: {folder.name}, listed as segment {key[:12]}, is of another training")
        return checkpoint, listed

    def _add(self, sources: Mapping[str, Path], *, verify: bool) -> Sent:
        """Send the objects that are not there, or not whole there."""

        def send(oid: str) -> int | None:
            """Return the bytes that were sent, None if the object is there."""
            size = sources[oid].stat().st_size
            try:
                if self._fs.info(self._object(oid))["size"] == size and not (verify and not self._is_sound(oid)):
                    return None
            except FileNotFoundError:
                pass
            self._upload(sources[oid], self._object(oid))
            return size

        with ThreadPoolExecutor(self._jobs) as pool:
            sizes = list(pool.map(send, sources))
        sent = [size for size in sizes if size is not None]
        return Sent(len(sent), sum(sent), len(sizes) - len(sent))

    def _is_sound(self, oid: str) -> bool:
        with self._fs.open(self._object(oid), "rb") as file:
            digest = hashlib.md5(usedforsecurity=False)
            while data := file.read(1 << 20):
                digest.update(data)
        return digest.hexdigest() == oid.removesuffix(".dir")

    def _fetch(self, oid: str, target: Path, what: str) -> None:
        from matwm.checkpoint import CheckpointError

        if not oid:
            raise CheckpointError(f"{self.name}: {what} is not among the files that are listed there")
        name = f"files/md5/{oid[:2]}/{oid[2:]}"
        with self._explained(), contextlib.suppress(FileNotFoundError):
            self._fs.get_file(self._object(oid), str(target))
        if not target.is_file():
            raise CheckpointError(f"{self.name}: object {name}, {what}, is not there")
        with target.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != oid.removesuffix(".dir"):
            raise CheckpointError(f"{self.name}: object {name}, {what}, is damaged: its md5 is {found}")

    def _name(self, key: str, step: int) -> str:
        return self._path("matwm", key, f"{places.step_folder(step)}.{INDEX}")

    def _write(self, scratch: Path, name: str, data: bytes) -> None:
        source = scratch / "upload"
        source.write_bytes(data)
        self._upload(source, name)

    def _upload(self, source: Path, name: str) -> None:
        """Send a file, whole or not at all."""
        if self._kind not in filesystems.RENAMED:
            self._fs.put_file(str(source), name)
            return
        part = posixpath.join(posixpath.dirname(name), f".{uuid.uuid4().hex}.tmp")
        try:
            self._fs.put_file(str(source), part)
            if self._kind == "file" and name.startswith(self._path("files")):
                with contextlib.suppress(OSError):  # Read-only is how DVC marks an object that it need not hash again.
                    Path(part).chmod(0o444)
            self._fs.mv(part, name)
        except BaseException:
            with contextlib.suppress(Exception):
                self._fs.rm_file(part)
            raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn whatever goes wrong on the way into one sentence without secrets.

        Raises:
            RemoteError: something did.
        """
        try:
            yield
        except RemoteError:
            raise
        except filesystems.OptionError as error:
            raise RemoteError(f"{self.name} cannot be used: {error}") from None
        except ModuleNotFoundError as error:
            raise RemoteError(f"{self.name} needs the package {error.name}: pip install 'matwm[{self._kind}]'") from None
        except places.ProjectError:
            raise
        except Exception as error:  # noqa: BLE001  # Every kind of remote has its own.
            text = " ".join(str(error).split())[:300] or type(error).__name__
            raise RemoteError(f"{self.name} does not do it: {masked(text, self._secrets)}") from None


def refusal(project: Path) -> str | None:
    """Return a sentence if the default remote is of a kind that checkpoints cannot be carried to early, or its options are wrong."""
    try:
        Remote.default(project)
    except RemoteError as error:
        return str(error)
    return None


def named(project: Path, name: str | None) -> Remote:
    """Return a remote by its name, else the default one.

    Raises:
        RemoteError: there is none, or it is of a kind that checkpoints cannot be carried to early.
    """
    settings = dvc_config.settings(project)
    known = list(settings.get("remote", {}))
    chosen = (name or "").lower() or settings.get("core", {}).get("remote")
    if chosen in known:
        return Remote(chosen, settings)
    if name:
        raise RemoteError(f"there is no DVC remote {name} (known: {', '.join(known) or 'none'})")
    if known:
        raise RemoteError(f'no DVC remote is the default one: "dvc remote default {known[0]}" makes it so')
    raise RemoteError('no DVC remote is set: "dvc remote add --default store URL", then "dvc remote modify store verify true"')


def unverified(project: Path) -> list[str]:
    """Return the names of the remotes whose objects DVC takes as they come: `verify` is not on."""
    return [name for name, own in dvc_config.settings(project).get("remote", {}).items() if not dvc_config.is_on(own.get("verify"))]


def _linked(name: str, near: Sequence[Path], folder: Path) -> bool:
    """Link a replay chunk that lies in another checkpoint here; it is named by what it holds."""
    for other in near:
        with contextlib.suppress(OSError), (other / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == PurePosixPath(name).stem:
                os.link(other / name, folder / name)
                return True
    return False
