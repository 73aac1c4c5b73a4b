"""The smallest configurations, learners and trainers that run every line: what tests of training share.

All values are given here, so that tuning a preset changes no test.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jaxtyping
import pytest
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from matwm.batches import Features, Rollout, Windows
from matwm.collector import Collector
from matwm.config import Config
from matwm.envs.base import Env
from matwm.envs.episode_log import EpisodeLog
from matwm.learner import Learner
from matwm.params_yaml import parse_config
from matwm.replay import Replay
from matwm.rng import seed_torch
from matwm.trainer import Trainer, build_trainer, prepare_torch
from matwm.types import NO_ACTION, EnvSpec

TINY: dict[str, Any] = {
    "seed": 3,
    "env": {"family": "mpe", "name": "simple_tag_v3", "options": {"max_cycles": 6}, "seconds_per_call": 300.0},
    "world_model": {
        "latents": 4,
        "classes": 4,
        "latent_code": "one_hot",
        "unimix": 0.01,
        "latent_gradient": "straight_through",
        "hidden_size": 16,
        "layers": 2,
        "heads": 2,
        "feedforward_multiple": 2,
        "max_positions": 32,
        "dropout": 0.1,
        "encoder_layers": 1,
        "encoder_width": 16,
        "reward_input": "hidden",
        "reward_reads": "own",
        "dynamics_reads": "own",
        "head_layers": 1,
        "head_width": 16,
        "dynamics_layers": 1,
        "agent_identity": True,
        "action_words": "scaled",
        "bins": {"count": 21, "bound": 6.0},
        "teammates": {"enabled": True, "hidden_size": 8, "layers": 1, "heads": 2},
        "loss_weights": {
            "reconstruction": 1.0,
            "reward": 1.0,
            "continuation": 1.0,
            "teammates": 1.0,
            "action_mask": 0.5,
            "dynamics": 0.5,
            "representation": 0.1,
        },
        "free_nats": 1.0,
        "windows": 4,
        "window_length": 8,
        "learning_rate": 1e-3,
        "autoencoder_learning_rate": 1e-3,
        "reward_learning_rate": None,
        "adam_betas": [0.9, 0.999],
        "adam_epsilon": 1e-8,
        "clip_norm": 1000.0,
    },
    "actor_critic": {
        "layers": 1,
        "width": 16,
        "bins": {"count": 21, "bound": 6.0},
        "action_factors": None,
        "actor_unimix": 0.0,
        "discount": 0.985,
        "lambda": 0.95,
        "entropy": 3e-4,
        "return_low": 5.0,
        "return_high": 95.0,
        "return_decay": 0.99,
        "return_scale_min": 1.0,
        "slow_decay": 0.98,
        "slow_weight": 1.0,
        "learning_rate": 1e-3,
        "adam_betas": [0.9, 0.999],
        "adam_epsilon": 1e-5,
        "clip_norm": 100.0,
        "epochs": 1,
        "ratio_clip": 1e-5,
        "return_debias": False,
        "critic_reads": "own",
        "team_reward": "none",
        "imagination": {
            "context_length": 4,
            "start_state": "posterior",
            "mates": "absent",
            "opponents_predicted": 0.0,
            "regimes": [{"max_agents": 3, "starts": 6, "horizon": 3}, {"max_agents": None, "starts": 8, "horizon": 3}],
        },
    },
    "replay": {"capacity": 200, "recency_decay": 0.99, "chunk_rows": 16},
    "schedule": {
        "warmup_steps": 12,
        "world_model_every": 1,
        "agents_every": 2,
        "agents_from": 0,
        "batch_is_total": True,
        "acting_context": 5,
    },
    "run": {"device": "cpu", "precision": "float32", "cuda_graphs": False, "threads": 1, "save_interval": 10, "metrics_interval": 5},
    "retention": {"keep_last": None, "keep_every": None, "keep_best": 0},
    "evaluation": {"episodes": 2, "seed": 100, "modes": ["sampled"], "interval": 0, "gif": False, "objective": None},
    "tracking": {"experiment": "test", "upload_seconds": 0.5, "progress_seconds": 2.0, "push": False, "notify": None},
}
LEVELS = {"world_model.latent_code": "ordinal", "world_model.reward_input": "arrival", "world_model.latent_gradient": "reinmax"}
"""What latents are in cpu-small, and how it learns from them."""
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"))]
TEAMS = {1: "simple_v3", 2: "simple_push_v3", 3: "simple_crypto_v3"}
"""A scenario for each size of a toy team: the configuration reads the size from the scenario."""
TOGETHER: dict[str, Any] = {
    "world_model.reward_input": "arrival",
    "world_model.reward_reads": "joint",
    "world_model.dynamics_reads": "joint",
    "actor_critic.critic_reads": "joint",
    "actor_critic.team_reward": "role",
    "actor_critic.epochs": 2,
    "actor_critic.return_debias": True,
    "actor_critic.imagination.mates": "imagined",
    "actor_critic.imagination.opponents_predicted": 0.5,
    "actor_critic.imagination.regimes": [{"max_agents": None, "starts": 16, "horizon": 3}],
}
"""All agents imagined from the same moments, with everything that this can be combined with."""


def tiny_data(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the parameters with values replaced at dotted paths."""
    data = _copy(TINY)
    for path, value in (changes or {}).items():
        *above, name = path.split(".")
        node = data
        for key in above:
            node = node[key]
        assert name in node or "options" in path, path
        node[name] = value
    return data


def tiny_config(changes: dict[str, Any] | None = None) -> Config:
    return parse_config(tiny_data(changes))


def scenario_config(name: str, changes: dict[str, Any] | None = None, **options: Any) -> Config:
    return tiny_config({"env.name": name, "env.options": {"max_cycles": 6, **options}, **(changes or {})})


def toy_config(spec: EnvSpec, changes: dict[str, Any] | None = None) -> Config:
    return scenario_config(TEAMS[spec.num_agents], changes)


def dense(features: Features | Rollout, latent_size: int) -> Tensor:
    """Return features with their one-hots written out, (..., F)."""
    rows = features.latent_rows.long()
    z = torch.zeros(*rows.shape[:-1], latent_size, dtype=features.numbers.dtype).scatter(-1, rows, 1.0)
    return torch.cat([z, features.numbers], -1)


def make_learner(spec: EnvSpec, config: Config | None = None) -> Learner:
    config = config or toy_config(spec)
    device = prepare_torch(config)
    seed_torch(config.seed, "initialisation", 0)
    return Learner(spec, config, device)


def make_trainer(make_env: Callable[[], Env] | None = None, config: Config | None = None) -> Trainer:
    """Build a trainer of a toy environment, or of the configuration's own."""
    if make_env is None:
        return build_trainer(config or tiny_config())
    env = EpisodeLog(make_env())
    config = config or toy_config(env.spec)
    replay = Replay(env.spec, config.replay)
    collector = Collector(env, replay, seed=config.seed, acting_context=config.schedule.acting_context)
    return Trainer(config, env, replay, make_learner(env.spec, config), collector)


def repeating(count: int, checked: int) -> Iterator[int]:
    """Yield the numbers below `count`. Shapes are checked for the first ones alone: the others repeat them, in half of the time."""
    before = jaxtyping.config.jaxtyping_disable
    try:
        for number in range(count):
            if number == checked:
                jaxtyping.config.update("jaxtyping_disable", True)
            yield number
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def run(trainer: Trainer, steps: int) -> Trainer:
    for _ in repeating(steps, 24):  # by then each network has been updated
        trainer.step()
    return trainer


def pad_obs(spec: EnvSpec, obs: Tensor, agent: Tensor) -> Tensor:
    """Zero the entries that an agent does not have."""
    return obs * torch.from_numpy(spec.obs_exists)[agent][:, None]


def make_windows(
    spec: EnvSpec,
    per_agent: int = 2,
    length: int = 8,
    *,
    seed: int = 0,
    is_first: Bool[Tensor, "B T"] | None = None,
    is_valid: Bool[Tensor, "B T"] | None = None,
    action: Int[Tensor, "B T"] | None = None,
) -> Windows:
    """Return random windows that the replay might have given."""
    rng = torch.Generator().manual_seed(seed)
    n = spec.num_agents
    rows = n * per_agent
    agent = torch.arange(n).repeat_interleave(per_agent)
    counts = torch.tensor(spec.num_actions)
    joint = (torch.rand(rows, length, n, generator=rng) * counts).long()
    mates = torch.tensor([spec.mates(i) for i in range(n)], dtype=torch.long).reshape(n, n - 1)[agent]
    own = joint.gather(2, agent[:, None, None].expand(rows, length, 1)).squeeze(2) if action is None else action
    others = joint.gather(2, mates[:, None].expand(rows, length, n - 1))
    exists = torch.from_numpy(spec.action_exists)[agent][:, None].expand(rows, length, -1)
    first = torch.zeros(rows, length, dtype=torch.bool) if is_first is None else is_first
    valid = torch.ones(rows, length, dtype=torch.bool) if is_valid is None else is_valid
    random_mask = (torch.rand(rows, length, spec.action_size, generator=rng) < 0.7) & exists
    return Windows(
        agent=agent,
        obs=pad_obs(spec, torch.randn(rows, length, spec.obs_size, generator=rng), agent) * valid[..., None],
        action=torch.where(valid, own, NO_ACTION),
        mate_actions=torch.where((valid & (own >= 0))[..., None], others, NO_ACTION),
        action_mask=(random_mask if spec.has_action_masks else exists) & valid[..., None],
        reward=torch.randn(rows, length, generator=rng) * valid,
        continues=torch.ones(rows, length),
        is_first=first,
        is_valid=valid,
    )


def _copy(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _copy(value) for key, value in node.items()}
    return [_copy(value) for value in node] if isinstance(node, list) else node
