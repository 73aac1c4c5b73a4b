"""Carries finished checkpoints to a DVC remote and back while no commit knows of them yet.

<remote>/files/md5/ab/cdef…                         the objects that `dvc push` makes: what is there already it does not send again
<remote>/matwm/<segment key>/step_000005000.json    the index: hash of the folder, digest of its manifest; written last
<remote>/matwm/<segment key>/step_000005000.points.jsonl.gz    the metric points since the checkpoint before, with their times

DVC's own classes do the transfers, so that every kind of remote works; its lock is not taken, for a stage may be running.
"""

import contextlib
import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pipeline import dvc_files
from pipeline import project as places
from pipeline.keys import manifest_key
from pipeline.masking import masked
from pipeline.metrics.journal import TimedPoint, packed, unpacked
from pipeline.run import Run
from pipeline.stores.entries import Entry, entry_in, listed_files
from pipeline.stores.folder_hash import hashed_files, tree_of

if TYPE_CHECKING:
    from dvc_data.hashfile.db import HashFileDB

    from matwm.checkpoint import Checkpoint

SECRET = ("password", "secret", "token", "access_key", "account_key", "connection_string", "sas", "credential")
"""Parts of the names of a remote's settings whose values are nobody's business."""

INDEX, POINTS = "json", "points.jsonl.gz"
"""What the names of a checkpoint's two files in the index end with."""
RENAMED = ("local", "ssh")
"""Remotes on which a killed upload leaves half a file, and which can give a file another name at once: objects of a cloud are whole."""


class RemoteError(places.ProjectError):
    """A DVC remote does not do what was asked; the message is one sentence that names it."""


@dataclass(frozen=True)
class Sent:
    """What a push had to send, and what was there."""

    objects: int = 0
    bytes: int = 0
    present: int = 0


class Remote:
    """One DVC remote, by the name it has in `.dvc/config`. It knows trainings by their segment keys."""

    kind = "remote"

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        """`settings`: DVC's whole configuration.

        Raises:
            RemoteError: it is not a remote for objects by their hash, or a package for it is not installed.
        """
        own = settings["remote"][name]
        self._secrets = [str(value) for key, value in own.items() if any(part in key for part in SECRET)]
        self.name = f"DVC remote {name} ({masked(str(own.get('url')), self._secrets)})"
        if own.get("worktree") or own.get("version_aware"):
            raise RemoteError(f"{self.name} is cloud-versioned: checkpoints need one that keeps objects by their hash")
        with self._explained():
            from dvc.fs import get_cloud_fs
            from dvc_data.hashfile.db import get_odb

            filesystem, config, path = get_cloud_fs(settings, name=name)
            assert filesystem is not None
            self._fs = filesystem(**config)
            # Without DVC's `verify`, which reads back whatever is there before it adds to it: here sizes and hashes are compared.
            self._odb: HashFileDB = get_odb(self._fs, self._fs.join(path, "files", "md5"), hash_name="md5")
            self._path = self._fs.join(path, "matwm")

    def steps(self, run: Run) -> list[int]:
        """Return the steps that the remote's index lists of a training, ascending; whether an entry can be read is not looked at."""
        if run.key is None:
            return []
        with self._explained():
            self._fs.fs.invalidate_cache()
            try:
                names = [PurePosixPath(path) for path in self._fs.ls(self._fs.join(self._path, run.key), detail=False)]
            except FileNotFoundError:
                return []
        return sorted(step for name in names if name.suffix == ".json" and (step := places.step_of(name.stem)) is not None)

    def readable(self, run: Run, steps: Iterable[int]) -> set[int]:
        """Return those of a training's steps whose entries can be read: a pusher that was killed may have left half of one."""
        asked = list(steps)
        with ThreadPoolExecutor(8) as pool:
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

    def put(self, run: Run, checkpoint: Path, points: Iterable[TimedPoint] = (), *, verify: bool = False) -> Sent:
        """Send what the remote lacks of a checkpoint, then its index, and with the first of it the metric points that lead to it.

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
            if there is None:
                self._write(Path(temporary), self._name(new.key, new.step, POINTS), packed(points))
            if there is None or there.tree != new.tree:
                text = json.dumps(asdict(new), indent=1) + "\n"
                self._write(Path(temporary), self._name(new.key, new.step, INDEX), text.encode())
        return sent

    def delete(self, run: Run, steps: Iterable[int], *, is_live: bool) -> None:
        """Take checkpoints out of the index, after which nobody finds them; the objects are DVC's, which may need them: `dvc gc --cloud`.

        Raises:
            RemoteError: the remote does not answer.
        """
        for step in steps:
            for kind in (INDEX, POINTS):
                with self._explained(), contextlib.suppress(FileNotFoundError):
                    self._fs.rm_file(self._name(str(run.key), step, kind))

    def refusal(self, run: Run) -> str | None:
        """Refuse nothing."""
        return None

    def freed(self, run: Run, steps: Iterable[int]) -> int:
        """Return 0: the objects stay."""
        return 0

    def points(self, run: Run, until: int) -> list[TimedPoint]:
        """Return the metric points that were pushed with a training's checkpoints up to a step, with their times."""
        found: dict[tuple[str, int], TimedPoint] = {}
        for step in (step for step in self.steps(run) if step <= until):
            name = self._name(str(run.key), step, POINTS)
            with self._explained(), contextlib.suppress(FileNotFoundError):
                for point in unpacked(self._fs.cat_file(name), Path(name)):
                    found.setdefault((point.key, point.step), point)
        return [point for point in found.values() if point.step <= until]

    def _entry(self, key: str, step: int) -> Entry | None:
        """Return the index of a checkpoint, None if there is none or it cannot be read (then it is written again)."""
        with self._explained():
            try:
                return entry_in(self._fs.cat_file(self._name(key, step, INDEX)), key, step)
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
        """Send the objects that are not there, or not whole there: a killed upload over SSH leaves a half file under its name."""
        from dvc_objects.fs.local import localfs

        oids = list(sources)
        found = self._fs.info([self._odb.oid_to_path(oid) for oid in oids], return_exceptions=True)
        missing: list[str] = []
        for oid, info in zip(oids, found, strict=True):
            if isinstance(info, Exception) and not isinstance(info, FileNotFoundError):
                raise info
            if isinstance(info, Exception):
                missing.append(oid)
            elif info["size"] != sources[oid].stat().st_size or (verify and not self._is_sound(oid)):
                self._odb.delete(oid)
                missing.append(oid)
        if missing:
            self._odb.add([str(sources[oid]) for oid in missing], localfs, missing, check_exists=False)
        return Sent(len(missing), sum(sources[oid].stat().st_size for oid in missing), len(oids) - len(missing))

    def _is_sound(self, oid: str) -> bool:
        with self._fs.open(self._odb.oid_to_path(oid), "rb") as file:
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
            self._fs.get_file(self._odb.oid_to_path(oid), str(target))
        if not target.is_file():
            raise CheckpointError(f"{self.name}: object {name}, {what}, is not there")
        with target.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != oid.removesuffix(".dir"):
            raise CheckpointError(f"{self.name}: object {name}, {what}, is damaged: its md5 is {found}")

    def _name(self, key: str, step: int, kind: str) -> str:
        return self._fs.join(self._path, key, f"{places.step_folder(step)}.{kind}")

    def _write(self, scratch: Path, name: str, data: bytes) -> None:
        source = scratch / "upload"
        source.write_bytes(data)
        self._fs.makedirs(self._fs.parent(name))
        if self._fs.protocol not in RENAMED:
            self._fs.put_file(str(source), name)
            return
        part = f"{name}.{uuid.uuid4().hex}.part"
        self._fs.put_file(str(source), part)
        self._fs.mv(part, name)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn whatever goes wrong on the way into one sentence without secrets.

        Raises:
            RemoteError: something did.
        """
        try:
            yield
        except places.ProjectError:
            raise
        except Exception as error:  # noqa: BLE001  # Every kind of remote has its own.
            text = " ".join(str(error).split())[:300] or type(error).__name__
            raise RemoteError(f"{self.name} does not do it: {masked(text, self._secrets)}") from None


def default(project: Path) -> Remote | None:
    """Return the project's default remote, None if it has none.

    Raises:
        RemoteError: it is not a remote that checkpoints can be carried to.
    """
    settings = dvc_files.settings(project)
    name = settings.get("core", {}).get("remote")
    return Remote(name, settings) if name in settings.get("remote", {}) else None


def named(project: Path, name: str | None) -> Remote:
    """Return a remote by its name, else the default one.

    Raises:
        RemoteError: there is none.
    """
    settings = dvc_files.settings(project)
    known = list(settings.get("remote", {}))
    chosen = name or settings.get("core", {}).get("remote")
    if chosen in known:
        return Remote(chosen, settings)
    if name:
        raise RemoteError(f"there is no DVC remote {name} (known: {', '.join(known) or 'none'})")
    if known:
        raise RemoteError(f'no DVC remote is the default one: "dvc remote default {known[0]}" makes it so')
    raise RemoteError('no DVC remote is set: "dvc remote add --default store URL", then "dvc remote modify store verify true"')


def unverified(project: Path) -> list[str]:
    """Return the names of the remotes whose objects DVC takes as they come: `verify` is not on."""
    return [name for name, own in dvc_files.settings(project).get("remote", {}).items() if not own.get("verify")]


def _linked(name: str, near: Sequence[Path], folder: Path) -> bool:
    """Link a replay chunk that lies in another checkpoint here; it is named by what it holds."""
    for other in near:
        with contextlib.suppress(OSError), (other / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == PurePosixPath(name).stem:
                os.link(other / name, folder / name)
                return True
    return False
