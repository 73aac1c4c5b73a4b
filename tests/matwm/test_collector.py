from dataclasses import replace

import numpy as np
import pytest

from matwm.acting import random_actions
from matwm.collector import Collector
from matwm.envs.episode_log import EpisodeLog
from matwm.history import Episode
from matwm.replay import Replay
from matwm.rng import generator_for, seed_for
from matwm.stateful import fingerprint
from matwm.types import NO_ACTION
from tests.matwm.tiny import tiny_config
from tests.matwm.toy_envs import CounterEnv, ForgetfulCounterEnv, RingEnv

SEED = 5


def make_collector(env=None, *, acting_context=3):
    log = EpisodeLog(env or CounterEnv())
    return Collector(log, Replay(log.spec, tiny_config().replay), seed=SEED, acting_context=acting_context)


def play(collector, steps, start=0):
    """Play at random; the numbers depend on the step alone, as in training."""
    episodes = []
    for step in range(start, start + steps):
        rng = generator_for(SEED, "test", step)
        episode = collector.step(lambda context, mask, rng=rng: random_actions(rng, mask), env_step=step + 1)
        episodes += [episode] if episode else []
    return episodes


def rows(collector, count):
    replay = collector.replay
    at = np.arange(replay.total_rows - count, replay.total_rows) % replay._storage
    return {name: array[at] for name, array in replay._rows.items()}


def test_observation_action_and_reward_stand_beside_each_other():
    """obs = t and reward = 10 t + a + 1000 i: one row late anywhere and the sum does not come out."""
    collector = make_collector(CounterEnv(length=5))
    play(collector, 10)
    stored = rows(collector, 12)
    assert stored["obs"][:, 0, 0].tolist() == [0, 1, 2, 3, 4, 5] * 2
    acted = stored["action"][:, 0] != NO_ACTION
    assert acted.tolist() == ([True] * 5 + [False]) * 2
    expected = 10 * stored["obs"][..., 0] + stored["action"] + [0, 1000]
    assert np.array_equal(stored["reward"][acted], expected[acted])
    assert not stored["reward"][~acted].any()
    for row in np.flatnonzero(acted):
        assert stored["action_mask"][row, range(2), stored["action"][row]].all()
    assert stored["is_first"].tolist() == ([True] + [False] * 5) * 2
    assert stored["is_last"].tolist() == ([False] * 5 + [True]) * 2
    assert (stored["action"][~acted] == NO_ACTION).all()


@pytest.mark.parametrize("ends", [(True, True), (False, False), (True, False)])
def test_a_time_limit_is_stored_as_no_termination_and_an_ending_as_one(ends):
    collector = make_collector(CounterEnv(length=3, ends=ends))
    play(collector, 3)
    stored = rows(collector, 4)
    assert stored["terminated"][2].tolist() == stored["terminated"][3].tolist() == list(ends)
    assert not stored["terminated"][:2].any()
    assert stored["alive"][3].tolist() == [all(ends) or not end for end in ends], "who ends with the episode sees what it ended with"


def test_returns_add_up_every_reward_also_the_last():
    collector = make_collector(CounterEnv(length=4))
    episodes = play(collector, 8)
    assert [(episode.end_step, episode.length) for episode in episodes] == [(4, 4), (8, 4)]
    reward = rows(collector, 10)["reward"]
    assert episodes[0].returns == tuple(reward[:5].sum(0).tolist())
    assert episodes[1].returns == tuple(reward[5:].sum(0).tolist())


def test_every_episode_has_its_own_seed_which_does_not_depend_on_the_past():
    class Spy(RingEnv):
        seeds: list[int] = []

        def reset(self, seed):
            self.seeds.append(seed)
            return super().reset(seed)

    Spy.seeds = []
    play(make_collector(Spy(length=2)), 6)
    first = list(Spy.seeds)
    Spy.seeds = []
    play(make_collector(Spy(length=2)), 6, start=100)
    assert Spy.seeds == first
    assert len(set(first)) == 3


def test_contexts_hold_the_running_episode_alone():
    collector = make_collector(CounterEnv(length=3), acting_context=8)
    lengths, clocks = [], []

    def choose(context, mask):
        windows = context.windows()
        lengths.append(windows.obs.shape[1])
        clocks.append(windows.obs[0, :, 0].tolist())
        return random_actions(generator_for(0, "t", len(lengths)), mask)

    for step in range(7):
        collector.step(choose, env_step=step + 1)
    assert lengths == [1, 2, 3, 1, 2, 3, 1]
    assert clocks[4] == [0.0, 1.0]


@pytest.mark.parametrize("steps", [0, 1, 3, 4, 5, 11])
def test_a_restored_collector_goes_on_the_same(steps):
    """At the start, within an episode, with fewer and more rows than the context holds, and between episodes."""

    def state(collector):
        return fingerprint({"replay": collector.replay.state_dict(), "collector": collector.state_dict()})

    whole = make_collector(CounterEnv(length=5))
    play(whole, steps)
    saved_replay, saved = whole.replay.state_dict(), whole.state_dict()
    again = make_collector(CounterEnv(length=5))
    again.replay.load_state_dict(saved_replay)
    again.load_state_dict(saved)
    seen = [[], []]
    for step in range(steps, steps + 7):
        for collector, views in zip((whole, again), seen, strict=True):

            def choose(context, mask, into=views, step=step):
                windows = context.windows()
                into.append((windows.obs.tolist(), windows.action.tolist()))
                return random_actions(generator_for(SEED, "test", step), mask)

            collector.step(choose, env_step=step + 1)
    assert seen[0] == seen[1]
    assert state(whole) == state(again)


def test_an_environment_that_does_not_replay_is_refused():
    collector = make_collector(CounterEnv(length=5))
    play(collector, 3)
    again = make_collector(CounterEnv(length=2))
    again.replay.load_state_dict(collector.replay.state_dict())
    with pytest.raises(ValueError, match="did not lead to the saved state"):
        again.load_state_dict(collector.state_dict())


@pytest.mark.parametrize("steps", [0, 5, 7])
def test_an_environment_that_cannot_come_back_begins_its_next_episode(steps):
    """Two steps into the second episode its last row is cut: obs 6 rows of the first, t = 0 and 1 of the second, then the third."""
    collector = make_collector(ForgetfulCounterEnv())
    play(collector, steps)
    again = make_collector(ForgetfulCounterEnv())
    again.replay.load_state_dict(collector.replay.state_dict())
    again.load_state_dict(collector.state_dict())
    is_lost = steps == 7
    assert (again.given_up, again.num_episodes) == ([1] if is_lost else [], steps // 5 + is_lost)
    assert ("given_up" in again.state_dict()) == is_lost
    (episode,) = play(again, 5, start=steps)
    assert episode.length == 5
    stored = rows(again, again.replay.total_rows)
    if is_lost:
        assert stored["obs"][:, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 0, 1, 2, 3, 4, 5]
        assert stored["is_last"].nonzero()[0].tolist() == [5, 7, 13]
        assert stored["is_first"].nonzero()[0].tolist() == [0, 6, 8]
        third = seed_for(SEED, "episode", 2) % 2**31 % 7
        assert (stored["obs"][8:, 1, 2] == third).all(), "the episode that was given up does not begin again"
        later = make_collector(ForgetfulCounterEnv())
        later.replay.load_state_dict(again.replay.state_dict())
        later.load_state_dict(again.state_dict())
        assert later.given_up == [1]


def test_what_the_environment_says_of_an_episode_is_handed_on():
    class Winning(CounterEnv):
        def step(self, actions):
            tick = super().step(actions)
            return replace(tick, metrics={"win": 1.0}) if tick.is_over else tick

    (episode,) = play(make_collector(Winning(length=2)), 2)
    assert episode.metrics == {"win": 1.0}
    assert episode == Episode(2, 2, episode.returns)


def test_a_row_knows_who_was_alive():
    class Deadly(CounterEnv):
        def _tick(self, reward):
            tick = super()._tick(reward)
            dead = np.array([self._t >= 2, False])
            return replace(tick, terminated=tick.terminated | dead, alive=tick.alive & ~dead)

    collector = make_collector(Deadly(length=4, ends=(False, False)))
    play(collector, 4)
    stored = rows(collector, 5)
    assert stored["alive"].T.tolist() == [[True, True, False, False, False], [True] * 5]
    assert stored["terminated"].T.tolist() == [[False, True, True, True, True], [False] * 5]
