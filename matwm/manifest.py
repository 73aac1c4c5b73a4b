"""Says what a checkpoint's manifest holds, and takes no other for one."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from matwm.errors import UserError
from matwm.types import EnvSpec, ResumeClass
from matwm.version import FORMAT

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
AGENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
"""Names of agents, which are names of files too: far shorter than file systems allow, as curves have them in longer names."""

RESUME_CLASSES = get_args(ResumeClass)

_SHA256 = re.compile(r"[0-9a-f]{64}")
RESERVATION = "reservation"
"""The entry of a manifest that says what is not promised of its run; there where something is not."""
_KEYS = {"format", "numerics", "step", "parent", "config", "spec", "files", "fingerprint", "seal"}


class CheckpointError(UserError, ValueError):
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


def chunk_file(digest: str) -> str:
    """Return the name of a replay chunk's file."""
    return f"replay/{digest}.safetensors"


def policy_file(agent: str) -> str:
    """Return the name of an agent's file."""
    return f"policies/{agent}.safetensors"


def to_json(data: object) -> bytes:
    """Return the one text of plain data: sorted, exact, without NaN."""
    return (json.dumps(data, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def parse_json(data: bytes) -> Any:
    """Return what JSON text says; raise ValueError if it is none."""
    try:
        return json.loads(data.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def seal(facts: Mapping[str, Any]) -> str:
    """Return a digest of the other entries of a manifest: nothing else would notice a changed configuration."""
    return hashlib.sha256(to_json(facts)).hexdigest()


def read(path: Path) -> tuple[dict[str, Any], bytes]:
    """Read the manifest in a folder, of whichever kind, and its bytes.

    Raises:
        CheckpointError: there is none, or it is damaged, or of another format.
    """
    where = path / MANIFEST
    if where.is_symlink():
        raise CheckpointError(f"{where} is a link: a checkpoint holds plain files")
    try:
        data = where.read_bytes()
        manifest = parse_json(data)
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


def check(manifest: dict[str, Any], data: bytes) -> None:
    """Raise an error of some kind for a manifest that no store has written; file names are safe to use afterwards."""
    sealed = {key: value for key, value in manifest.items() if key != "seal"}
    if set(manifest) - {RESERVATION} != _KEYS or manifest["seal"] != seal(sealed) or data != to_json(manifest):
        raise ValueError("it is not what was written")
    spec, files, parent = to_spec(manifest["spec"]), manifest["files"], manifest["parent"]
    if RESERVATION in manifest and reservation(spec) is None:
        raise ValueError(f"it has a {RESERVATION}, but runs there are reproduced")
    if wrong := _misfit(spec):
        raise ValueError(f"spec.{wrong}")
    numbers = [manifest["numerics"], manifest["step"], parent["step"], *(facts["size"] for facts in files.values())]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError("a step, size or version is no whole number from 0")
    digests = [manifest["fingerprint"], parent["digest"], *(facts["sha256"] for facts in files.values())]
    if not all(_SHA256.fullmatch(digest) for digest in digests):
        raise ValueError("a digest is no sha256")
    if set(parent) != {"step", "digest"} or any(set(facts) != {"size", "sha256"} for facts in files.values()):
        raise ValueError("parent or files have other fields than they should")
    if not isinstance(manifest["config"], dict) or not all(AGENT.fullmatch(agent) for agent in spec.agents):
        raise ValueError("config is no mapping, or an agent has a name that cannot be a file's")
    expected = {*TENSOR_FILES.values(), PROGRESS, *map(policy_file, spec.agents)}
    chunks = {name for name, facts in files.items() if name == chunk_file(facts["sha256"])}
    if odd := sorted(set(files) - chunks ^ expected):
        raise ValueError(f"files lists or lacks {odd[0]!r}")


def _misfit(spec: EnvSpec) -> str | None:
    """Return what is no description of an environment, None if all is: networks are made of these numbers."""
    sizes = {"obs_sizes": spec.obs_sizes, "num_actions": spec.num_actions, "image_shape": spec.image_shape or (1, 1, 1)}
    lengths = {"obs_sizes": spec.num_agents, "num_actions": spec.num_agents, "image_shape": 3}
    for name, found in sizes.items():
        if not isinstance(found, tuple) or len(found) != lengths[name] or any(type(size) is not int or size < 1 for size in found):
            return f"{name} is {str(found)[:60]}, expected {lengths[name]} whole numbers from 1"
    if not isinstance(spec.agents, tuple) or not isinstance(spec.name, str) or type(spec.has_action_masks) is not bool:
        return "agents, name or has_action_masks is of another type than it should be"
    return None if spec.resume in RESUME_CLASSES else f"resume is {spec.resume!r}, expected one of {', '.join(RESUME_CLASSES)}"


def from_spec(spec: EnvSpec) -> dict[str, Any]:
    """Return what a manifest says of an environment: what compares, and is there (manifests of vectors do not speak of images)."""
    return {item.name: value for item in fields(spec) if item.compare and (value := getattr(spec, item.name)) is not None}


def reservation(spec: EnvSpec) -> str | None:
    """Return what is not promised of a run in an environment, None where all is."""
    if spec.resume != "episode":
        return None
    return (
        f"an episode of {spec.name} cannot be brought back or repeated: what is interrupted or branched is continued, "
        "not reproduced bit for bit"
    )


def to_spec(facts: Mapping[str, Any]) -> EnvSpec:
    """Return the environment that a manifest describes."""
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}
    return EnvSpec(**values)
