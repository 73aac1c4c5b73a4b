"""A trained agent for other code: it acts as in training, from its own files alone."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from matwm.acting import EpisodeContext, choose_actions
from matwm.checkpoint import Checkpoint, CheckpointError, Parent, read_manifest
from matwm.envs.images import small
from matwm.manifest import ROOT
from matwm.params_yaml import load_config, preset_path
from matwm.policy import Policy, load_networks, load_policy
from matwm.rng import seed_torch
from matwm.store import LocalStore
from matwm.trainer import Trainer, build_trainer
from tests.matwm.tiny import tiny_config

torch.set_num_threads(1)

SIZES = {"adversary_1": 16, "agent_0": 14}


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    config = load_config(preset_path("ci-tiny"))
    trainer = build_trainer(config.model_copy(update={"schedule": config.schedule.model_copy(update={"warmup_steps": 20})}))
    with torch.no_grad():  # policies that are far from uniform and from each other
        trainer.learner.actors.net.output_weight.normal_(std=3.0)
    return trainer


@pytest.fixture(scope="module")
def checkpoint(trainer: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    store = LocalStore(tmp_path_factory.mktemp("checkpoints"))
    return store.save(
        0, trainer.parts(), parent=Parent(0, "0" * 64), config=trainer.config.shaping(), spec=trainer.spec, policies=trainer.policies()
    )


def observations(agent: str, count: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(count, SIZES[agent])).astype(np.float32)


def actions_of(policy: Policy, seen: np.ndarray, *, greedy: bool = False) -> list[int]:
    return [policy.act(row, greedy=greedy) for row in seen]


def test_networks_come_back_as_they_were_trained(trainer: Trainer, checkpoint: Checkpoint) -> None:
    networks = load_networks(checkpoint)
    for loaded, trained in ((networks.world_model, trainer.learner.world_model), (networks.actors, trainer.learner.actors)):
        assert loaded.state_dict().keys() == trained.state_dict().keys()
        assert all(torch.equal(loaded.state_dict()[name], value) for name, value in trained.state_dict().items())
        assert not loaded.training
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert (networks.env, networks.spec, networks.acting_context) == (trainer.config.env, trainer.spec, 16)


@pytest.mark.parametrize("greedy", [False, True])
def test_a_policy_acts_as_the_networks_do_on_its_whole_episode(trainer: Trainer, checkpoint: Checkpoint, greedy: bool) -> None:
    seen, number = observations("adversary_1", 20), 1
    found = actions_of(load_policy(checkpoint, "adversary_1", seed=5), seen, greedy=greedy)
    actors = load_networks(checkpoint).actors
    for parameter in actors.parameters():
        parameter.data = parameter.data[number : number + 1]
    context, expected = EpisodeContext([number], 16), []
    for step, row in enumerate(seen):
        context.see(row[None, None])
        seed_torch(5, "policy/adversary_1", step)
        context.did(choose_actions(trainer.learner.world_model, actors, context, np.ones((1, 1, 5), bool), greedy=greedy))
        expected.append(int(context._actions[-1][0, 0]))
    assert found == expected
    assert len(set(found)) > 1


def test_an_agent_with_a_small_observation_needs_no_padding(checkpoint: Checkpoint) -> None:
    assert all(0 <= action < 5 for action in actions_of(load_policy(checkpoint, "agent_0"), observations("agent_0", 3)))


def test_a_new_episode_begins_without_the_last_one(checkpoint: Checkpoint) -> None:
    seen = observations("agent_0", 6)
    used, fresh = load_policy(checkpoint, "agent_0"), load_policy(checkpoint, "agent_0")
    actions_of(used, seen)
    used.reset()
    fresh._num_actions_chosen = len(seen)  # the draws go on, the memory does not
    assert actions_of(used, seen) == actions_of(fresh, seen)


def test_equal_seeds_draw_equal_actions_and_nobody_else_notices(checkpoint: Checkpoint) -> None:
    seen = observations("agent_0", 30)
    before = torch.get_rng_state()
    first = actions_of(load_policy(checkpoint, "agent_0", seed=1), seen)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert actions_of(load_policy(checkpoint, "agent_0", seed=1), seen) == first
    assert actions_of(load_policy(checkpoint, "agent_0", seed=2), seen) != first


def test_only_a_legal_action_is_chosen(checkpoint: Checkpoint) -> None:
    policy = load_policy(checkpoint, "agent_0")
    assert [policy.act(row, [0, 0, 0, 1, 0], greedy=True) for row in observations("agent_0", 4)] == [3, 3, 3, 3]


def test_its_own_files_are_enough(checkpoint: Checkpoint, tmp_path: Path) -> None:
    for name in ("manifest.json", "world_model.safetensors", "policies/agent_0.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(checkpoint.path / name, tmp_path / name)
    seen = observations("agent_0", 5)
    assert actions_of(load_policy(tmp_path, "agent_0"), seen) == actions_of(load_policy(checkpoint, "agent_0"), seen)
    (tmp_path / "world_model.safetensors").write_bytes(b"something else")
    with pytest.raises(CheckpointError, match=r"world_model\.safetensors is damaged"):
        load_policy(tmp_path, "agent_0")


def test_what_is_wrong_is_said_in_one_sentence(checkpoint: Checkpoint) -> None:
    with pytest.raises(ValueError, match="has no agent 'prey': it has adversary_0, adversary_1, adversary_2, agent_0"):
        load_policy(checkpoint, "prey")
    policy = load_policy(checkpoint, "agent_0")
    with pytest.raises(ValueError, match=r"has the shape \(16,\), but agent_0 sees \(14,\)"):
        policy.act(np.zeros(16))
    with pytest.raises(ValueError, match="not finite"):
        policy.act(np.full(14, np.nan))
    for mask in ([True] * 4, [False] * 5, [0, 1, 2, 3, 4], [-np.inf, 0, 0, 0, 0], [None] * 5):
        with pytest.raises(ValueError, match="^agent_0 got (an|the) action mask .* 5 actions"):
            policy.act(np.zeros(14), mask)


def test_a_policy_takes_pictures_of_any_size(tmp_path: Path) -> None:
    arena = {"env.family": "pettingzoo", "env.name": "tests.matwm.arena:parallel_env", "env.options": {"see": "image"}}
    trainer = build_trainer(tiny_config(arena))
    picture = np.random.default_rng(0).integers(0, 256, (100, 80, 3), np.uint8)
    saved = trainer.save(LocalStore(tmp_path), ROOT)
    ways = (picture, small(picture))
    chosen = [[load_policy(saved, "scout_0", seed=seed).act(way, np.ones(5)) for seed in range(4)] for way in ways]
    assert chosen[0] == chosen[1]
    policy = load_policy(saved, "scout_0")
    with pytest.raises(
        ValueError, match=r"^scout_0 got no action_mask, but .* has masks: give the present one, or 5 ones if all is legal$"
    ):
        policy.act(picture)
    for wrong in (picture / 255, picture[:, :, 0], np.zeros((64, 64, 2), np.uint8)):
        with pytest.raises(ValueError, match=r"but scout_0 sees images: give uint8 \(3, 64, 64\), or \(height, width, 3\)$"):
            policy.act(wrong)


def test_a_manifest_without_later_keys_is_read_and_one_of_unknown_values_is_refused_in_a_sentence(tmp_path: Path) -> None:
    folder = shutil.copytree(Path(__file__).parent / "golden_checkpoint/step_000000030", tmp_path / "step_000000030")
    checkpoint = read_manifest(folder)
    assert "latent_gradient" not in checkpoint.config["world_model"]
    agent = checkpoint.spec.agents[0]
    assert load_policy(folder, agent).act(np.zeros(checkpoint.spec.obs_sizes[0], np.float32)) in range(checkpoint.spec.num_actions[0])
    checkpoint.config["world_model"]["latents"] = "many"
    with pytest.raises(CheckpointError, match=r"manifest\.json: world_model\.latents"):
        load_networks(checkpoint)
