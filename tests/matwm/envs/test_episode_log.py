"""An episode comes back from its seed and its actions, or not at all."""

import json

import numpy as np
import pytest

from matwm.config import EnvConfig
from matwm.envs import make_env
from matwm.envs.base import EnvError
from matwm.envs.episode_log import EpisodeLog, digest
from tests.matwm.toy_envs import AnnouncedEnv, CounterEnv, ForgetfulCounterEnv, RingEnv, SnapshotCounterEnv


def played(actions, env=None):
    log = EpisodeLog(env or CounterEnv())
    log.reset(3)
    for joint in actions:
        log.step(np.array(joint))
    return log


def test_the_state_is_the_seed_the_actions_and_a_digest_of_the_present():
    log = played([[1, 2], [0, 0]])
    tick = log.tick
    assert tick is not None
    assert tick.reward.tolist() == [10, 1010]
    assert log.state_dict() == {"seed": 3, "actions": [[1, 2], [0, 0]], "digest": digest(tick)}


def test_a_state_is_not_changed_by_what_follows():
    log = played([[1, 2]])
    state = log.state_dict()
    log.step(np.array([0, 0]))
    assert state["actions"] == [[1, 2]]


def test_a_state_survives_json_and_leads_to_the_same_future():
    log = played([[1, 2], [0, 0]])
    other = EpisodeLog(CounterEnv())
    tick = other.load_state_dict(json.loads(json.dumps(log.state_dict())))
    assert tick is other.tick
    assert digest(tick) == digest(log.tick)
    assert digest(other.step(np.array([1, 1]))) == digest(log.step(np.array([1, 1])))
    assert other.state_dict() == log.state_dict()


def test_a_finished_episode_comes_back_finished_until_it_is_forgotten():
    log = played([[1, 1], [0, 0]], CounterEnv(length=2))
    tick = EpisodeLog(CounterEnv(length=2)).load_state_dict(log.state_dict())
    assert tick is not None
    assert tick.is_over
    log.end()
    assert log.tick is None
    assert log.state_dict() == {"seed": None}


def test_between_episodes_there_is_nothing_to_bring_back():
    log = played([[1, 1]])
    assert log.load_state_dict({"seed": None}) is None
    assert log.state_dict() == {"seed": None}
    with pytest.raises(RuntimeError, match="reset"):
        log.step(np.array([0, 0]))


def test_a_refused_action_is_not_remembered():
    log = played([])
    with pytest.raises(ValueError, match="illegal"):
        log.step(np.array([0, 1]))
    assert log.state_dict()["actions"] == []


@pytest.mark.parametrize(
    "change", [{"seed": 4}, {"digest": "0" * 64}, {"actions": [[1, 1]]}, {"actions": [[1, 2], [0, 0], [1, 1], [0, 1], [1, 0], [0, 0]]}]
)
def test_a_state_that_does_not_replay_to_its_digest_is_refused(change):
    log = played([[1, 2], [0, 0]])
    with pytest.raises(ValueError, match="did not lead to the saved state"):
        log.load_state_dict({**log.state_dict(), **change})
    assert log.tick is None


@pytest.mark.parametrize(
    ("env", "lacking"),
    [
        (CounterEnv, "digest"),
        (CounterEnv, "actions"),
        (CounterEnv, "seed"),
        (ForgetfulCounterEnv, "lost_steps"),
        (ForgetfulCounterEnv, "seed"),
    ],
)
def test_a_state_of_which_a_part_is_missing_is_refused(env, lacking):
    log = played([[1, 2]], env())
    state = {part: value for part, value in log.state_dict().items() if part != lacking}
    with pytest.raises(ValueError, match=f"the saved episode of counter has no {lacking}"):
        log.load_state_dict(state)
    assert log.tick is None


def test_a_snapshot_is_restored_and_not_played_again():
    log = played([[1, 2], [0, 0]], SnapshotCounterEnv())
    state = json.loads(json.dumps(log.state_dict()))
    assert state["snapshot"] == {"t": 2, "seed": 3, "reward": [10.0, 1010.0]}

    class Unplayable(SnapshotCounterEnv):
        def reset(self, seed):
            raise AssertionError("nothing is to be played")

    other = EpisodeLog(Unplayable())
    assert digest(other.load_state_dict(state)) == digest(log.tick)
    assert other.state_dict() == log.state_dict()
    assert digest(other.step(np.array([1, 1]))) == digest(log.step(np.array([1, 1])))
    state["snapshot"]["t"] = 1
    with pytest.raises(ValueError, match="restoring 2 steps of counter from seed 3 did not lead to the saved state"):
        other.load_state_dict(state)
    assert other.tick is None


def test_an_episode_that_cannot_come_back_is_given_up_aloud(caplog):
    log = played([[1, 2], [0, 0]], ForgetfulCounterEnv())
    assert log.state_dict() == {"seed": 3, "lost_steps": 2}
    other = EpisodeLog(ForgetfulCounterEnv())
    assert other.load_state_dict(log.state_dict()) is None
    assert "2 steps old, is given up and a fresh one begins; the run is continued, not reproduced bit for bit" in caplog.text
    caplog.clear()
    assert other.load_state_dict({"seed": None}) is None
    assert not caplog.text


def test_an_episode_saved_before_the_environment_said_so_is_given_up_as_well(caplog):
    assert EpisodeLog(ForgetfulCounterEnv()).load_state_dict(played([[1, 2], [0, 0]]).state_dict()) is None
    assert "2 steps old, is given up" in caplog.text


def test_an_action_that_has_become_illegal_is_another_environment():
    log = played([[1, 2]])
    state = log.state_dict()
    with pytest.raises(ValueError, match="did not lead to the saved state"):
        log.load_state_dict({**state, "actions": [[0, 2]]})


def test_an_environment_that_fails_when_it_is_played_again_says_so_itself():
    class Unplayable(CounterEnv):
        def reset(self, seed):
            raise EnvError("the simulator is gone")

    log = EpisodeLog(Unplayable())
    with pytest.raises(EnvError, match="^the simulator is gone"):
        log.load_state_dict(played([[1, 2]]).state_dict())
    assert log.tick is None


def test_other_options_are_noticed():
    def make(**options):
        return EpisodeLog(make_env(EnvConfig(family="mpe", name="simple_spread_v3", options=options)))

    log = make(max_cycles=4)
    log.reset(0)
    log.step(np.array([1, 2, 3]))
    make(max_cycles=4).load_state_dict(log.state_dict())
    with pytest.raises(ValueError, match="same env options"):
        make(max_cycles=4, local_ratio=0.25).load_state_dict(log.state_dict())


def test_a_digest_sees_every_part_of_a_tick():
    tick = CounterEnv().reset(0)
    changed = [
        {"obs": tick.obs + 1},
        {"action_mask": ~tick.action_mask},
        {"reward": tick.reward + 1},
        {"terminated": ~tick.terminated},
        {"truncated": True},
        {"alive": ~tick.alive},
        {"metrics": {"win": 1.0}},
    ]
    assert len({digest(tick)} | {digest(type(tick)(**{**vars(tick), **change})) for change in changed}) == 1 + len(changed)


def test_the_toy_environments_do_what_they_say():
    counter = CounterEnv(length=2, ends=(True, False))
    assert counter.reset(8).obs.tolist() == [[0, 0, 0, 0], [0, 1, 1, -1]]
    assert counter.step(np.array([1, 2])).reward.tolist() == [1, 1002]
    last = counter.step(np.array([0, 2]))
    assert (last.terminated.tolist(), last.truncated, last.is_over) == ([True, False], True, True)

    ring = RingEnv(cells=5)
    offset = int(ring.reset(1).obs[0].argmax())
    for _ in range(offset):
        tick = ring.step(np.array([2, 0]))
    assert tick.reward.tolist() == [1, 1]
    assert ring.step(np.array([0, 0])).reward.tolist() == [1, 1]
    assert ring.step(np.array([0, 1])).obs.argmax(1).tolist() == [4, 1]

    announced = AnnouncedEnv()
    tick = announced.reset(2)
    joint = announced.announced
    assert tick.obs.reshape(3, 2, 4).argmax(2).tolist() == [[joint[1], joint[2]], [joint[0], joint[2]], [joint[0], joint[1]]]
    assert announced.step(joint).reward.tolist() == joint.tolist()
