"""Imagination beside real episodes: what the model is shown, whose rows count, and how errors are taken."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from matwm import open_loop as module
from matwm.actor_critic import Actors
from matwm.config import Config
from matwm.envs import make_env
from matwm.envs.base import Env
from matwm.open_loop import OpenLoop, open_loop
from matwm.policy import Networks
from matwm.rng import seed_torch
from matwm.types import EnvSpec, Tick
from matwm.world_model import WorldModel
from tests.matwm.tiny import TOGETHER, scenario_config, tiny_config

torch.set_num_threads(1)

ARENA = {"env.family": "pettingzoo", "env.name": "tests.matwm.arena:Arena"}


def networks(config: Config, action: int | None = None) -> Networks:
    """Return untrained networks, whose policies take one action whatever they see, if it is given."""
    env = make_env(config.env)
    spec = env.spec
    env.close()
    seed_torch(3, "test", 0)
    world_model = WorldModel(spec, config.world_model).eval()
    actors = Actors(spec.num_agents, world_model.feature_size, spec.action_size, config.actor_critic)
    if action is not None:
        with torch.no_grad():
            actors.net.output_weight.zero_()
            actors.net.output_bias.zero_()
            actors.net.output_bias[:, 0, action] = 50.0
    return Networks(config.env, spec, world_model, actors, config.schedule.acting_context)


def imagined(net: Networks, **changes: Any) -> OpenLoop:
    return open_loop(net, **{"episodes": 2, "first_seed": 7, "start": 2, "horizon": 3, **changes})


class Spoilt:
    """An environment whose agents see something else from a step on."""

    def __init__(self, env: Env, since: int) -> None:
        self.env, self.spec, self._since, self._step = env, env.spec, since, 0

    def reset(self, seed: int) -> Tick:
        self._step = 0
        return self._seen(self.env.reset(seed))

    def step(self, actions: np.ndarray) -> Tick:
        self._step += 1
        return self._seen(self.env.step(actions))

    def close(self) -> None:
        self.env.close()

    def _seen(self, tick: Tick) -> Tick:
        return dataclasses.replace(tick, obs=tick.obs + 1.0) if self._step >= self._since else tick


@pytest.mark.parametrize("changes", [{}, TOGETHER], ids=["one by one", "together"])
def test_the_model_sees_the_episode_until_the_start_and_nothing_after(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    net = networks(scenario_config("simple_tag_v3", changes, max_cycles=9), action=1)
    whole = imagined(net)

    def spoilt(since: int) -> OpenLoop:
        with monkeypatch.context() as patch:
            patch.setattr(module, "make_env", lambda config: Spoilt(make_env(config), since))
            return imagined(net)

    after = spoilt(3)
    assert np.array_equal(after.imagined, whole.imagined)
    assert np.array_equal(after.imagined_reward, whole.imagined_reward)
    assert np.array_equal(after.real[:, 1:], whole.real[:, 1:] + np.float32(1)) and np.array_equal(after.real[:, 0], whole.real[:, 0])
    assert not np.array_equal(after.reconstructed[:, 1:], whole.reconstructed[:, 1:])
    assert not np.array_equal(spoilt(2).imagined, whole.imagined)


def test_the_actions_that_were_taken_are_fed_to_it() -> None:
    config = scenario_config("simple_spread_v3", max_cycles=9)
    left, right = (imagined(networks(config, action=action), start=0) for action in (1, 2))
    assert np.array_equal(left.real[:, 0], right.real[:, 0]) and np.array_equal(left.imagined[:, 0], right.imagined[:, 0])
    assert not np.array_equal(left.imagined[:, 1], right.imagined[:, 1])
    x = 2  # of the own position; pushes act one step later
    assert (right.real[:, 2:, :, x] > left.real[:, 2:, :, x]).all(), "they went there"


def test_real_rows_are_those_of_the_episode() -> None:
    config = scenario_config("simple_tag_v3", max_cycles=9)
    found = imagined(networks(config, action=4))
    env = make_env(config.env)
    for episode, seed in enumerate(found.seeds):
        ticks = [env.reset(seed), *(env.step(np.full(env.spec.num_agents, 4)) for _ in range(5))]
        assert np.array_equal(found.real[episode], [tick.obs for tick in ticks[2:]])
        assert np.array_equal(found.reward[episode], [tick.reward for tick in ticks[3:]])


def test_rows_behind_the_end_of_an_episode_do_not_count() -> None:
    found = imagined(networks(scenario_config("simple_tag_v3", max_cycles=6)), start=4, horizon=4)
    assert found.counts.all((0, 2)).tolist() == [True, True, True, False, False]
    assert np.isnan(found.errors()).all(1).tolist() == [False, False, False, True, True]


def test_the_dead_do_not_count() -> None:
    config = tiny_config({**ARENA, "env.options": {"max_cycles": 12}})
    found = imagined(networks(config), episodes=12, start=3, horizon=8)
    lives = found.counts
    assert lives[:, 0].any() and not lives.all()
    assert not (lives[:, 1:] & ~lives[:, :-1]).any(), "nobody comes back"


def test_pictures_are_imagined_as_numbers_from_0_to_1() -> None:
    found = imagined(networks(tiny_config({**ARENA, "env.options": {"max_cycles": 12, "see": "image"}})))
    assert found.real.shape == found.imagined.shape == found.reconstructed.shape == (2, 4, 3, 3, 64, 64)
    for values in (found.real, found.imagined, found.reconstructed):
        assert values.dtype == np.float32 and values.min() >= 0 and values.max() <= 1
    assert found.real.max() == 1.0, "255"


def test_errors_are_root_mean_squares_over_entries_and_episodes() -> None:
    spec = EnvSpec("toy", ("wolf_0", "sheep_0"), (2, 1), (2, 2))
    real = np.zeros((2, 2, 2, 2), np.float32)
    seen = real.copy()
    seen[0, 1] = [[3, 4], [2, 100]]  # the second entry of the sheep is padding
    seen[1, 1] = [[1, 0], [9, 9]]
    counts = np.ones((2, 2, 2), bool)
    counts[1, 1, 1] = False
    found = OpenLoop(spec, 0, (1, 2), real, seen, real, real[:, 1:, :, 0], real[:, 1:, :, 0], counts)
    assert found.errors() == pytest.approx(np.array([[0, 0], [((9 + 16 + 1) / 4) ** 0.5, 2]]))
    assert not found.errors(real).any()
    moved = dataclasses.replace(found, real=seen)
    assert moved.errors(moved.held) == pytest.approx(found.errors())


def test_nobody_notices_and_the_same_seed_imagines_the_same() -> None:
    net = networks(scenario_config("simple_tag_v3", max_cycles=9))
    before = torch.get_rng_state()
    first, second = imagined(net), imagined(net)
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(first.imagined, second.imagined)


def test_what_cannot_be_imagined_is_said() -> None:
    config = scenario_config("simple_tag_v3", max_cycles=6)
    net, longest = networks(config), config.world_model.max_positions - 3
    with pytest.raises(ValueError, match=f"max_positions = {longest + 3}: imagine {longest} steps at most"):
        imagined(net, horizon=longest + 1)
    with pytest.raises(ValueError, match="no episode of simple_tag_v3 goes on beyond step 6: begin to imagine earlier"):
        imagined(net, start=6)
