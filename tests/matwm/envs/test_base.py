"""Every environment of every family keeps the contract of `matwm.envs.base.Env`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import matwm
from matwm import scenarios
from matwm.config import EnvConfig
from matwm.envs import FAMILIES, make_env
from matwm.envs.episode_log import EpisodeLog, digest

EXAMPLES = {"mpe": scenarios.names()}
ENTRIES = [(family, name) for family, names in EXAMPLES.items() for name in names]
every_environment = pytest.mark.parametrize(("family", "name"), ENTRIES, ids=[name for _, name in ENTRIES])

CONTINUE = """
import json, sys
import numpy as np
from matwm.config import EnvConfig
from matwm.envs import make_env
from matwm.envs.episode_log import EpisodeLog, digest

told = {}
for name, task in json.load(open(sys.argv[1])).items():
    env = EpisodeLog(make_env(EnvConfig(family=task["family"], name=name, options={})))
    ticks = [env.load_state_dict(task["state"])] + [env.step(np.array(joint)) for joint in task["next"]]
    told[name] = [digest(tick) for tick in ticks]
print(json.dumps(told))
"""


def make(family, name, **options):
    return make_env(EnvConfig(family=family, name=name, options=options))


def joint_actions(spec, steps, seed=0):
    return np.random.default_rng(seed).integers(spec.num_actions, size=(steps, spec.num_agents))


def digests(env, seed, actions):
    return [digest(env.reset(seed))] + [digest(env.step(joint)) for joint in actions]


def test_every_family_has_examples():
    assert set(EXAMPLES) == set(FAMILIES)


@every_environment
def test_ticks_have_the_sizes_of_the_spec(family, name):
    env = make(family, name)
    spec = env.spec
    assert len(set(spec.agents)) == spec.num_agents == scenarios.num_agents(name, scenarios.complete_options(name, {}))
    assert all(size > 0 for size in spec.obs_sizes + spec.num_actions)
    ticks = [env.reset(3)] + [env.step(joint) for joint in joint_actions(spec, 3)]
    for tick in ticks:
        assert (tick.obs.shape, tick.obs.dtype) == ((spec.num_agents, spec.obs_size), np.float32)
        assert (tick.reward.shape, tick.reward.dtype) == ((spec.num_agents,), np.float32)
        assert (tick.terminated.shape, tick.terminated.dtype) == ((spec.num_agents,), bool)
        assert np.isfinite(tick.obs).all()
        assert np.isfinite(tick.reward).all()
        assert not tick.obs[~spec.obs_exists].any()
        assert not tick.action_mask[~spec.action_exists].any()
        assert tick.action_mask.any(1).all()
    assert not ticks[0].reward.any()


@every_environment
def test_the_seed_alone_determines_an_episode(family, name):
    used = make(family, name)
    actions = joint_actions(used.spec, 6)
    fresh = digests(used, 5, actions)
    assert len(set(fresh)) > 1
    for warmup in (1, 7, 13):
        used.reset(warmup)
        for joint in joint_actions(used.spec, warmup, seed=warmup):
            used.step(joint)
        assert digests(used, 5, actions) == fresh
    assert digests(make(family, name), 5, actions) == fresh
    assert digests(used, 6, actions) != fresh


@every_environment
def test_a_time_limit_is_no_ending_and_nothing_follows_it(family, name):
    env = make(family, name, max_cycles=3)
    env.reset(0)
    ticks = [env.step(joint) for joint in joint_actions(env.spec, 3)]
    assert [tick.truncated for tick in ticks] == [False, False, True]
    assert [tick.is_over for tick in ticks] == [False, False, True]
    assert not np.any([tick.terminated for tick in ticks])
    assert ticks[-1].obs.any()
    with pytest.raises(RuntimeError, match="reset"):
        env.step(np.zeros(env.spec.num_agents, np.int64))
    assert not env.reset(1).is_over


@every_environment
def test_an_action_that_an_agent_does_not_have_is_refused_and_changes_nothing(family, name):
    env = make(family, name)
    actions = joint_actions(env.spec, 2)
    undisturbed = digests(env, 2, actions)
    env.reset(2)
    for agent, count in enumerate(env.spec.num_actions):
        for illegal in (-1, count):
            joint = np.zeros(env.spec.num_agents, np.int64)
            joint[agent] = illegal
            with pytest.raises(ValueError, match=env.spec.agents[agent]):
                env.step(joint)
    with pytest.raises(ValueError, match="actions"):
        env.step(np.zeros(env.spec.num_agents + 1, np.int64))
    assert [digest(env.step(joint)) for joint in actions] == undisturbed[1:]


@every_environment
def test_ticks_belong_to_the_caller(family, name):
    env = make(family, name)
    actions = joint_actions(env.spec, 3)
    untouched = digests(env, 4, actions)
    tick = env.reset(4)
    for step, joint in enumerate(actions):
        for array in (tick.obs, tick.action_mask, tick.reward, tick.terminated):
            array[...] = 1
        tick = env.step(joint)
        assert digest(tick) == untouched[step + 1]


def test_an_episode_continues_identically_in_a_new_process(tmp_path):
    tasks, expected = {}, {}
    for family, name in ENTRIES:
        env = EpisodeLog(make(family, name))
        actions = joint_actions(env.spec, 16)
        env.reset(10_007)
        for joint in actions[:11]:
            tick = env.step(joint)
        tasks[name] = {"family": family, "state": env.state_dict(), "next": actions[11:].tolist()}
        expected[name] = [digest(tick)] + [digest(env.step(joint)) for joint in actions[11:]]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    hash_seed = "4711" if os.environ.get("PYTHONHASHSEED") != "4711" else "4712"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(matwm.__file__).parents[1])}
    process = subprocess.run(
        [sys.executable, "-c", CONTINUE, str(tmp_path / "tasks.json")], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(process.stdout) == expected
