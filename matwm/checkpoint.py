"""Turns training state into a directory and back: a pure function of its inputs, written in one piece, verified when read.

step_000005000/
  manifest.json            format, numerics, step, parent, config, spec, files {name: size, sha256}, fingerprint, seal of all that
  world_model.safetensors  agents.safetensors  optimizers.safetensors
  replay/<sha256>.safetensors      chunks, shared with other checkpoints: one inode, several names
  progress.json            what is no tensor, of every part; the order of the replay's chunks
  history/history.safetensors
  policies/<agent>.safetensors
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from matwm.stateful import (
    Chunk,
    State,
    chunks_in,
    decode_chunk,
    decode_tensors,
    digest_of,
    encode_chunk,
    encode_tensors,
    fingerprint,
    join,
    split,
)
from matwm.types import EnvSpec
from matwm.version import FORMAT, NUMERICS

ResultT = TypeVar("ResultT")

MANIFEST = "manifest.json"
PROGRESS = "progress.json"
TENSOR_FILES = {
    "world_model": "world_model.safetensors",
    "agents": "agents.safetensors",
    "optimizers": "optimizers.safetensors",
    "history": "history/history.safetensors",
}
PARTS = (*TENSOR_FILES, "replay", "progress")
"""What a checkpoint holds; the fingerprint covers all of it but the history."""

_SAVING = ".saving-"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_AGENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_STEP = re.compile(r"step_[0-9]{9,}")
_MANIFEST_KEYS = {"format", "numerics", "step", "parent", "config", "spec", "files", "fingerprint", "seal"}
_log = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A checkpoint is absent, damaged, of another format, or cannot be written; the message names the file."""


class FormatError(CheckpointError):
    """A checkpoint is of another format: sound, perhaps, to another version."""


@dataclass(frozen=True)
class Parent:
    """Where a checkpoint's lineage comes from: the step and manifest digest of the checkpoint that its segment began with."""

    step: int
    digest: str


ROOT = Parent(0, hashlib.sha256(f'{{"format": {FORMAT}, "root": true, "step": 0}}\n'.encode()).hexdigest())
"""The start of every lineage: what `open_parent` returns for `checkpoints/root`."""


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
        return _spec(self.manifest["spec"])

    @property
    def total_bytes(self) -> int:
        """Size of all files, also of those that it shares."""
        return sum(facts["size"] for facts in self.manifest["files"].values()) + (self.path / MANIFEST).stat().st_size

    def load(self) -> dict[str, State]:
        """Read the whole state by part, every byte and the fingerprint verified; chunks are read when they are looked at.

        Raises:
            CheckpointError: a file is absent or not what the manifest says.
        """
        rest = self._progress()
        state = {part: self._part(part, rest) for part in PARTS}
        named = {f"replay/{chunk.digest}.safetensors" for chunk in chunks_in(state)}
        if surplus := sorted(named ^ {name for name in self.manifest["files"] if name.startswith("replay/")}):
            raise CheckpointError(f"{self.path / PROGRESS} and {MANIFEST} do not agree on {surplus[0]}")
        found = _fingerprint(state)
        if found != self.fingerprint:
            raise CheckpointError(f"{self.path} holds a state with the fingerprint {found}, its {MANIFEST} says {self.fingerprint}")
        return state

    def policy(self, agent: str) -> dict[str, Tensor]:
        """Read one agent's policy.

        Raises:
            CheckpointError: there is no such agent, or its file is damaged.
        """
        if agent not in self.spec.agents:
            raise CheckpointError(f"{self.path} has no agent {agent!r}: it has {', '.join(self.spec.agents)}")
        return self._decoded(_policy_file(agent), decode_tensors)

    def world_model(self) -> dict[str, Tensor]:
        """Read the world model's weights alone.

        Raises:
            CheckpointError: its file is absent or damaged.
        """
        return self._decoded(TENSOR_FILES["world_model"], decode_tensors)

    def history(self) -> State:
        """Read the cumulative histories.

        Raises:
            CheckpointError: a file is damaged.
        """
        return self._part("history", self._progress())

    def verify(self) -> None:
        """Read everything once.

        Raises:
            CheckpointError: a file is absent, not listed, no plain file, or not what the manifest says.
        """
        files = self.manifest["files"]
        present = _files_below(self.path)
        for name in sorted(present ^ {*files, MANIFEST}):
            raise CheckpointError(f"{self.path / name} is {f'not listed in {MANIFEST}' if name in present else 'missing'}")
        for name in files:
            self._check(name, _sha256)
        self.load()

    def _progress(self) -> dict[str, Any]:
        rest = self._decoded(PROGRESS, _parse_json)
        if not isinstance(rest, dict) or set(rest) != set(PARTS) or not all(isinstance(value, dict) for value in rest.values()):
            raise CheckpointError(f"{self.path / PROGRESS} does not hold the parts {', '.join(PARTS)}")
        return rest

    def _part(self, part: str, rest: Mapping[str, Any]) -> State:
        tensors = self._decoded(TENSOR_FILES[part], decode_tensors) if part in TENSOR_FILES else {}
        try:
            return join(tensors, rest[part], self._chunk)
        except ValueError as error:
            raise CheckpointError(f"{self.path}: {part} does not fit together: {error}") from None

    def _chunk(self, digest: str) -> Chunk:
        name = _chunk_file(digest)
        if name not in self.manifest["files"]:
            raise CheckpointError(f"{self.path / PROGRESS} names the chunk {digest}, which {MANIFEST} does not list")
        return Chunk(lambda: self._decoded(name, decode_chunk), digest)

    def _decoded(self, name: str, decode: Callable[[bytes], ResultT]) -> ResultT:
        data = self._check(name, Path.read_bytes)
        try:
            return decode(data)
        except ValueError as error:
            raise CheckpointError(f"{self.path / name} cannot be read: {error}") from None

    def _check(self, name: str, read: Callable[[Path], Any]) -> Any:
        """Read a file, or its digest, and compare it with the manifest."""
        path, facts = self.path / name, self.manifest["files"][name]
        try:
            size, found = path.stat().st_size, read(path)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
        digest = hashlib.sha256(found).hexdigest() if isinstance(found, bytes) else found
        if (size, digest) != (facts["size"], facts["sha256"]):
            what = f"{size} bytes, expected {facts['size']}" if size != facts["size"] else f"sha256 {digest}, expected {facts['sha256']}"
            raise CheckpointError(f"{path} is damaged: it has {what}")
        return found


class LocalStore:
    """The checkpoints of one run: folders `step_…` in one folder."""

    def __init__(self, folder: str | Path, *, chunks_from: Iterable[str | Path] = ()) -> None:
        """`chunks_from`: checkpoint folders elsewhere, such as the parent's, whose chunks may be linked instead of written."""
        self.folder = Path(folder)
        self._chunks_from = [Path(path) for path in chunks_from]
        self._intact: dict[str, tuple[int, ...]] = {}

    def save(
        self,
        step: int,
        parts: Mapping[str, State],
        *,
        parent: Parent,
        config: Mapping[str, Any],
        spec: EnvSpec,
        policies: Mapping[str, Mapping[str, Tensor]],
    ) -> Checkpoint:
        """Write a checkpoint in one piece: after a crash it is there and whole, or not there.

        One that is there already is kept if it says the same, replaced if it is damaged.

        Raises:
            CheckpointError: it cannot be written, or a sound one with other contents is there.
            ValueError: the state holds something that has no place in a checkpoint.
        """
        if set(parts) != set(PARTS):
            raise ValueError(f"the state has the parts {sorted(parts)}: expected {sorted(PARTS)}")
        if set(policies) != set(spec.agents) or not all(_AGENT.fullmatch(agent) for agent in spec.agents):
            raise ValueError(
                f"policies of {sorted(policies)}, agents {sorted(spec.agents)}: expected one each, named by letters, digits, _ . -"
            )
        target = self.folder / step_name(step)
        try:
            with _new_folder(self.folder) as temporary:
                facts: dict[str, Any] = {"format": FORMAT, "numerics": NUMERICS, "step": step, "parent": asdict(parent)}
                facts |= {"config": config, "spec": asdict(spec), "files": self._write_files(temporary, parts, policies)}
                facts["fingerprint"] = _fingerprint(parts)
                _write(temporary / MANIFEST, _json({**facts, "seal": _seal(facts)}))
                return _settle(temporary, target)
        except OSError as error:
            raise CheckpointError(f"{target} cannot be written: {error}") from error

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, sound or not, ascending."""
        if not self.folder.is_dir():
            return []
        names = [path.name for path in self.folder.iterdir() if _STEP.fullmatch(path.name) and (path / MANIFEST).is_file()]
        return sorted(step for name in names if step_name(step := int(name.removeprefix("step_"))) == name)

    def open(self, step: int) -> Checkpoint:
        """Return the checkpoint of a step, verified.

        Raises:
            CheckpointError: there is none, or it is damaged.
        """
        if step not in self.steps():
            known = ", ".join(map(str, self.steps())) or "none"
            raise CheckpointError(f"{self.folder} has no checkpoint of step {step}: it has {known}")
        checkpoint = open_checkpoint(self.folder / step_name(step))
        if checkpoint.step != step:
            raise CheckpointError(f"{checkpoint.path / MANIFEST} is of step {checkpoint.step}")
        return checkpoint

    def newest(self, at_most: int | None = None) -> Checkpoint | None:
        """Return the newest checkpoint that is sound, with a warning for each that is passed over."""
        for step in reversed(self.steps()):
            if at_most is None or step <= at_most:
                try:
                    return self.open(step)
                except CheckpointError as error:
                    _log.warning("checkpoint of step %d is passed over: %s", step, error)
        return None

    def _write_files(self, folder: Path, parts: Mapping[str, State], policies: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
        """Write everything but the manifest and return what it says of the files."""
        places = [*(self.folder / step_name(step) for step in reversed(self.steps())), *self._chunks_from]
        files = {_chunk_file(digest_of(chunk)): self._write_chunk(folder, chunk, places) for chunk in chunks_in(parts["replay"])}
        self._intact = {digest: mark for digest, mark in self._intact.items() if _chunk_file(digest) in files}
        tensors, rest = split(parts)
        for part in PARTS:
            own = {path.removeprefix(f"{part}/"): tensor for path, tensor in tensors.items() if path.startswith(f"{part}/")}
            if part in TENSOR_FILES:
                files[TENSOR_FILES[part]] = _write(folder / TENSOR_FILES[part], encode_tensors(own))
            elif own:
                raise ValueError(f"{part} holds the tensor {min(own)}: only {', '.join(TENSOR_FILES)} have a file for tensors")
            if part != "replay" and any(True for _ in chunks_in(parts[part])):
                raise ValueError(f"{part} holds a chunk: only the replay has files for chunks")
        files[PROGRESS] = _write(folder / PROGRESS, _json(rest))
        for agent, weights in policies.items():
            files[_policy_file(agent)] = _write(folder / _policy_file(agent), encode_tensors(weights))
        return files

    def _write_chunk(self, folder: Path, chunk: Chunk, places: list[Path]) -> dict[str, Any]:
        """Link a chunk that lies in an earlier checkpoint, write one that is new."""
        data = encode_chunk(chunk) if chunk.digest is None else None
        digest = digest_of(chunk)
        target = folder / _chunk_file(digest)
        target.parent.mkdir(exist_ok=True)
        known = next((path for place in places if self._is_intact(path := place / _chunk_file(digest), digest)), None)
        if target.exists():  # chunks of a dull environment can be equal
            pass
        elif known:
            _link(known, target, digest)
        else:
            _write(target, encode_chunk(chunk) if data is None else data)
        self._intact[digest] = _mark(target)
        return {"size": target.stat().st_size, "sha256": digest}

    def _is_intact(self, path: Path, digest: str) -> bool:
        """Return whether a file holds what its name says: read once in the life of a store, then known by inode and time."""
        if path.is_symlink() or not path.is_file():
            return False
        return self._intact.get(digest) == _mark(path) or _sha256(path) == digest


def step_name(step: int) -> str:
    """Return the folder name of a step's checkpoint."""
    return f"step_{step:09d}"


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
    manifest, data = _manifest(path)
    where = path / MANIFEST
    if manifest.get("root") is True:
        raise CheckpointError(f"{path} is the root of all lineages, which holds no state: use a folder step_…")
    try:
        sealed = {key: value for key, value in manifest.items() if key != "seal"}
        if set(manifest) != _MANIFEST_KEYS or manifest["seal"] != _seal(sealed) or data != _json(manifest):
            raise ValueError("it is not what was written")
        _check_manifest(manifest)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{where} is damaged: {error}") from None
    return Checkpoint(path, manifest, hashlib.sha256(data).hexdigest())


def is_root(path: str | Path) -> bool:
    """Return whether a folder is the start of lineages, which has no state.

    Raises:
        CheckpointError: there is no manifest, or it is damaged, or of another format.
    """
    manifest, _ = _manifest(Path(path))
    if manifest.get("root") is not True:
        return False
    if _json(manifest) != _json({"format": FORMAT, "root": True, "step": 0}) or _files_below(Path(path)) != {MANIFEST}:
        raise CheckpointError(f"{path} is a root that holds more than a root does: restore it from git")
    return True


def open_parent(path: str | Path) -> Parent:
    """Return what a segment that begins at a folder has for a parent: the root or a checkpoint, whose manifest is verified.

    Raises:
        CheckpointError: there is no manifest, or it is damaged, or of another format.
    """
    if is_root(path):
        return Parent(0, hashlib.sha256(_manifest(Path(path))[1]).hexdigest())
    checkpoint = read_manifest(path)
    return Parent(checkpoint.step, checkpoint.digest)


def publish(checkpoint: str | Path, target: str | Path) -> Checkpoint:
    """Give a checkpoint a second name, by hard links where the file system can, in one piece; `target` becomes the folder.

    Raises:
        CheckpointError: the checkpoint is damaged, or a sound one with other contents is there.
    """
    source, target = open_checkpoint(checkpoint), Path(target)
    try:
        with _new_folder(target.parent) as temporary:
            digests = {name: facts["sha256"] for name, facts in source.manifest["files"].items()}
            for name, digest in {**digests, MANIFEST: source.digest}.items():
                (temporary / name).parent.mkdir(exist_ok=True)
                _link(source.path / name, temporary / name, digest)
            return _settle(temporary, target)
    except OSError as error:
        raise CheckpointError(f"{target} cannot be written: {error}") from error


def _fingerprint(parts: Mapping[str, State]) -> str:
    return fingerprint({part: state for part, state in parts.items() if part != "history"})


def _chunk_file(digest: str) -> str:
    return f"replay/{digest}.safetensors"


def _policy_file(agent: str) -> str:
    return f"policies/{agent}.safetensors"


def _json(data: object) -> bytes:
    """Return the one text of plain data: sorted, exact, without NaN."""
    return (json.dumps(data, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def _parse_json(data: bytes) -> Any:
    try:
        return json.loads(data.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _seal(facts: Mapping[str, Any]) -> str:
    """Return a digest of the other entries of a manifest: nothing else would notice a changed configuration."""
    return hashlib.sha256(_json(facts)).hexdigest()


def _manifest(path: Path) -> tuple[dict[str, Any], bytes]:
    """Read a manifest of whichever kind, of the format that this code knows."""
    where = path / MANIFEST
    if where.is_symlink():
        raise CheckpointError(f"{where} is a link: a checkpoint holds plain files")
    try:
        data = where.read_bytes()
        manifest = _parse_json(data)
    except OSError as error:
        raise CheckpointError(f"{path} is not a checkpoint: {MANIFEST} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise CheckpointError(f"{where} is damaged: {error}") from None
    if not isinstance(manifest, dict) or type(found := manifest.get("format")) is not int:
        raise CheckpointError(f"{where} is damaged: it names no format")
    if found != FORMAT:
        raise FormatError(
            f"{path} has format {found}, this code reads {FORMAT}: use the version of MATWM that wrote it, or start a new run"
        )
    return manifest, data


def _check_manifest(manifest: dict[str, Any]) -> None:
    """Raise an error of some kind for a manifest that no store has written; file names are safe to use afterwards."""
    spec, files, parent = _spec(manifest["spec"]), manifest["files"], manifest["parent"]
    numbers = [manifest["numerics"], manifest["step"], parent["step"], *(facts["size"] for facts in files.values())]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError("a step, size or version is no whole number from 0")
    digests = [manifest["fingerprint"], parent["digest"], *(facts["sha256"] for facts in files.values())]
    if not all(_SHA256.fullmatch(digest) for digest in digests):
        raise ValueError("a digest is no sha256")
    if set(parent) != {"step", "digest"} or any(set(facts) != {"size", "sha256"} for facts in files.values()):
        raise ValueError("parent or files have other fields than they should")
    if not isinstance(manifest["config"], dict) or not all(_AGENT.fullmatch(agent) for agent in spec.agents):
        raise ValueError("config is no mapping, or an agent has a name that cannot be a file's")
    expected = {*TENSOR_FILES.values(), PROGRESS, *map(_policy_file, spec.agents)}
    chunks = {name for name, facts in files.items() if name == _chunk_file(facts["sha256"])}
    if odd := sorted(set(files) - chunks ^ expected):
        raise ValueError(f"files lists or lacks {odd[0]!r}")


def _spec(fields: Mapping[str, Any]) -> EnvSpec:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return EnvSpec(**values)


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


def _mark(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is written to, but not when it gets another name."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _write(path: Path, data: bytes) -> dict[str, Any]:
    path.parent.mkdir(exist_ok=True)
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _link(source: Path, target: Path, digest: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, too many names of one file, or not allowed: a copy does as well
        if _write(target, source.read_bytes())["sha256"] != digest:
            raise CheckpointError(f"{source} changed while it was copied") from None


def _sync_folder(folder: Path) -> None:
    with _opened(folder) as handle:
        os.fsync(handle)


@contextlib.contextmanager
def _new_folder(parent: Path) -> Iterator[Path]:
    """Give a temporary folder, locked while its process lives and gone afterwards unless renamed; dead processes' go first."""
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{_SAVING}*"):
        with contextlib.suppress(OSError), _opened(left) as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left)
    temporary = parent / f"{_SAVING}{secrets.token_hex(8)}"
    temporary.mkdir()
    try:
        with _opened(temporary) as handle:
            with contextlib.suppress(OSError):  # a file system that cannot lock folders keeps what dead processes left
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield handle
    finally:
        os.close(handle)


def _settle(temporary: Path, target: Path) -> Checkpoint:
    """Move a finished folder to its place, durably; what is there already is kept if equal, replaced if damaged."""
    checkpoint = read_manifest(temporary)
    for folder in [*(path for path in temporary.iterdir() if path.is_dir()), temporary]:
        _sync_folder(folder)
    replaced = temporary.with_name(f"{temporary.name}-replaced")
    if target.is_symlink() or target.exists():
        present = _sound(target)
        if present and present.digest == checkpoint.digest:
            return present
        if present:
            raise CheckpointError(f"{target} is a sound checkpoint with other contents, which is never overwritten: remove it by hand")
        target.rename(replaced)
    temporary.rename(target)
    _sync_folder(target.parent)
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
