"""Estimates what a segment that is not trained yet will take: bytes on disk, and memory; nothing is built but on torch's meta device."""

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matwm.config import Config
from matwm.version import FORMAT, NUMERICS
from pipeline import project as places
from pipeline.params.segments import ResolvedSegment

CACHE = "estimates.json"
POINT_BYTES, EPISODE_BYTES = 16, 16
WORLD_MODEL_CURVES, AGENT_CURVES = 20, 11
MANIFEST_BYTES, CHUNK_LINE_BYTES = 9_000, 320
HEADER_BYTES = 110
"""What a safetensors file says of one tensor."""
PROCESS_BYTES = 400_000_000
"""Python with torch and MLflow, before any network."""


@dataclass(frozen=True)
class Sizes:
    """What a configuration's networks and rows come to."""

    checkpoint: int
    """Bytes of weights, slow critics, Adam's moments and policies in a checkpoint."""
    world_model: int
    """Trainable parameters."""
    agents: int
    """Trainable parameters of actors and critics."""
    slow: int
    """Parameters of the slow critics."""
    num_agents: int
    obs_size: int
    action_size: int
    obs_bytes: int
    """Of one agent's observation in the replay."""

    @property
    def row(self) -> int:
        """Bytes of one row of the replay in a checkpoint."""
        return self.num_agents * (self.obs_bytes + self.action_size + 2 + 4 + 1 + 1) + 2


@dataclass(frozen=True)
class Disk:
    """What the checkpoints that a segment has still to make will take, each byte counted once."""

    checkpoints: int
    each: int
    """New bytes of one checkpoint, without whole chunks of the replay: the mean."""
    replay: int
    """Whole chunks, which all checkpoints share."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.checkpoints * self.each + self.replay


@dataclass(frozen=True)
class Memory:
    """What training needs at least, by what needs it, and roughly on top of that."""

    least: dict[str, int]
    rough: int

    @property
    def largest(self) -> str:
        """What needs most."""
        return max(self.least, key=lambda name: self.least[name])


def sizes(config: Config, project: Path | None = None) -> Sizes:
    """Return the sizes of a configuration; with `project`, from what is kept there if they were asked for before."""
    shape = config.resolved()
    asked = [FORMAT, NUMERICS, *(shape[name] for name in ("env", "world_model", "actor_critic"))]
    key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
    cache = places.state_folder(project) / CACHE if project else None
    known: dict[str, Any] = (places.read_json(cache) or {}) if cache else {}
    try:
        return Sizes(**known[key])
    except (KeyError, TypeError):
        found = _measured(config)
    if cache:
        with contextlib.suppress(OSError):  # A project that can only be read can still be validated.
            places.write_json(cache, {**dict(list(known.items())[-20:]), key: asdict(found)})
    return found


def disk(segment: ResolvedSegment, made: int, found: Sizes) -> Disk:
    """Return what a segment's checkpoints beyond step `made` (0 or its start: all) will take."""
    config, start = segment.config, max(made, segment.origin.step)
    left = [step for step in segment.saves if step > start]
    if not left:
        return Disk(0, 0, 0)
    limit = config.env.options.get("max_cycles", config.env.options.get("max_steps"))
    per_step = 1 + 1 / limit if isinstance(limit, int) and limit > 0 else 1
    size = config.replay.chunk_rows
    whole = int(left[-1] * per_step) // size - int(start * per_step) // size
    curves = WORLD_MODEL_CURVES + AGENT_CURVES * found.num_agents
    grown = 0.0
    for step in left:
        rows = step * per_step
        chunks = min(rows, config.replay.capacity + size) / size
        episodes = rows - step
        grown += rows % size * found.row + chunks * CHUNK_LINE_BYTES
        grown += curves * POINT_BYTES * step / config.run.metrics_interval + episodes * (EPISODE_BYTES + 8 * found.num_agents)
    return Disk(len(left), found.checkpoint + MANIFEST_BYTES + int(grown / len(left)), whole * size * found.row)


def memory(config: Config, until: int, found: Sizes) -> Memory:
    """Return what training to a step needs; gradients and two moments come to every weight that is trained."""
    wm, ac, imagined = config.world_model, config.actor_critic, config.regime(found.num_agents)
    n, m = found.num_agents, found.num_agents - 1
    rows = min(config.replay.capacity + 2 * config.replay.chunk_rows, 2 * until + 1)
    windows = n * config.schedule.per_agent(wm.windows, n) * wm.window_length
    whole_team = n if ac.imagination.mates == "predicted" else 1  # is imagined for each agent that learns
    states = whole_team * n * config.schedule.per_agent(imagined.starts, n) * (imagined.horizon + 1)
    features = wm.latent_size + wm.hidden_size + m * found.action_size + (m * wm.latent_size if ac.critic_reads == "joint" else 0)
    least = {
        f"the world model ({found.world_model / 1e6:,.1f} M parameters, with gradients and Adam's moments; world_model)": 16
        * found.world_model,
        f"actors and critics ({found.agents / 1e6:,.1f} M parameters, with gradients and Adam's moments; actor_critic)": 16 * found.agents
        + 4 * found.slow,
        f"the replay ({rows:,} rows; replay.capacity)": rows * (found.row + 8 + 4 * n),
        f"the windows of an update ({windows:,} rows; world_model.windows, window_length)": 4 * windows * (found.obs_size + features),
        f"the imagined states of an update ({states:,}; actor_critic.imagination.regimes)": 4 * states * features,
    }
    trunk = wm.layers * ((10 + 3 * wm.feedforward_multiple) * wm.hidden_size + wm.heads * wm.window_length)
    heads = 3 * (2 * wm.encoder_layers * wm.encoder_width + 3 * wm.head_layers * wm.head_width) + 6 * wm.latents * wm.classes
    agents = 9 * ac.layers * ac.width + 6 * ac.bins.count
    # A snapshot for saving holds weights and moments once more.
    rough = 4 * (windows * (trunk + heads) + states * (agents + features)) + 12 * (found.world_model + found.agents) + PROCESS_BYTES
    return Memory(least, rough)


def _measured(config: Config) -> Sizes:
    """Build the networks where tensors have shapes and no bytes."""
    import numpy as np
    import torch

    from matwm.envs.probe import probe
    from matwm.learner import Learner, policy_in

    spec = probe(config.env)
    with torch.device("meta"):
        learner = Learner(spec, config, torch.device("meta"))
        policies = [policy_in(learner.parts()["agents"], agent) for agent in range(spec.num_agents)]
    checkpoint = _bytes(learner.parts()) + _bytes(dict(enumerate(policies)))
    trained = {name: sum(p.numel() for p in part.parameters()) for name, part in _parts(learner).items()}
    counts = (trained["world_model"], trained["agents"], trained["slow"])
    obs_bytes = spec.obs_size * np.dtype(spec.obs_dtype).itemsize
    return Sizes(checkpoint, *counts, spec.num_agents, spec.obs_size, spec.action_size, obs_bytes)


def _parts(learner: Any) -> dict[str, Any]:
    import torch

    return {
        "world_model": learner.world_model,
        "agents": torch.nn.ModuleList([learner.actors, learner.critics]),
        "slow": learner.slow_critics,
    }


def _bytes(value: Any) -> int:
    import torch

    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size() + HEADER_BYTES
    return sum(map(_bytes, value.values())) if isinstance(value, dict) else 0
