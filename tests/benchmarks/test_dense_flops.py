"""The count that speed is held against is that of the method, not of what the code happens to do."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.dense_flops import dense_flops
from matwm.config import merge
from matwm.envs import make_env
from matwm.params_yaml import load_config, parse_config, preset_path, read_params
from matwm.types import EnvSpec
from tests.matwm.tiny import make_learner, make_windows


def test_the_count_is_that_of_the_specification():
    """GFLOP of one environment step at the paper's sizes on Simple Tag, worked out by hand when the method was specified."""
    config = load_config(preset_path("paper"))
    found = dense_flops(config, make_env(config.env).spec, acting_rows=13)
    assert found["world model"] / 1e9 == pytest.approx(62.8, rel=0.03)
    assert found["imagine"] / 1e9 == pytest.approx(87.4 + 167.9, rel=0.05)
    assert found["actor-critic"] / 1e9 == pytest.approx(43.9 + 76.5, rel=0.05)
    assert sum(found[part] for part in ("world model", "imagine", "actor-critic")) / 1e9 == pytest.approx(439, rel=0.05)


def test_the_count_of_simple_tag_is_its_parts_worked_out_by_hand():
    """Operations a row: two for each weight; four agents of 16 numbers and an identity of four, latents of 32 levels, h of 128 numbers."""
    config = load_config(preset_path("simple-tag"))
    found = dense_flops(config, make_env(config.env).spec, acting_rows=13)
    encoder, decoder, mixer, prior, outcomes = 47_360, 46_080, 13_312, 180_224, 204_544
    actor, critic, features = 2 * (175 * 128 + 128 * 128 + 128 * 5), 2 * (175 * 128 + 128 * 128 + 128 * 63), 2 * 175 * 128
    trunk = {seen: 2 * (2 * 128 * 128 * 8 + 4 * 128 * seen) for seen in (8, 15.5, 32)}
    mates = {seen: 2 * (32 * 64 + 64 * 15) + 2 * 64 * 64 * 8 + 4 * 64 * seen for seen in (8, 15.5, 32)}
    row = encoder + decoder + mixer + trunk[32] + prior + outcomes + mates[32]
    assert found["world model"] == 16 * 32 * (3 * row - 2 * (16 + 4) * (128 + 32) - 2 * 32 * 64)
    context = 8 * (encoder + mates[8]) + 7 * (mixer + trunk[8])
    assert found["imagine"] == 96 * (context + 15 * (mixer + trunk[15.5] + prior + mates[15.5] + outcomes + actor))
    learned = (3 * actor - features) + (3 * critic - features)  # and a slow critic, and values of the states behind the horizon
    assert found["actor-critic"] == 96 * (15 * (learned + critic) + critic)


@pytest.mark.parametrize("reads", ["own", "actions", "joint"])
@pytest.mark.parametrize("code", ["one_hot", "ordinal"])
@pytest.mark.parametrize("preset", ["cpu-small", "ci-tiny"])
def test_the_count_of_layers_is_what_torch_counts(preset, code, reads):
    """The decoder, the dynamics head and the trunk are computed densely: here torch's own counter is the judge."""
    reward = {"reward_input": "arrival" if code == "ordinal" else "hidden", "reward_reads": "own"}
    if reads == "joint":
        reward = {"reward_input": "arrival", "reward_reads": "joint"}
    mates = "absent" if reads == "own" else "imagined"
    changes = {
        "world_model": {"latent_code": code, "dynamics_reads": reads, **reward},
        "actor_critic": {"critic_reads": "own", "team_reward": "none", "imagination": {"mates": mates, "opponents_predicted": 0.0}},
    }
    config = parse_config(merge(read_params(preset_path(preset)), changes))
    spec = make_env(config.env).spec
    model, windows = make_learner(spec, config).world_model, make_windows(spec, per_agent=2, length=8)
    from benchmarks.dense_flops import RowCosts

    cost, rows = RowCosts(config, spec), 2 * spec.num_agents * 8
    z, h = (
        torch.rand(2 * spec.num_agents, 8, config.world_model.latent_size),
        torch.rand(2 * spec.num_agents, 8, config.world_model.hidden_size),
    )
    latent = torch.zeros(2 * spec.num_agents, 8, config.world_model.latents, dtype=torch.int64)
    positions, allowed = torch.arange(8).expand(len(h), 8), torch.ones(len(h), 8, 8, dtype=torch.bool)
    for expected, call in (
        (cost.encoder, lambda: model.autoencoder.posterior(windows.obs, windows.agent)),
        (cost.decoder, lambda: model.autoencoder.decode(z)),
        (cost.prior, lambda: model.prior(h, latent, model._of_mates(windows.mate_actions, z))),
        (cost.outcomes, lambda: model.outcomes(h, latent, windows.mate_actions)),
        (cost.trunk(8), lambda: model.trunk.eval()(h, positions, allowed)),
    ):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            call()
        assert counter.get_total_flops() == expected * rows


def test_a_backward_pass_leaves_out_the_gradients_of_data():
    from benchmarks.dense_flops import RowCosts

    config = load_config(preset_path("cpu-small"))
    spec = make_env(config.env).spec
    model, windows = make_learner(spec, config).world_model, make_windows(spec, per_agent=2, length=8)
    cost, rows = RowCosts(config, spec), 2 * spec.num_agents * 8
    z = torch.rand(2 * spec.num_agents, 8, config.world_model.latent_size)
    assert model.teammates is not None
    for expected, call in (
        (3 * cost.encoder - cost.encoder_in, lambda: model.autoencoder.posterior(windows.obs, windows.agent)),
        (2 * cost.mates_in, lambda: model.teammates.embed.dense(z)),
    ):
        with FlopCounterMode(display=False) as counter:
            call().square().sum().backward()
        assert counter.get_total_flops() == expected * rows


def test_the_count_of_convolutions_is_what_torch_counts():
    from benchmarks.dense_flops import RowCosts

    config = load_config(preset_path("ci-tiny"))
    spec = EnvSpec("pictures", ("a_0", "b_0"), (3 * 64 * 64,) * 2, (2, 2), image_shape=(3, 64, 64))
    cost, model = RowCosts(config, spec), make_learner(spec, config).world_model.autoencoder
    obs, z = torch.zeros(2, 3, 3, 64, 64, dtype=torch.uint8), torch.rand(2, 3, config.world_model.latent_size)
    for expected, call in ((cost.encoder, lambda: model.posterior(obs, torch.arange(2))), (cost.decoder, lambda: model.decode(z))):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            call()
        assert counter.get_total_flops() == 6 * expected
