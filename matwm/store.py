"""Keeps the checkpoints of one run: folders in one folder, each written in one piece, chunks of the replay shared."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from matwm import durable
from matwm.checkpoint import Checkpoint, fingerprint_of, link, open_checkpoint, settle
from matwm.manifest import (
    AGENT,
    MANIFEST,
    PARTS,
    PROGRESS,
    RESERVATION,
    TENSOR_FILES,
    CheckpointError,
    Parent,
    chunk_file,
    from_spec,
    policy_file,
    reservation,
    seal,
    to_json,
)
from matwm.stateful import Chunk, State, chunks_in, digest_of, encode_chunk, encode_tensors, split
from matwm.step_names import step_name, steps_in
from matwm.types import EnvSpec
from matwm.version import FORMAT, NUMERICS

_log = logging.getLogger(__name__)


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
        if set(policies) != set(spec.agents) or not all(AGENT.fullmatch(agent) for agent in spec.agents):
            raise ValueError(
                f"policies of {sorted(policies)}, agents {sorted(spec.agents)}: expected one each, named by letters, digits, _ . -"
            )
        target = self.folder / step_name(step)
        try:
            with durable.new_folder(self.folder) as temporary:
                facts: dict[str, Any] = {"format": FORMAT, "numerics": NUMERICS, "step": step, "parent": asdict(parent)}
                facts |= {"config": config, "spec": from_spec(spec), "files": self._write_files(temporary, parts, policies)}
                facts["fingerprint"] = fingerprint_of(parts)
                facts |= {RESERVATION: said} if (said := reservation(spec)) else {}
                durable.write(temporary / MANIFEST, to_json({**facts, "seal": seal(facts)}))
                return settle(temporary, target)
        except OSError as error:
            raise CheckpointError(f"{target} cannot be written: {error}") from error

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, sound or not, ascending."""
        return steps_in(self.folder, MANIFEST)

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
        files = {chunk_file(digest_of(chunk)): self._write_chunk(folder, chunk, places) for chunk in chunks_in(parts["replay"])}
        self._intact = {digest: mark for digest, mark in self._intact.items() if chunk_file(digest) in files}
        tensors, rest = split(parts)
        for part in PARTS:
            own = {path.removeprefix(f"{part}/"): tensor for path, tensor in tensors.items() if path.startswith(f"{part}/")}
            if part in TENSOR_FILES:
                files[TENSOR_FILES[part]] = durable.write(folder / TENSOR_FILES[part], encode_tensors(own))
            elif own:
                raise ValueError(f"{part} holds the tensor {min(own)}: only {', '.join(TENSOR_FILES)} have a file for tensors")
            if part != "replay" and any(True for _ in chunks_in(parts[part])):
                raise ValueError(f"{part} holds a chunk: only the replay has files for chunks")
        files[PROGRESS] = durable.write(folder / PROGRESS, to_json(rest))
        for agent, weights in policies.items():
            files[policy_file(agent)] = durable.write(folder / policy_file(agent), encode_tensors(weights))
        return files

    def _write_chunk(self, folder: Path, chunk: Chunk, places: list[Path]) -> dict[str, Any]:
        """Link a chunk that lies in an earlier checkpoint, write one that is new."""
        data = encode_chunk(chunk) if chunk.digest is None else None
        digest = digest_of(chunk)
        target = folder / chunk_file(digest)
        target.parent.mkdir(exist_ok=True)
        known = next((path for place in places if self._is_intact(path := place / chunk_file(digest), digest)), None)
        if target.exists():  # chunks of a dull environment can be equal
            pass
        elif known:
            link(known, target, digest)
        else:
            durable.write(target, encode_chunk(chunk) if data is None else data)
        self._intact[digest] = durable.mark(target)
        return {"size": target.stat().st_size, "sha256": digest}

    def _is_intact(self, path: Path, digest: str) -> bool:
        """Return whether a file holds what its name says: read once in the life of a store, then known by inode and time."""
        if path.is_symlink() or not path.is_file():
            return False
        return self._intact.get(digest) == durable.mark(path) or durable.sha256_once(path) == digest
