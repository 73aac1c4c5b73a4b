"""An environment of one's own may do to its process what it likes: it is closed, it comes back or is named, and nothing else notices."""

import contextlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from matwm.config import EnvConfig
from matwm.envs import make_env
from matwm.envs.base import EnvError
from matwm.envs.episode_log import EpisodeLog
from matwm.envs.guest import Stay
from matwm.envs.probe import probe, tried
from matwm.evaluation import reference_lines
from matwm.trainer import build_trainer
from tests.matwm.envs.guests import alive
from tests.matwm.tiny import tiny_config

MODULE = "tests.matwm.envs.guests"


@pytest.fixture(autouse=True)
def notes(tmp_path, monkeypatch):
    path = tmp_path / "notes"
    path.touch()
    monkeypatch.setenv("NOTES", str(path))
    yield path
    for pid in alive(path):
        os.kill(pid, signal.SIGKILL)


def config(name, seconds=300.0, **options):
    return EnvConfig(family="pettingzoo", name=f"{MODULE}:{name}", options=options, seconds_per_call=seconds)


def actions(tick):
    return np.array([np.flatnonzero(legal)[0] for legal in tick.action_mask])


def episode(env, seed):
    tick = env.reset(seed)
    seen = [tick.obs]
    while not tick.is_over:
        tick = env.step(actions(tick))
        seen.append(tick.obs)
    return np.stack(seen)


# Closing


def test_one_is_closed_before_the_next_is_made(notes):
    env = make_env(config("OwnsProcess"))
    for seed in range(3):
        env.reset(seed)
        assert len(alive(notes)) == 1
    env.close()
    assert (alive(notes), len(notes.read_text(encoding="utf-8").split())) == ([], 4)
    env.close()


@pytest.mark.parametrize("name", ["FailsToReset", "FailsToStep"])
def test_one_that_fails_is_closed(notes, name):
    with pytest.raises(EnvError, match="no licence"):
        tried(config(name))
    assert notes.read_text(encoding="utf-8")
    assert not alive(notes)


def test_probe_evaluation_and_training_leave_none_behind(notes):
    own = config("OwnsProcess")
    probe(own)
    reference_lines(own, episodes=3, first_seed=0)
    trainer = build_trainer(tiny_config().model_copy(update={"env": own}))
    trainer.close()
    with pytest.raises(ValueError, match="action_factors"):
        build_trainer(tiny_config({"actor_critic.action_factors": [2, 2]}).model_copy(update={"env": own}))
    assert len(notes.read_text(encoding="utf-8").split()) > 10
    assert not alive(notes)


@pytest.mark.parametrize(
    ("name", "why"), [("FailsToClose", "RuntimeError: it was closed before"), ("ExitsAtClose", "it calls sys.exit(0)")]
)
def test_what_close_raises_is_logged(name, why, caplog):
    make_env(config(name)).close()
    assert caplog.messages == [f"close() of {MODULE}:{name} fails: {why}"]


def test_one_of_which_there_may_be_one_is_played_one_at_a_time(notes):
    single = config("Single")
    assert probe(single).one_at_a_time
    assert reference_lines(single, episodes=3, first_seed=0)[0].returns.shape == (3, 2)
    with pytest.raises(EnvError, match="evaluation plays up to 50 side by side: .* metadata = {'one_at_a_time': True}"):
        reference_lines(config("SingleAndSilent"), episodes=3, first_seed=0)
    assert not Path(f"{notes}.lock").exists()
    judged = tiny_config({"evaluation.interval": 10}).model_copy(update={"env": single})
    with pytest.raises(ValueError, match="evaluation.interval is 10, but .*Single is one of which only one can be open at a time"):
        build_trainer(judged)
    assert not Path(f"{notes}.lock").exists()


def test_none_quits_pygame_for_the_others():
    envs = [make_env(EnvConfig(family="pettingzoo", name="mpe2.simple_tag_v3:parallel_env", options={}), render=True) for _ in range(2)]
    for env in envs:
        env.reset(0)
    before = envs[1].render()
    envs[0].render()
    envs[0].close()
    assert np.array_equal(envs[1].render(), before)


# The probe


@pytest.mark.parametrize("name", ["SharesOutput", "Leaves", "LeavesThread"])
def test_what_an_environment_leaves_in_its_probe_does_not_hold_it(notes, name):
    assert probe(config(name)).agents == ("left", "right")
    while alive(notes):  # They were told to end.
        pass


def test_another_order_of_hashes_is_noticed_in_another_process():
    with pytest.raises(EnvError, match=r"another process plays it from the same seed .* order of a set, on hash\(\)"):
        probe(EnvConfig(family="pettingzoo", name="tests.matwm.envs.mistakes:Hashes", options={}))


def test_one_that_hangs_in_the_probe_is_named():
    with pytest.raises(EnvError, match=r"^env\.name is .*Hangs: step\(\) of .*Hangs has not come back after 0\.5 s: .*seconds_per_call$"):
        probe(config("Hangs", 0.5))


def test_a_probe_ends_with_who_asked_for_it(notes):
    code = f"from {__name__} import config, probe; probe(config('HangsBesideAProcess'))"
    asking = subprocess.Popen([sys.executable, "-c", code])
    while not alive(notes):
        assert asking.poll() is None
    asking.kill()
    asking.wait()
    while alive(notes):
        pass


# Calls that do not come back


@pytest.mark.parametrize(
    ("call", "told"),
    [("making", "making "), ("reset", "reset() of "), ("step", "step() of "), ("render", "render() of "), ("close", "close() of ")],
)
def test_a_call_that_does_not_come_back_is_named(call, told):
    def play():
        with contextlib.closing(make_env(config("Hangs", 0.5, call=call), render=True)) as env:
            env.step(actions(env.reset(0)))
            env.render()

    with pytest.raises((EnvError, RuntimeError)) as caught:
        play()
    assert f"{told}{MODULE}:Hangs has not come back after 0.5 s: if it needs longer, raise env.seconds_per_call" in str(caught.value)


def test_one_that_swallows_that_takes_the_process_with_it():
    code = (
        f"from matwm.envs import guest, make_env; from {__name__} import config; guest.PATIENCE_SECONDS = 0.5; "
        "make_env(config('Hangs', 0.5, call='reset', swallows=True))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"reset() of {MODULE}:Hangs has not come back after 0.5 s: if it needs longer, raise env.seconds_per_call\n"


def test_the_limit_is_no_part_of_what_trains():
    own = tiny_config()
    other = tiny_config({"env.seconds_per_call": 5.0})
    assert (own.env.seconds_per_call, other.env.seconds_per_call) == (300.0, 5.0)
    assert own.shaping() == other.shaping()
    assert other.shaped_by(own.shaping())["env"]["seconds_per_call"] == 5.0


# What belongs to everybody


def state():
    settings = (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), np.geterr(), Path.cwd())
    return (
        settings,
        torch.get_rng_state().tolist(),
        [signal.getsignal(n) for n in signal.valid_signals() if n not in (signal.SIGKILL, signal.SIGSTOP)],
    )


@pytest.mark.parametrize("name", ["Rearranges", "SeedsAll", "DeletesItsFolder"])
def test_what_it_changes_of_the_process_is_there_only_while_it_is_called(name):
    before = state()
    with contextlib.closing(make_env(config(name))) as env:
        tick = env.reset(7)
        assert state() == before
        env.step(actions(tick))
        assert state() == before


def test_pythons_numbers_come_back_too():
    """Here, with nothing around that checks types: it draws them."""
    stay, before = Stay(0), random.getstate()
    with stay.visit("this", 300.0):
        random.seed(3)
        first = random.random()
    assert random.getstate() == before
    with stay.visit("this", 300.0):
        second = random.random()
    theirs = random.Random(3)
    assert [first, second] == [theirs.random(), theirs.random()]
    assert random.getstate() == before


@pytest.mark.parametrize("name", ["SeedsAll", "SeedsNothing"])
def test_global_random_numbers_are_its_own_and_follow_from_the_seed(name):
    alone, other, third = (make_env(config(name)) for _ in range(3))
    expected = episode(alone, 7)
    assert not np.array_equal(expected, episode(alone, 8))
    log = EpisodeLog(other)
    seen = [log.reset(7).obs]
    third.reset(3)
    while log.tick is not None and not log.tick.is_over:
        third.step(actions(log.tick))
        torch.manual_seed(len(seen))
        random.random()
        seen.append(log.step(actions(log.tick)).obs)
    assert np.array_equal(np.stack(seen), expected)
    probe(config(name))


def test_one_that_draws_without_pairs_gets_the_numbers_that_it_would_get_alone():
    np.random.seed(7)
    alone = [np.random.randn() for _ in range(4)]
    env, other = (make_env(config("SeedsAll")) for _ in range(2))
    tick = env.reset(7)
    other.reset(8)
    after = env.step(actions(tick))
    assert np.array_equal(np.concatenate([tick.obs[:, 1], after.obs[:, 1]]), np.float32(alone))
