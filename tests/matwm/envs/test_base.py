"""Every environment of every family keeps the contract of `matwm.envs.base.Env`."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test, parallel_seed_test

import matwm
from matwm import scenarios
from matwm.acting import random_actions
from matwm.envs import is_installed
from matwm.envs.base import SnapshotEnv
from matwm.envs.episode_log import EpisodeLog, digest
from tests.matwm.arena import parallel_env
from tests.matwm.envs.examples import EXACT, EXAMPLES, each, played

INSTALLED = [example for example in EXAMPLES if is_installed(example.family)]
CONTINUE = """
import json, sys
import numpy as np
from matwm.envs.episode_log import EpisodeLog, digest
from tests.matwm.envs.examples import Example

told = {}
for label, (example, tasks) in json.load(open(sys.argv[1])).items():
    env, told[label] = EpisodeLog(Example(*example).make()), []
    for state, following in tasks:
        ticks = [env.load_state_dict(state)] + [env.step(np.array(joint)) for joint in following]
        told[label].append([digest(tick) for tick in ticks])
print(json.dumps(told))
"""


def digests(told):
    return [digest(tick) for _, tick in told]


def test_every_family_has_examples():
    assert {example.family for example in EXAMPLES} == set(scenarios.FAMILIES)


@each(EXAMPLES)
def test_ticks_have_the_sizes_of_the_spec(example):
    env = example.make()
    spec = env.spec
    assert len(set(spec.agents)) == spec.num_agents
    assert spec.num_agents == example.config().num_agents or example.family == "pettingzoo"
    assert spec.resume == scenarios.family(example.family).resume
    assert all(size > 0 for size in spec.obs_sizes + spec.num_actions)
    assert (spec.resume == "snapshot") == isinstance(env, SnapshotEnv)
    told = played(env, 3, 12)
    for _, tick in told:
        assert (tick.obs.shape, tick.obs.dtype) == ((spec.num_agents, *spec.obs_shape), spec.obs_dtype)
        assert (tick.reward.shape, tick.reward.dtype) == ((spec.num_agents,), np.float32)
        assert (tick.action_mask.shape, tick.action_mask.dtype) == ((spec.num_agents, spec.action_size), bool)
        for flags in (tick.terminated, tick.alive):
            assert (flags.shape, flags.dtype) == ((spec.num_agents,), bool)
        assert type(tick.truncated) is bool
        assert np.isfinite(tick.obs).all()
        assert np.isfinite(tick.reward).all()
        assert spec.image_shape or not tick.obs[~spec.obs_exists].any()
        assert not tick.action_mask[~spec.action_exists].any()
        assert tick.action_mask.any(1).all()
        assert spec.has_action_masks or np.array_equal(tick.action_mask[tick.alive], spec.action_exists[tick.alive])
    first = told[0][1]
    assert first.alive.all()
    assert not (first.reward.any() or first.terminated.any() or first.truncated)


@each(EXACT)
def test_the_seed_alone_determines_an_episode(example):
    used = example.make()
    fresh = digests(played(used, 5, 10))
    assert len(set(fresh)) > 1
    for warmup in (1, 7, 13):
        played(used, warmup, warmup)
        assert digests(played(used, 5, 10)) == fresh
    assert digests(played(example.make(), 5, 10)) == fresh
    assert digests(played(used, 6, 10)) != fresh


@each(EXAMPLES)
def test_a_time_limit_is_no_ending_and_nothing_follows_it(example):
    env = example.make(**{example.limit: 3})
    episodes = ([tick for _, tick in played(env, seed, 5)] for seed in range(20))
    told = next(ticks for ticks in episodes if ticks[-1].alive.all())
    assert env.spec.max_steps == 3
    assert [tick.truncated for tick in told] == [False, False, False, True]
    assert [tick.is_over for tick in told] == [False, False, False, True]
    assert not np.any([tick.terminated for tick in told])
    assert told[-1].alive.all()
    assert told[-1].obs.any()
    with pytest.raises(RuntimeError, match="reset"):
        env.step(np.zeros(env.spec.num_agents, np.int64))
    assert not env.reset(1).is_over


@each([example for example in EXAMPLES if example.has_endings])
def test_an_episode_that_ends_of_itself_is_terminated_and_not_truncated(example):
    env = example.make()
    ends = [played(env, seed, 300)[-1][1] for seed in range(12)]
    ended = [tick for tick in ends if tick.is_over and not tick.truncated]
    assert ended
    for tick in ended:
        assert tick.terminated.all()
        assert (tick.action_mask.sum(1) == 1).all()
        assert all(row.any() for row in tick.obs[tick.alive])
    if example.family not in ("smax", "smac"):  # who plays at random loses its battles to the last unit
        assert any(tick.alive.any() for tick in ended), "nobody sees how it ended"


@each([example for example in EXAMPLES if example.has_deaths])
def test_who_dies_keeps_its_place_and_the_others_go_on(example):
    env = example.make()
    episodes = [[tick for _, tick in played(env, seed, 300)] for seed in range(12)]
    lives = [np.array([tick.alive for tick in episode]) for episode in episodes]
    assert any((alive.any(1) & ~alive.all(1)).sum() > 1 for alive in lives), "nobody died while others went on"
    for episode, alive in zip(episodes, lives, strict=True):
        assert (alive[1:] <= alive[:-1]).all(), "nobody comes back"
        for before, after in zip(episode, episode[1:], strict=False):
            assert np.array_equal(after.terminated, ~after.alive) or after.is_over
            assert (after.terminated | after.alive).all()
            gone = ~before.alive
            assert not after.obs[gone].any()
            assert (after.action_mask[~after.alive].sum(1) == 1).all()
            assert all(row.any() for row in after.obs[after.alive])


@each(EXACT)
def test_an_action_that_is_not_legal_is_refused_and_changes_nothing(example):
    env = example.make()
    told = played(env, 2, 4)
    tick = env.reset(2)
    for (actions, expected), (_, before) in zip(told[1:], told, strict=False):
        for agent, count in enumerate(env.spec.num_actions):
            illegal = np.flatnonzero(~before.action_mask[agent, :count]).tolist()
            for action in (-1, count, *illegal):
                joint = actions.copy()
                joint[agent] = action
                with pytest.raises(ValueError, match=env.spec.agents[agent]):
                    env.step(joint)
        with pytest.raises(ValueError, match="actions"):
            env.step(np.zeros(env.spec.num_agents + 1, np.int64))
        tick = env.step(actions)
        assert digest(tick) == digest(expected)


@each(EXACT)
def test_ticks_belong_to_the_caller(example):
    env = example.make()
    untouched = played(env, 4, 5)
    tick = env.reset(4)
    for actions, expected in untouched[1:]:
        for array in (tick.obs, tick.action_mask, tick.reward, tick.terminated, tick.alive):
            array[...] = 1
        tick = env.step(actions)
        assert digest(tick) == digest(expected)


def saved_somewhere(env, seed, rng):
    """Play 24 steps at most; return the state at a random one, the actions from there on, and the digests of what they led to."""
    actions, told, states = [], [digest(env.reset(seed))], [None]
    while len(told) <= 24 and not env.tick.is_over:
        actions.append(random_actions(rng, env.tick.action_mask))
        told.append(digest(env.step(actions[-1])))
        states.append(json.loads(json.dumps(env.state_dict())))
    at = int(rng.integers(1, len(told)))
    return states[at], [joint.tolist() for joint in actions[at:]], told[at:]


def test_an_episode_continues_identically_in_a_new_process(tmp_path):
    """Saved at random points of several episodes each, read with another hash seed."""
    tasks, expected = {}, {}
    rng = np.random.default_rng(11)
    for example in (one for one in EXACT if is_installed(one.family)):
        saved = [saved_somewhere(EpisodeLog(example.make()), seed, rng) for seed in (10_007, 104_729, 611_953)]
        tasks[example.label] = [[example.family, example.name, example.options], [(state, following) for state, following, _ in saved]]
        expected[example.label] = [after for _, _, after in saved]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    hash_seed = "4711" if os.environ.get("PYTHONHASHSEED") != "4711" else "4712"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(matwm.__file__).parents[1])}
    process = subprocess.run(
        [sys.executable, "-c", CONTINUE, str(tmp_path / "tasks.json")], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(process.stdout.splitlines()[-1]) == expected


@each([example for example in EXAMPLES if example.family in ("mpe", "butterfly", "smax")][::3])
def test_drawing_does_not_change_what_follows_and_shows_what_happens(example):
    env = example.make(render=True)
    undrawn = played(example.make(), 1, 8)
    env.reset(1)
    pictures = [env.render()]
    for actions, expected in undrawn[1:]:
        assert digest(env.step(actions)) == digest(expected)
        pictures.append(env.render())
    assert all(picture.dtype == np.uint8 and picture.shape == pictures[0].shape and picture.shape[2] == 3 for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) > 1
    with pytest.raises(RuntimeError, match="render=True"):
        example.make().render()


@pytest.mark.parametrize("example", [one for one in INSTALLED if one.make().spec.image_shape], ids=lambda one: one.label)
def test_pixels_change_and_agents_do_not_share_a_buffer(example):
    told = played(example.make(), 1, 12)
    images = np.stack([tick.obs for _, tick in told])
    assert len({image.tobytes() for image in images[:, 0]}) > len(told) // 2, "blank or frozen pictures"
    assert images.min() < images.max()


@pytest.mark.parametrize("name", [*scenarios.names("butterfly"), "simple_tag_v3", "arena"])
def test_what_pettingzoo_itself_expects_of_an_environment_holds(name):
    if name == "arena":
        make = parallel_env
    else:
        package = "mpe2" if name.startswith("simple") else "pettingzoo.butterfly"
        if not is_installed("butterfly") and package != "mpe2":
            pytest.skip("butterfly is not installed")
        options = {"continuous": False} if name.startswith("piston") else {}
        make = lambda: importlib.import_module(f"{package}.{name}").parallel_env(**options)  # noqa: E731
    parallel_api_test(make(), num_cycles=20)
    parallel_seed_test(make, num_cycles=20)
