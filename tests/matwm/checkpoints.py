"""Makes small checkpoints: what tests of checkpoints and their stores share."""

import json
from pathlib import Path

import numpy as np
import torch

from matwm.checkpoint import (
    Parent,
)
from matwm.manifest import seal, to_json
from matwm.stateful import Chunk
from matwm.store import LocalStore
from matwm.types import EnvSpec

SPEC = EnvSpec(name="tag", agents=("adversary_0", "prey_0"), obs_sizes=(4, 2), num_actions=(5, 3), has_action_masks=True)
PARENT = Parent(0, "ab" * 32)
CONFIG = {"seed": 3, "world_model": {"learning_rate": 3e-5}, "lists": [1, {"a": None}]}


def chunk(number, rows=4):
    return Chunk({"obs": np.full((rows, 2), number, np.float32), "is_first": np.arange(rows) == 0})


def make_parts(seed=0, chunks=None):
    draw = torch.Generator().manual_seed(seed)
    return {
        "world_model": {"encoder.weight": torch.randn(3, 4, generator=draw), "count": torch.tensor(7), "nested": {"x": torch.zeros(0, 2)}},
        "agents": {"actor": torch.randn(2, 3, generator=draw), "low": torch.randn((), generator=draw), "kind": "stacked"},
        "optimizers": {"world_model": {"step": torch.tensor(5.0), "moment": torch.randn(3, 4, generator=draw)}, "updates": 12},
        "replay": {"total_rows": 10, "chunks": [chunk(1), chunk(2), chunk(3, rows=2)] if chunks is None else chunks},
        "progress": {
            "env_step": 5000,
            "episode": {"seed": 2**62, "actions": [[1, 0], [4, 2]]},
            "rate": 0.1 + 0.2,
            "none": None,
            "on": True,
        },
        "history": {"world_model/reward": {"step": torch.arange(3), "value": torch.tensor([1.0, float("nan"), -0.0])}},
    }


def make_policies(seed=0):
    return {agent: {"actor": torch.randn(3, generator=torch.Generator().manual_seed(seed + n))} for n, agent in enumerate(SPEC.agents)}


def save(folder, step=5000, parts=None, **changes):
    store = folder if isinstance(folder, LocalStore) else LocalStore(folder)
    arguments = {"parent": PARENT, "config": CONFIG, "spec": SPEC, "policies": make_policies(), **changes}
    return store.save(step, make_parts() if parts is None else parts, **arguments)


def contents(folder: Path):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def reseal(folder: Path, change):
    """Write a manifest as a store would that had other facts."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    change(manifest)
    manifest["seal"] = seal({key: value for key, value in manifest.items() if key != "seal"})
    (folder / "manifest.json").write_bytes(to_json(manifest))
