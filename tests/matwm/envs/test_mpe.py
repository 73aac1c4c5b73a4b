"""The adapter says what MPE2 says, draws without side effects, and tells endings from time limits."""

import importlib
import warnings

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test, parallel_seed_test

from matwm import scenarios
from matwm.config import EnvConfig
from matwm.envs import make_env
from matwm.envs.episode_log import digest
from matwm.types import EnvSpec


def make(name, render=False, **options):
    return make_env(EnvConfig(family="mpe", name=name, options=options), render=render)


def bare(name, **options):
    return importlib.import_module(f"mpe2.{name}").parallel_env(**options)


@pytest.mark.parametrize(
    ("name", "agents", "obs_sizes", "num_actions"),
    [
        ("simple_v3", ("agent_0",), (4,), (5,)),
        ("simple_tag_v3", ("adversary_0", "adversary_1", "adversary_2", "agent_0"), (16, 16, 16, 14), (5, 5, 5, 5)),
        ("simple_speaker_listener_v4", ("speaker_0", "listener_0"), (3, 11), (3, 5)),
        ("simple_crypto_v3", ("eve_0", "bob_0", "alice_0"), (4, 8, 8), (4, 4, 4)),
        (
            "simple_world_comm_v3",
            ("leadadversary_0", "adversary_0", "adversary_1", "adversary_2", "agent_0", "agent_1"),
            (34, 34, 34, 34, 28, 28),
            (20, 5, 5, 5, 5, 5),
        ),
    ],
)
def test_the_spec_is_the_published_one(name, agents, obs_sizes, num_actions):
    assert make(name).spec == EnvSpec(name, agents, obs_sizes, num_actions)


def test_options_reach_the_scenario():
    spec = make("simple_tag_v3", num_good=2, num_adversaries=1, num_obstacles=0).spec
    assert spec.agents == ("adversary_0", "agent_0", "agent_1")
    # Velocity, position, two others; the adversary sees two prey move, a prey sees one.
    assert spec.obs_sizes == (2 + 2 + 4 + 4, 2 + 2 + 4 + 2, 2 + 2 + 4 + 2)


@pytest.mark.parametrize("name", scenarios.names("mpe"))
def test_numbers_are_those_of_the_package(name):
    env, package = make(name), bare(name)
    tick, (observations, _) = env.reset(9), package.reset(seed=9)
    rewards = dict.fromkeys(env.spec.agents, 0.0)
    for joint in np.random.default_rng(1).integers(env.spec.num_actions, size=(5, env.spec.num_agents)):
        for number, agent in enumerate(env.spec.agents):
            np.testing.assert_array_equal(tick.obs[number, : env.spec.obs_sizes[number]], observations[agent])
            assert tick.reward[number] == np.float32(rewards[agent])
        assert env.spec.agents == tuple(package.agents)
        tick = env.step(joint)
        observations, rewards, *_ = package.step({agent: int(action) for agent, action in zip(env.spec.agents, joint, strict=True)})


def test_success_ends_an_episode_truly_and_its_last_observation_is_returned():
    env = make("simple_tag_v3", terminate_on_success=True)
    endings = []
    for seed in range(40):
        tick, length = env.reset(seed), 0
        while not tick.is_over:
            tick, length = env.step(np.random.default_rng([seed, length]).integers(5, size=4)), length + 1
        endings.append((length, tick))
    early = [tick for length, tick in endings if length < 25]
    assert early
    for tick in early:
        assert tick.terminated.all()
        assert not tick.truncated
        to_prey = tick.obs[:3, 12:14]
        assert np.linalg.norm(to_prey, axis=1).min() < 0.075 + 0.05  # the radii of adversary and prey
        assert tick.reward[0] >= 10
    for length, tick in endings:
        assert tick.truncated == (not tick.terminated.any())
        assert length == 25 or not tick.truncated
    with pytest.raises(RuntimeError, match="reset"):
        env.step(np.zeros(4, np.int64))


def test_drawing_changes_nothing_but_the_picture():
    seen, unseen = make("simple_reference_v3", render=True), make("simple_reference_v3")
    assert digest(seen.reset(3)) == digest(unseen.reset(3))
    pictures = [seen.render()]
    for joint in np.random.default_rng(0).integers(50, size=(4, 2)):
        assert digest(seen.step(joint)) == digest(unseen.step(joint))
        pictures.append(seen.render())
    assert all((picture.shape, picture.dtype) == ((700, 700, 3), np.uint8) for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == 5
    np.testing.assert_array_equal(seen.render(), pictures[-1])


def test_the_last_state_of_an_episode_can_be_drawn():
    env = make("simple_tag_v3", render=True, max_cycles=2)
    env.reset(0)
    env.step(np.ones(4, np.int64))
    first = env.render()
    assert env.step(np.ones(4, np.int64)).is_over
    assert (env.render() != first).any()


def test_an_environment_that_cannot_draw_says_how_to_make_one_that_can():
    env = make("simple_v3")
    env.reset(0)
    with pytest.raises(RuntimeError, match="render=True"):
        env.render()
    with pytest.raises(RuntimeError, match="reset"):
        make("simple_v3", render=True).render()


def test_closing_one_environment_leaves_the_others_their_fonts():
    one, other = make("simple_reference_v3", render=True), make("simple_reference_v3", render=True)
    one.reset(0)
    other.reset(0)
    before = other.render()
    one.close()
    np.testing.assert_array_equal(other.render(), before)


@pytest.mark.parametrize("name", ["simple_tag_v3", "simple_speaker_listener_v4"])
def test_the_package_passes_pettingzoos_own_tests(name, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parallel_api_test(bare(name), num_cycles=30)
        parallel_seed_test(lambda: bare(name), num_cycles=10)
    assert "Passed" in capsys.readouterr().out
