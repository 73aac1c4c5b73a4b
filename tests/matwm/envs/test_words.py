"""Where goals and words stand in observations and actions is what the environments do with them."""

import numpy as np
import pytest

from matwm.config import EnvConfig
from matwm.envs import make_env
from matwm.envs.base import Env
from matwm.envs.words import CHANNELS, Channel, channels

BY_NAME = [pytest.param(name, channel, id=f"{name}-{channel.speaker}") for (_, name), known in CHANNELS.items() for channel in known]
RETURN_OF_DISTANCE = {"simple_speaker_listener_v4": np.square, "simple_reference_v3": np.abs}


def environment(name: str) -> Env:
    own_reward_alone = {"local_ratio": 1.0} if name == "simple_reference_v3" else {}
    return make_env(EnvConfig(family="mpe", name=name, options=own_reward_alone))


def numbers(env: Env, channel: Channel) -> tuple[int, int]:
    return env.spec.agents.index(channel.speaker), env.spec.agents.index(channel.listener)


@pytest.mark.parametrize(("name", "channel"), BY_NAME)
def test_a_word_is_heard_at_the_next_step(name: str, channel: Channel) -> None:
    env, rng = environment(name), np.random.default_rng(0)
    speaker, listener = numbers(env, channel)
    assert not env.reset(3).obs[listener, channel.heard].any()
    said = []
    for _ in range(20):
        actions = rng.integers(env.spec.num_actions)
        said.append(int(channel.words(actions[speaker])))
        assert env.step(actions).obs[listener, channel.heard].tolist() == np.eye(channel.num_words)[said[-1]].tolist()
    assert len(set(said)) > 1
    assert env.spec.num_actions[speaker] == channel.moves * channel.num_words


@pytest.mark.parametrize(("name", "channel"), BY_NAME)
def test_the_goal_is_the_landmark_that_the_speakers_reward_is_about(name: str, channel: Channel) -> None:
    env, found = environment(name), set()
    speaker, listener = numbers(env, channel)
    for seed in range(20):
        goal = channel.goals_seen(env.reset(seed).obs[[speaker]])[0]
        tick = env.step(np.zeros(env.spec.num_agents, int))
        places = tick.obs[listener, channel.places].reshape(-1, 2)
        distance = np.linalg.norm(places, axis=1)
        assert tick.reward[speaker] == pytest.approx(-RETURN_OF_DISTANCE[name](distance[goal]), rel=1e-5)
        assert channel.nearest(tick.obs[[listener]]) == distance.argmin()
        found.add(int(goal))
    assert found == set(range(len(channel.goals)))


@pytest.mark.parametrize(("name", "channel"), BY_NAME)
def test_a_speaker_that_is_shown_another_goal_sees_what_it_would_see_of_that_one(name: str, channel: Channel) -> None:
    env = environment(name)
    speaker, _ = numbers(env, channel)
    seen = np.stack([env.reset(seed).obs[speaker] for seed in range(12)])
    goals = channel.goals_seen(seen)
    real = {goal: row[channel.goal].tolist() for goal, row in zip(goals.tolist(), seen, strict=True)}
    shown = channel.showing(seen, (goals + 1) % 3)
    assert [row[channel.goal].tolist() for row in shown] == [real[(goal + 1) % 3] for goal in goals.tolist()]
    assert np.array_equal(channel.showing(shown, goals), seen)
    elsewhere = np.delete(np.arange(seen.shape[1]), np.arange(seen.shape[1])[channel.goal])
    assert np.array_equal(shown[:, elsewhere], seen[:, elsewhere])


def test_most_scenarios_have_no_words() -> None:
    assert channels(EnvConfig(family="mpe", name="simple_tag_v3", options={})) == ()
