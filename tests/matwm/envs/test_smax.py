"""Battles end as they should, are compiled once, and are those of the package."""

import inspect
import json
import subprocess
import sys

import numpy as np
import pytest

from matwm import scenarios
from matwm.config import EnvConfig
from matwm.envs import is_installed, make_env
from matwm.envs.episode_log import digest
from matwm.envs.smax_maps import MAPS
from tests.matwm.envs.examples import played

# Not importorskip: a package of which a part is missing is to fail.
pytestmark = pytest.mark.skipif(not is_installed("smax"), reason=scenarios.family("smax").install)
STOP = 4


def battle(name="2m_vs_1z", **options):
    return make_env(EnvConfig(family="smax", name=name, options=options))


def kill(env, units):
    """Strike units down between two steps."""
    key, state = env._state
    dead = np.isin(np.arange(len(state.state.unit_alive)), units)
    health = state.state.unit_health * ~dead
    env._state = key, state.replace(state=state.state.replace(unit_health=health, unit_alive=state.state.unit_alive & ~dead))


def after_killing(units, **options):
    env = battle(**options)
    env.reset(0)
    kill(env, units)
    return env.step(np.array([STOP, STOP]))


def test_a_win_is_every_enemy_dead_and_one_of_ours_not():
    tick = after_killing([2])
    assert (tick.metrics, tick.truncated, tick.is_over) == ({"win": 1.0}, False, True)
    assert tick.terminated.all()
    assert tick.reward.min() >= 1
    assert (tick.action_mask.sum(1) == 1).all()
    assert tick.alive.all() and tick.obs.any(1).all(), "survivors see how it ended"
    tick = after_killing([0, 1])
    assert (tick.metrics, tick.truncated, tick.terminated.all(), tick.alive.any()) == ({"win": 0.0}, False, True, False)
    assert after_killing([0, 1, 2]).metrics == {"win": 0.0}, "a draw is no win"
    tick = after_killing([0, 2])
    assert (tick.metrics, tick.alive.tolist()) == ({"win": 1.0}, [False, True])


def test_a_win_in_the_last_step_is_an_ending_and_the_limit_alone_is_none():
    tick = after_killing([2], max_steps=1)
    assert (tick.metrics, tick.truncated, tick.terminated.all()) == ({"win": 1.0}, False, True)
    tick = after_killing([0], max_steps=1)
    assert (tick.metrics, tick.truncated, tick.alive.tolist()) == ({"win": 0.0}, True, [False, True])


def test_the_dead_stop_share_the_reward_and_see_nothing():
    env = battle()
    env.reset(0)
    kill(env, [0])
    first = env.step(np.array([STOP, STOP]))
    tick = env.step(np.array([STOP, STOP]))
    assert (tick.alive.tolist(), tick.terminated.tolist()) == ([False, True], [True, False])
    assert first.action_mask[0].tolist() == tick.action_mask[0].tolist() == [False] * STOP + [True, False]
    assert not tick.obs[0].any()
    assert tick.reward[0] == tick.reward[1]
    with pytest.raises(ValueError, match="ally_0 of 2m_vs_1z was given action 0, which is not legal now"):
        env.step(np.array([0, STOP]))


def test_a_step_is_compiled_once_however_an_episode_began():
    env = battle()
    for seed in range(3):
        told = played(env, seed, 3)
    env.restore(json.loads(json.dumps(env.snapshot())))
    env.step(np.where(told[-1][1].action_mask[:, STOP], STOP, told[-1][1].action_mask.argmax(1)))
    assert env._battle.advance._cache_size() == 1


def test_a_snapshot_is_small_and_of_one_map():
    env = battle("3m")
    told = played(env, 1, 5)
    state = json.loads(json.dumps(env.snapshot()))
    assert len(json.dumps(state)) < 4000
    assert digest(battle("3m").restore(state)) == digest(told[-1][1])
    with pytest.raises(ValueError, match="the snapshot is no state of 2m_vs_1z"):
        battle().restore(state)
    first, *others = state["leaves"]
    for damaged in ({}, {"leaves": None}, {"leaves": [{**first, "data": "xy"}, *others]}, {"sees": [True]}):
        with pytest.raises(ValueError, match="the snapshot is no state of 3m"):
            battle("3m").restore({**state, **damaged} if damaged else {})


def test_maps_and_defaults_are_those_of_the_package():
    from jaxmarl.environments.smax.heuristic_enemy_smax_env import HeuristicEnemySMAX
    from jaxmarl.environments.smax.smax_env import MAP_NAME_TO_SCENARIO, SMAX

    theirs = {name: (scenario.num_allies, scenario.num_enemies) for name, scenario in MAP_NAME_TO_SCENARIO.items()}
    assert {name: (one.allies, one.enemies) for name, one in MAPS.items() if one.units is None} == theirs
    ours = {name: one for name, one in MAPS.items() if one.units is not None}
    assert set(ours) == {"2m_vs_1z", "3s_vs_3z", "3s_vs_4z"}
    assert all(len(one.units) == one.allies + one.enemies for one in ours.values())
    parameters = {**inspect.signature(SMAX.__init__).parameters, **inspect.signature(HeuristicEnemySMAX.__init__).parameters}
    options = scenarios.complete_options("smax", "3m", {})
    assert options == {key: parameters[key].default for key in options}


def test_importing_the_package_prints_nothing():
    code = "from matwm.config import EnvConfig\nfrom matwm.envs import make_env\nmake_env(EnvConfig(family='smax', name='3m', options={}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == ""
