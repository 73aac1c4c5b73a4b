"""What words say of goals, and what listeners make of them: counted by hand, and of scripts that speak or do not."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from matwm.actor_critic import Actors
from matwm.communication import Communication, other_goals, word_counts
from matwm.config import EnvConfig
from matwm.envs import words
from matwm.envs.scripted import LineUp
from matwm.evaluation import Result, evaluate, reference_lines
from matwm.trainer import Trainer, build_trainer
from tests.matwm.test_evaluation import always, tiny

torch.set_num_threads(1)

SPEAKER_LISTENER, REFERENCE = "simple_speaker_listener_v4", "simple_reference_v3"
(CHANNEL,) = words.CHANNELS["mpe", SPEAKER_LISTENER]
MOVING, _ = words.CHANNELS["mpe", REFERENCE]
EPISODES, STEPS, FIRST_SEED = 12, 60, 20
"""Steps enough for everybody to arrive, in episodes without two landmarks at nearly one place."""


def communication(counts: Sequence[Sequence[int]], **given: Sequence[float]) -> Communication:
    values = {name: np.array(given.get(name, [0, 0])) for name in ("goals", "ends", "swapped_goals", "swapped_ends", "swapped_returns")}
    return Communication(CHANNEL, np.array(counts), **values)


def scripts_alone(name: str, tactic: str, episodes: int = EPISODES) -> Result:
    env = EnvConfig(family="mpe", name=name, options={"max_cycles": STEPS})
    (result,) = reference_lines(env, episodes=episodes, first_seed=FIRST_SEED, line_ups=[LineUp((tactic,))])
    return result


def entropy(goals: np.ndarray) -> float:
    shares = np.bincount(goals) / len(goals)
    return float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())


def test_words_are_counted_by_the_goal_of_their_episode_until_it_ends() -> None:
    actions = np.array([[0, 7, 9, -1], [49, 48, 3, 3]])  # words 0, 1, 1, and 9, 9, 0, 0
    counts = word_counts(MOVING, np.array([2, 0]), actions)
    expected = np.zeros((3, 10), int)
    expected[2, :2] = 1, 2
    expected[0, [0, 9]] = 2
    assert counts.tolist() == expected.tolist()


def test_information_is_what_one_works_out_by_hand() -> None:
    # Two goals as often as each other, of which the word tells one in three of four cases.
    unsure = communication([[3, 1, 0], [1, 3, 0], [0, 0, 0]])
    assert unsure.information == pytest.approx(0.75 * np.log(1.5) + 0.25 * np.log(0.5))
    assert unsure.information_share == pytest.approx(unsure.information / np.log(2))
    assert np.array_equal(unsure.shares, [[0.75, 0.25, 0], [0.25, 0.75, 0], [np.nan] * 3], equal_nan=True)
    # Two words for the same goal say no more than one.
    assert communication([[2, 2, 0], [0, 0, 4], [0, 0, 0]]).information == pytest.approx(np.log(2))
    assert communication([[2, 4, 0], [1, 2, 0], [1, 2, 0]]).information == pytest.approx(0.0, abs=1e-12)
    only_one = communication([[2, 2, 0], [0, 0, 0], [0, 0, 0]])
    assert (only_one.information, only_one.information_share) == (0.0, None)


def test_a_listener_is_where_it_should_be_or_where_it_was_sent() -> None:
    found = communication(
        [[1, 0, 0]] * 3, goals=[0, 1, 2, 2], ends=[0, 1, 0, 2], swapped_goals=[1, 2, 0, 1], swapped_ends=[1, 1, 0, 0],
        swapped_returns=[1.0, 2.0, 3.0, 10.0],
    )  # fmt: skip
    assert (found.reached, found.swapped_reached, found.swapped_followed) == (0.75, 0.25, 0.5)
    assert found.swapped_return == (4.0, pytest.approx((50 / 3) ** 0.5 / 2))


def test_every_other_goal_takes_the_place_of_one_equally_often() -> None:
    assert other_goals(CHANNEL, np.array([0, 0, 1, 1, 2, 2]), np.arange(6)).tolist() == [1, 2, 2, 0, 0, 1]


@pytest.mark.parametrize(("name", "talking"), [(SPEAKER_LISTENER, "say_and_go"), (REFERENCE, "tell_and_go")])
def test_who_says_the_goal_tells_all_of_it_and_sends_the_listener_where_it_says(name: str, talking: str) -> None:
    result = scripts_alone(name, talking)
    assert [one.channel for one in result.communication] == list(words.CHANNELS["mpe", name])
    for one in result.communication:
        times = STEPS * np.bincount(one.goals, minlength=3)
        assert one.counts[:, :3].tolist() == np.diag(times).tolist()
        assert not one.counts[:, 3:].any()
        assert one.information == pytest.approx(entropy(one.goals))
        assert one.information_share == pytest.approx(1.0)
        assert (one.reached, one.swapped_followed, one.swapped_reached) == (1.0, 1.0, 0.0)
        assert (one.swapped_goals != one.goals).all()
        assert one.swapped_return[0] < result.agents[one.channel.listener].mean - 5


def test_words_that_are_the_same_for_all_goals_say_nothing_and_nobody_notices_other_ones() -> None:
    result = scripts_alone(SPEAKER_LISTENER, "wait_between")
    (one,) = result.communication
    assert one.counts[:, 0].tolist() == (STEPS * np.bincount(one.goals, minlength=3)).tolist()
    assert (one.information, one.information_share) == (0.0, 0.0)
    assert np.array_equal(one.ends, one.swapped_ends)
    assert np.array_equal(one.swapped_returns, result.returns[:, 1])


def judged(trainer: Trainer, actors: Actors, mode: str) -> Result:
    (result,) = evaluate(
        trainer.learner.world_model, actors, trainer.config.env,
        episodes=5, first_seed=7, modes=[mode], acting_context=4,
    )  # fmt: skip
    return result


def test_learned_policies_are_judged_as_before_where_their_words_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = build_trainer(tiny(SPEAKER_LISTENER))
    with_words = judged(trainer, trainer.learner.actors, "sampled")
    (one,) = with_words.communication
    assert one.counts.sum(1).tolist() == (6 * np.bincount(one.goals, minlength=3)).tolist()
    said = [np.bincount(with_words.actions[one.goals == goal, :, 0].ravel(), minlength=3) for goal in range(3)]
    assert one.counts.tolist() == np.array(said).tolist()
    monkeypatch.setattr(words, "CHANNELS", {})
    without = judged(trainer, trainer.learner.actors, "sampled")
    assert without.communication == ()
    assert np.array_equal(with_words.actions, without.actions)
    assert np.array_equal(with_words.returns, without.returns)


def test_a_learned_speaker_that_sees_another_goal_draws_what_it_would_have_drawn() -> None:
    """So that only what its words say can change what the listener does: here, nothing."""
    trainer = build_trainer(tiny(SPEAKER_LISTENER))
    result = judged(trainer, always(trainer.spec, trainer, [2, 1]), "greedy")
    (one,) = result.communication
    assert one.counts[:, :2].sum() == 0
    assert np.array_equal(one.ends, one.swapped_ends)
    assert np.array_equal(one.swapped_returns, result.returns[:, 1])


def test_who_has_no_words_is_played_once() -> None:
    (result,) = reference_lines(
        EnvConfig(family="mpe", name="simple_spread_v3", options={}), episodes=2, first_seed=0, line_ups=[LineUp(("still",))]
    )
    assert result.communication == ()
