"""Scripts find what they need in an observation and move as they say."""

import numpy as np
import pytest

from matwm.config import EnvConfig
from matwm.envs import make_env
from matwm.envs import mpe_scripts as mpe

STILL, LEFT, RIGHT, DOWN, UP = range(5)


def options(name, **given):
    return EnvConfig(family="mpe", name=name, options=given).options


def test_towards_takes_the_larger_axis():
    deltas = np.array([[-2, 1], [2, -1], [1, -2], [-1, 2], [0.05, -0.1]])
    assert mpe.towards(deltas, 0.1).tolist() == [LEFT, RIGHT, DOWN, UP, STILL]


@pytest.mark.parametrize("action", [STILL, LEFT, RIGHT, DOWN, UP])
def test_a_body_comes_to_rest_where_coasting_says(action):
    env = make_env(EnvConfig(family="mpe", name="simple_v3", options={"max_cycles": 60}))
    env.reset(0)
    for _ in range(3):
        before = env.step(np.array([RIGHT])).obs[0]
    env.step(np.array([action]))
    for _ in range(55):
        after = env.step(np.array([STILL])).obs[0]
    pushes = {STILL: (0, 0), LEFT: (-1, 0), RIGHT: (1, 0), DOWN: (0, -1), UP: (0, 1)}
    rest = mpe.COASTING * before[:2] + 2 * mpe.HALF_PUSH * np.array(pushes[action])
    np.testing.assert_allclose(before[2:4] - after[2:4], rest, atol=1e-5)


def test_the_chaser_reads_the_prey_at_12_and_13():
    obs = np.zeros((2, 16), np.float32)
    obs[:, 4:12] = 0.01
    obs[:, 12:14] = [[0.3, -0.5], [-0.6, 0.5]]
    assert mpe.chase(options("simple_tag_v3"))(obs).tolist() == [DOWN, LEFT]


def test_the_leading_chaser_goes_where_the_prey_will_be():
    obs = np.zeros((2, 16), np.float32)
    obs[:, 12:14] = [0.3, 0.2]
    obs[1, 14:16] = [0, 1]
    assert mpe.chase_lead(options("simple_tag_v3"))(obs).tolist() == [RIGHT, UP]


@pytest.mark.parametrize("given", [{}, {"num_obstacles": 0}, {"num_adversaries": 1, "num_obstacles": 3}, {"num_good": 3}])
def test_chaser_and_fleer_find_each_other_under_every_option(given):
    config = EnvConfig(family="mpe", name="simple_tag_v3", options=given)
    env = make_env(config)
    spec, chasers = env.spec, config.options["num_adversaries"]
    chase, flee = mpe.chase(config.options), mpe.flee(config.options)
    for seed in range(5):
        obs = env.reset(seed).obs
        positions = obs[:, 2:4]
        for agent in range(spec.num_agents):
            enemies = positions[chasers:] if agent < chasers else positions[:chasers]
            delta = mpe.nearest((enemies - positions[agent])[None])
            own = obs[agent : agent + 1, : spec.obs_sizes[agent]]
            if agent < chasers:
                assert chase(own) == mpe.towards(delta)
            elif np.abs(positions[agent]).max() <= 0.8:
                assert flee(own) == mpe.towards(-delta)


def test_the_fleer_returns_to_the_middle_before_anything_else():
    obs = np.zeros((2, 14), np.float32)
    obs[:, 8:10] = [-0.1, 0]
    obs[:, 10:14] = 1
    obs[1, 2:4] = [0.85, -0.2]
    assert mpe.flee(options("simple_tag_v3"))(obs).tolist() == [RIGHT, LEFT]


def test_every_agent_finds_the_same_assignment():
    env = make_env(EnvConfig(family="mpe", name="simple_spread_v3", options={"N": 4}))
    for seed in range(5):
        obs = env.reset(seed).obs
        positions = obs[:, 2:4]
        goals = []
        for agent in range(4):
            own = obs[agent : agent + 1]
            way = mpe._assigned(mpe.Slots(4, 4).of(own), mpe.Slots(12, 3).of(own))[0]
            goals.append(tuple(np.round(positions[agent] + way, 4)))
        assert len(set(goals)) == 4


def test_the_listener_waits_until_it_hears():
    obs = np.zeros((2, 11), np.float32)
    obs[:, 2:8] = [0.5, 0, -0.5, 0, 0, 0.5]
    obs[1, 8:11] = [0, 0, 1]
    assert mpe.go_where_told(options("simple_speaker_listener_v4"))(obs).tolist() == [STILL, UP]
