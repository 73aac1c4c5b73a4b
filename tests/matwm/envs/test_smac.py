"""SMAC's conventions are kept, and what is missing is said; the engine is an imitation (tests/matwm/fakes/smac)."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from matwm import envs, scenarios
from matwm.config import EnvConfig
from matwm.envs import make_env
from matwm.envs.base import EnvError, NoPictureError
from matwm.envs.episode_log import EpisodeLog, digest
from tests.matwm.envs.examples import played

STOP = 1


def battle(name="3m", **options):
    return make_env(EnvConfig(family="smac", name=name, options=options))


def begun(seed=0, **options):
    env = battle(**options)
    env.reset(seed)
    return env, env._engine


def still(env):
    """Everybody who lives stops."""
    return np.where(env._tick.alive, STOP, 0)


@pytest.mark.parametrize("name", scenarios.names("smac"))
def test_the_table_says_what_the_engine_says(name):
    from smac.env import MAPS

    known, spec = scenarios.family("smac").scenarios[name], battle(name).spec
    assert spec.agent_specs[0] == type(known.agent)(**{**vars(known.agent), "name": "ally_0"})
    assert len({(one.obs_shape, one.num_actions) for one in spec.agent_specs}) == 1
    assert (spec.num_agents, spec.max_steps, spec.resume) == (scenarios.num_agents("smac", name, {}), MAPS[name][2], "episode")
    assert set(scenarios.names("smac")) == set(MAPS)


def test_the_dead_have_the_no_op_alone_and_the_living_all_but_that():
    env, engine = begun()
    engine.health[1] = 1
    engine.at[:] = engine.at[1]
    tick = env.step(still(env))
    while tick.alive.all():
        tick = env.step(still(env))
    dead = ~tick.alive
    assert np.array_equal(tick.action_mask[dead], np.eye(9, dtype=bool)[[0] * dead.sum()])
    assert not tick.action_mask[tick.alive, 0].any()
    assert tick.action_mask[tick.alive, STOP].all()
    assert np.array_equal(tick.terminated, dead)
    assert not tick.obs[dead].any()
    assert not tick.is_over
    assert len(set(tick.reward.tolist())) == 1, "the dead have their share"
    for agent, action in ((int(dead.argmax()), STOP), (int(tick.alive.argmax()), 0)):
        actions = still(env)
        actions[agent] = action
        with pytest.raises(ValueError, match=f"ally_{agent} of 3m was given action {action}, which is not legal now"):
            env.step(actions)
    env.step(still(env))


def end_with(health, steps=60):
    """Let a battle of at most `steps` steps have these units in its next one."""
    env, engine = begun(max_steps=steps)
    engine.health[:] = health
    env._tick = env._seen(np.zeros(3, np.float32))
    return env, env.step(still(env))


def test_a_win_a_loss_and_a_draw_end_a_battle_for_all_even_in_its_last_step():
    for steps in (60, 1):
        for health, win in (([5, 0, 5, 0, 0, 0], 1.0), ([0, 0, 0, 5, 5, 5], 0.0), ([0] * 6, 0.0)):
            env, tick = end_with(health, steps)
            assert (tick.metrics, tick.truncated, tick.is_over) == ({"win": win}, False, True)
            assert tick.terminated.all()
            assert tick.alive.tolist() == [unit > 0 for unit in health[:3]], "survivors see how it ended"
            assert tick.obs.any(1).tolist() == tick.alive.tolist()
            assert (tick.action_mask.sum(1) == 1).all()
            assert (tick.reward > 15).all() == bool(win), "of 20 in all, 200 of 245 parts are the win's"
            with pytest.raises(RuntimeError, match="reset"):
                env.step(np.zeros(3, np.int64))


def test_the_time_limit_is_no_end_and_no_win():
    _, tick = end_with([5, 0, 5, 5, 5, 5], 1)
    assert (tick.metrics, tick.truncated) == ({"win": 0.0}, True)
    assert tick.terminated.tolist() == [False, True, False]


def test_a_game_that_breaks_down_cuts_the_battle_and_is_begun_again(caplog):
    env, engine = begun()
    env.step(still(env))
    engine.breaks_down = True
    tick = env.step(still(env))
    assert (tick.truncated, tick.metrics, tick.reward.tolist()) == (True, {"win": 0.0}, [0, 0, 0])
    assert tick.alive.all()
    assert not tick.terminated.any()
    assert "broke down" in caplog.text
    assert env.reset(1).alive.all()
    assert env._engine is not engine


def test_the_seed_is_that_of_the_game_which_goes_on_from_episode_to_episode():
    one, other = ([digest(env.reset(seed)) for seed in (3, 4)] for env in (battle(), battle()))
    assert one == other
    assert one[1] != digest(battle().reset(4)), "the second seed is not used: the class is honest"


def test_a_running_battle_is_given_up_when_training_is_interrupted(caplog):
    log = EpisodeLog(battle())
    log.reset(3)
    log.step(np.full(3, STOP))
    assert log.state_dict() == {"seed": 3, "lost_steps": 1}
    assert EpisodeLog(battle()).load_state_dict(log.state_dict()) is None
    assert "the run is continued, not reproduced bit for bit" in caplog.text


def test_ticks_belong_to_the_caller_and_closing_ends_the_game():
    env, engine = begun()
    tick = env.reset(0)
    legal = tick.action_mask.copy()
    tick.action_mask[:] = True
    assert np.array_equal(env._tick.action_mask, legal)
    with pytest.raises(NoPictureError):
        env.render()
    env.close()
    assert not engine.is_running
    assert played(env, 5, 10)[0][1].alive.all()


def refusal():
    with pytest.raises(EnvError) as caught:
        battle()
    (sentence,) = caught.value.problems
    return sentence


@pytest.fixture
def no_imitation(monkeypatch):
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if "fakes" not in folder])
    for name in ("smac", "smac.env"):
        monkeypatch.delitem(sys.modules, name)


def test_without_the_package_its_source_and_the_game_are_named(no_imitation):
    sentence = refusal()
    assert sentence.startswith(
        "env.family is smac, but smac.env is not installed: .venv/bin/pip install --no-deps git+https://github.com/ox"
    )
    assert "StarCraft II in $SC2PATH" in sentence
    assert not envs.is_installed("smac")


def test_the_optimiser_of_the_same_name_is_recognised(no_imitation, tmp_path, monkeypatch):
    (tmp_path / "smac").mkdir()
    (tmp_path / "smac" / "__init__.py").write_text("raise ImportError('it is not to be imported')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    sentence = refusal()
    assert "but the smac that is installed is another package (the smac of the package index is SMAC3, an optimiser" in sentence


def test_without_the_game_or_its_maps_their_places_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("SC2PATH", str(tmp_path / "nowhere"))
    assert refusal().startswith(f"env.family is smac, but StarCraft II is not in {tmp_path}/nowhere: install the game")
    monkeypatch.setenv("SC2PATH", str(tmp_path))
    assert refusal().startswith(f"env.family is smac, but SMAC's maps are not in {tmp_path}/Maps/SMAC_Maps: unpack")
    monkeypatch.delenv("SC2PATH")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(Path(tmp_path) / "StarCraftII") in refusal()
    assert "SC2PATH" not in os.environ


def test_what_fails_in_smac_or_the_game_is_one_sentence(monkeypatch):
    import smac.env

    env = battle()
    monkeypatch.setattr(smac.env.StarCraft2Env, "reset", lambda self: 1 / 0)
    with pytest.raises(EnvError, match="env.name is 3m, and StarCraft II does not begin it: ZeroDivisionError: division by zero"):
        env.reset(0)
    monkeypatch.setattr(smac.env.StarCraft2Env, "__init__", lambda self, **options: 1 / 0)
    assert refusal() == "env.name is 3m, and making it with SMAC fails: ZeroDivisionError: division by zero"


def test_training_goes_through_deaths_masks_and_interruptions():
    """A team of three trains on battles of 12 steps; what is interrupted goes on with a fresh battle."""
    from matwm.trainer import build_trainer
    from tests.matwm.tiny import run, tiny_config

    config = tiny_config({"env.family": "smac", "env.name": "3m", "env.options": {"max_steps": 12}})
    trainer = run(build_trainer(config), 40)
    assert trainer.spec.resume == "episode"
    assert np.isfinite(trainer.history.metrics["world_model/total"][-1][1])
    assert len(trainer.history.metrics["episode/win"]) == len(trainer.history.episodes) > 2
    again = build_trainer(config)
    again.load(trainer.parts())
    assert again.collector.given_up == ([len(trainer.history.episodes)] if trainer.env.tick is not None else [])
    assert run(again, 9).env_step == 49
