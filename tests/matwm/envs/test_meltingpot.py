"""Players of Melting Pot see their picture alone; the package itself is played where it is installed, else an imitation."""

import importlib.util
import sys
from types import ModuleType

import numpy as np
import pytest

from matwm import envs, scenarios
from matwm.config import EnvConfig
from matwm.envs import make_env
from matwm.envs.base import EnvError
from matwm.envs.images import small
from tests.matwm.envs.examples import played

NAME = "pure_coordination_in_the_matrix__repeated"


def substrate(name=NAME, render=False, **options):
    return make_env(EnvConfig(family="meltingpot", name=name, options=options), render)


@pytest.mark.parametrize("name", scenarios.names("meltingpot"))
def test_the_table_says_what_the_package_says(name):
    known, spec = scenarios.family("meltingpot").scenarios[name], substrate(name).spec
    assert spec.agent_specs[0] == type(known.agent)(**{**vars(known.agent), "name": "player_0"})
    assert len({(one.obs_shape, one.num_actions) for one in spec.agent_specs}) == 1
    assert (spec.num_agents, spec.max_steps, spec.resume) == (scenarios.num_agents("meltingpot", name, {}), 1000, "episode")


def test_a_player_sees_its_own_picture_and_nothing_else():
    env = substrate()
    tick = env.reset(0)
    for number, seen in enumerate(env._seen):
        assert "COLLECTIVE_REWARD" in seen
        assert np.array_equal(tick.obs[number], small(seen["RGB"]))
    assert (tick.obs.shape, tick.obs.dtype) == ((2, 3, 64, 64), np.uint8)


def test_left_alone_an_episode_ends_of_itself_and_its_players_have_terminated():
    env = substrate(max_cycles=None)
    assert env.spec.max_steps is None
    tick = played(env, 0, 6000)[-1][1]
    assert (tick.is_over, tick.truncated, tick.terminated.all()) == (True, False, True)
    assert np.array_equal(tick.action_mask, np.eye(8, dtype=bool)[[0, 0]])
    assert tick.obs.any()
    with pytest.raises(RuntimeError, match="reset"):
        env.step(np.zeros(2, np.int64))
    assert env.reset(0).alive.all()


def test_the_default_cuts_at_a_thousand_steps_at_the_latest():
    tick = played(substrate(), 0, 1001)[-1][1]
    assert tick.is_over
    assert scenarios.complete_options("meltingpot", NAME, {}) == {"max_cycles": 1000}


def test_an_action_that_does_not_exist_is_refused():
    env = substrate()
    env.reset(0)
    with pytest.raises(ValueError, match="player_1 of pure_coordination_in_the_matrix__repeated was given action 8, but it has 0 to 7"):
        env.step(np.array([0, 8]))


def test_the_whole_world_is_drawn():
    env = substrate(render=True)
    env.reset(0)
    first = env.render()
    assert (first.dtype, first.ndim, first.shape[2]) == (np.uint8, 3, 3)
    for _ in range(20):
        env.step(np.array([1, 2]))
    assert not np.array_equal(env.render(), first)
    with pytest.raises(RuntimeError, match="render=True"):
        substrate().render()


def test_tensorflow_is_not_needed_and_nothing_is_left_of_its_stand_in(monkeypatch):
    had = "tensorflow" in sys.modules
    seen = []
    real = importlib.import_module

    def look(name):
        seen.append(type(sys.modules["tensorflow"]) if "tensorflow" in sys.modules else None)
        return real(name)

    monkeypatch.setattr("matwm.envs.meltingpot.importlib.import_module", look)
    substrate()
    assert ModuleType in seen or importlib.util.find_spec("tensorflow")
    assert ("tensorflow" in sys.modules) == had


def test_what_is_missing_or_fails_is_one_sentence(monkeypatch):
    import meltingpot.substrate

    monkeypatch.setattr(meltingpot.substrate, "build", lambda name, roles: 1 / 0)
    with pytest.raises(EnvError, match=f"env.name is {NAME}, and building it with Melting Pot fails: ZeroDivisionError: division by zero"):
        substrate()
    monkeypatch.setattr(envs, "is_there", lambda module: False)
    with pytest.raises(EnvError, match="env.family is meltingpot, but meltingpot is not installed: make meltingpot"):
        substrate()


def test_training_goes_on_with_a_fresh_episode():
    from matwm.trainer import build_trainer
    from tests.matwm.tiny import run, tiny_config

    config = tiny_config({"env.family": "meltingpot", "env.name": NAME, "env.options": {"max_cycles": 12}})
    trainer = run(build_trainer(config), 30)
    assert [episode.length for episode in trainer.history.episodes] == [12, 12]
    again = build_trainer(config)
    again.load(trainer.parts())
    assert again.collector.given_up == [2]
    assert np.isfinite(run(again, 9).history.metrics["world_model/total"][-1][1])
