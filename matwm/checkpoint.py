"""Turns training state into a directory and back: a pure function of its inputs, written in one piece, verified when read.

step_000005000/
  manifest.json            format, numerics, step, parent, config, spec, files {name: size, sha256}, fingerprint, seal of all that
  world_model.safetensors  agents.safetensors  optimizers.safetensors
  replay/<sha256>.safetensors      chunks, shared with other checkpoints: one inode, several names
  progress.json            what is no tensor, of every part; the order of the replay's chunks
  history/history.safetensors
  policies/<agent>.safetensors
"""

import hashlib
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from matwm import durable
from matwm import manifest as manifests
from matwm.arrays import decode_arrays
from matwm.history import History
from matwm.manifest import (
    MANIFEST,
    PARTS,
    PROGRESS,
    TENSOR_FILES,
    CheckpointError,
    FormatError,
    Parent,
    chunk_file,
    parse_json,
    policy_file,
)
from matwm.types import EnvSpec
from matwm.version import FORMAT

if TYPE_CHECKING:  # Both import torch, for seconds: what looks at manifests alone does without.
    from torch import Tensor

    from matwm.stateful import Chunk, State

ResultT = TypeVar("ResultT")

_log = logging.getLogger(__name__)
_fitting: set[str] = set()
"""Manifests whose files fit together if they are what it says of each."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk, named by the digest of its manifest, which holds the digests of everything else."""

    path: Path
    manifest: dict[str, Any]
    digest: str

    @property
    def step(self) -> int:
        """Environment step."""
        return self.manifest["step"]

    @property
    def fingerprint(self) -> str:
        """Digest of the training state: everything but configuration, parent and history."""
        return self.manifest["fingerprint"]

    @property
    def parent(self) -> Parent:
        """What its segment began with."""
        return Parent(**self.manifest["parent"])

    @property
    def config(self) -> dict[str, Any]:
        """Return the values that shape training, nested as in params.yaml."""
        return self.manifest["config"]

    @cached_property
    def spec(self) -> EnvSpec:
        """The environment, agents in order."""
        return manifests.to_spec(self.manifest["spec"])

    @property
    def total_bytes(self) -> int:
        """Size of all files, also of those that it shares."""
        return sum(facts["size"] for facts in self.manifest["files"].values()) + (self.path / MANIFEST).stat().st_size

    def load(self) -> "dict[str, State]":
        """Read the whole state by part, every byte and the fingerprint verified; chunks are read when they are looked at.

        Raises:
            CheckpointError: a file is absent or not what the manifest says.
        """
        from matwm.stateful import chunks_in

        rest = self._progress()
        state = {part: self._part(part, rest) for part in PARTS}
        named = {f"replay/{chunk.digest}.safetensors" for chunk in chunks_in(state)}
        if surplus := sorted(named ^ {name for name in self.manifest["files"] if name.startswith("replay/")}):
            raise CheckpointError(f"{self.path / PROGRESS} and {MANIFEST} do not agree on {surplus[0]}")
        found = fingerprint_of(state)
        if found != self.fingerprint:
            raise CheckpointError(f"{self.path} holds a state with the fingerprint {found}, its {MANIFEST} says {self.fingerprint}")
        return state

    def policy(self, agent: str) -> "dict[str, Tensor]":
        """Read one agent's policy.

        Raises:
            CheckpointError: there is no such agent, or its file is damaged.
        """
        if agent not in self.spec.agents:
            raise CheckpointError(f"{self.path} has no agent {agent!r}: it has {', '.join(self.spec.agents)}")
        return self._tensors(policy_file(agent))

    def world_model(self) -> "dict[str, Tensor]":
        """Read the world model's weights alone.

        Raises:
            CheckpointError: its file is absent or damaged.
        """
        return self._tensors(TENSOR_FILES["world_model"])

    def agents(self) -> "dict[str, Tensor]":
        """Read actors, critics and what else of all agents is a tensor.

        Raises:
            CheckpointError: its file is absent or damaged.
        """
        return self._tensors(TENSOR_FILES["agents"])

    def history(self) -> History:
        """Read the cumulative histories.

        Raises:
            CheckpointError: their file is damaged.
        """
        return History.from_arrays(self._decoded(TENSOR_FILES["history"], decode_arrays))

    def replay(self) -> "State":
        """Read the replay's state; its chunks are read when they are looked at.

        Raises:
            CheckpointError: a file is damaged.
        """
        return self._part("replay", self._progress())

    def verify(self) -> None:
        """Read everything once; what this process has verified before, under whatever name, it does not read again.

        Raises:
            CheckpointError: a file is absent, not listed, no plain file, or not what the manifest says.
        """
        files = self.manifest["files"]
        present = _files_below(self.path)
        for name in sorted(present ^ {*files, MANIFEST}):
            raise CheckpointError(f"{self.path / name} is {f'not listed in {MANIFEST}' if name in present else 'missing'}")
        for name in files:
            self._check(name, durable.sha256_once)
        if self.digest not in _fitting:  # It names every byte.
            self.load()
            _fitting.add(self.digest)

    def _progress(self) -> dict[str, Any]:
        rest = self._decoded(PROGRESS, parse_json)
        if not isinstance(rest, dict) or set(rest) != set(PARTS) or not all(isinstance(value, dict) for value in rest.values()):
            raise CheckpointError(f"{self.path / PROGRESS} does not hold the parts {', '.join(PARTS)}")
        return rest

    def _part(self, part: str, rest: Mapping[str, Any]) -> "State":
        from matwm.stateful import join

        tensors = self._tensors(TENSOR_FILES[part]) if part in TENSOR_FILES else {}
        try:
            return join(tensors, rest[part], self._chunk)
        except ValueError as error:
            raise CheckpointError(f"{self.path}: {part} does not fit together: {error}") from None

    def _tensors(self, name: str) -> "dict[str, Tensor]":
        from matwm.stateful import decode_tensors

        return self._decoded(name, decode_tensors)

    def _chunk(self, digest: str) -> "Chunk":
        from matwm.stateful import Chunk

        name = chunk_file(digest)
        if name not in self.manifest["files"]:
            raise CheckpointError(f"{self.path / PROGRESS} names the chunk {digest}, which {MANIFEST} does not list")
        return Chunk(lambda: self._decoded(name, decode_arrays), digest)

    def _decoded(self, name: str, decode: Callable[[bytes], ResultT]) -> ResultT:
        data = self._check(name, Path.read_bytes)
        try:
            return decode(data)
        except ValueError as error:
            raise CheckpointError(f"{self.path / name} cannot be read: {error}") from None

    def _check(self, name: str, read: Callable[[Path], Any]) -> Any:
        """Read a file, or its digest, and compare it with the manifest."""
        path, facts = self.path / name, self.manifest["files"][name]
        if path.is_symlink() or (path.parent != self.path and path.parent.is_symlink()):
            raise CheckpointError(f"{path} is a link: a checkpoint holds plain files")
        try:
            size, found = path.stat().st_size, read(path)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
        digest = hashlib.sha256(found).hexdigest() if isinstance(found, bytes) else found
        if (size, digest) != (facts["size"], facts["sha256"]):
            what = f"{size} bytes, expected {facts['size']}" if size != facts["size"] else f"sha256 {digest}, expected {facts['sha256']}"
            raise CheckpointError(f"{path} is damaged: it has {what}")
        return found


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Return the checkpoint in a folder, every byte of it verified.

    Raises:
        CheckpointError: it is none, or it is damaged; the file is named.
    """
    checkpoint = read_manifest(path)
    checkpoint.verify()
    return checkpoint


def read_manifest(path: str | Path) -> Checkpoint:
    """Return the checkpoint in a folder with only its manifest verified: quick, for questions about lineage.

    Raises:
        CheckpointError: there is no manifest, or it is damaged, or of another format.
    """
    path = Path(path)
    manifest, data = manifests.read(path)
    where = path / MANIFEST
    if manifest.get("root") is True:
        raise CheckpointError(f"{path} is the root of all lineages, which holds no state: use a folder step_…")
    try:
        manifests.check(manifest, data)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{where} is damaged: {error}") from None
    return Checkpoint(path, manifest, hashlib.sha256(data).hexdigest())


def is_root(path: str | Path) -> bool:
    """Return whether a folder is the start of lineages, which has no state.

    Raises:
        CheckpointError: there is no manifest, or it is damaged, or of another format.
    """
    manifest, _ = manifests.read(Path(path))
    if manifest.get("root") is not True:
        return False
    if manifests.to_json(manifest) != manifests.to_json({"format": FORMAT, "root": True, "step": 0}) or _files_below(Path(path)) != {
        MANIFEST
    }:
        raise CheckpointError(f"{path} is a root that holds more than a root does: restore it from git")
    return True


def open_parent(path: str | Path) -> Parent:
    """Return what a segment that begins at a folder has for a parent: the root or a checkpoint, whose manifest is verified.

    Raises:
        CheckpointError: there is no manifest, or it is damaged, or of another format.
    """
    if is_root(path):
        return Parent(0, hashlib.sha256(manifests.read(Path(path))[1]).hexdigest())
    checkpoint = read_manifest(path)
    return Parent(checkpoint.step, checkpoint.digest)


def publish(checkpoint: str | Path, target: str | Path) -> Checkpoint:
    """Give a checkpoint a second name, by hard links where the file system can, in one piece; `target` becomes the folder.

    Raises:
        CheckpointError: the checkpoint is damaged, or a sound one with other contents is there.
    """
    source, target = open_checkpoint(checkpoint), Path(target)
    try:
        with durable.new_folder(target.parent) as temporary:
            digests = {name: facts["sha256"] for name, facts in source.manifest["files"].items()}
            for name, digest in {**digests, MANIFEST: source.digest}.items():
                (temporary / name).parent.mkdir(exist_ok=True)
                link(source.path / name, temporary / name, digest)
            return settle(temporary, target)
    except OSError as error:
        raise CheckpointError(f"{target} cannot be written: {error}") from error


def link(source: Path, target: Path, digest: str) -> None:
    """Give a checkpoint's file a second name, or copy it where that is impossible.

    Raises:
        CheckpointError: what was copied has another digest.
    """
    if durable.link(source, target) not in (None, digest):
        raise CheckpointError(f"{source} changed while it was copied")


def settle(temporary: Path, target: Path) -> Checkpoint:
    """Move a finished folder to its place, durably; what is there already is kept if equal, replaced if damaged."""
    checkpoint = read_manifest(temporary)
    for folder in [*(path for path in temporary.iterdir() if path.is_dir()), temporary]:
        durable.sync_folder(folder)
    replaced = temporary.with_name(f"{temporary.name}-replaced")
    if target.is_symlink() or target.exists():
        present = _sound(target)
        if present and present.digest == checkpoint.digest:
            return present
        if present:
            raise CheckpointError(f"{target} is a sound checkpoint with other contents, which is never overwritten: remove it by hand")
        target.rename(replaced)
    temporary.rename(target)
    durable.sync_folder(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)
    return Checkpoint(target, checkpoint.manifest, checkpoint.digest)


def _sound(path: Path) -> Checkpoint | None:
    """Return the checkpoint in a folder unless it is damaged; one of another format is not ours to judge."""
    try:
        return open_checkpoint(path)
    except FormatError:
        raise
    except CheckpointError as error:
        _log.warning("a damaged checkpoint is replaced: %s", error)
        return None


def fingerprint_of(parts: "Mapping[str, State]") -> str:
    """Return the digest of a training state: of every part but the history."""
    from matwm.stateful import fingerprint

    return fingerprint({part: state for part, state in parts.items() if part != "history"})


def _files_below(folder: Path) -> set[str]:
    """Return the names of all files in a folder.

    Raises:
        CheckpointError: something is neither folder nor plain file.
    """
    names: set[str] = set()
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise CheckpointError(f"{path} is a link or no file: a checkpoint holds plain files (DVC: cache.type hardlink,copy)")
        if path.is_file():
            names.add(path.relative_to(folder).as_posix())
    return names
