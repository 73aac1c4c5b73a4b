"""Words become points and come back as matrices; what is not defined is no point."""

import math

import numpy as np

from matwm.communication import Communication
from matwm.envs.words import CHANNELS
from matwm.scenarios.objective import parse
from pipeline.metrics import best, words
from pipeline.metrics.points import TimedPoint

(CHANNEL,) = CHANNELS["mpe", "simple_speaker_listener_v4"]


def communication(counts: list[list[int]], goals: list[int]) -> Communication:
    ends, elsewhere = np.array(goals), (np.array(goals) + 1) % 3
    return Communication(CHANNEL, np.array(counts), ends, ends, elsewhere, elsewhere, np.arange(len(goals), dtype=float))


def test_a_matrix_comes_back_from_its_points_without_the_goals_that_no_episode_had() -> None:
    one = communication([[3, 1, 0], [0, 0, 0], [0, 2, 6]], [0, 2, 2])
    points = words.points(40, "sampled", "self_play", [one])
    assert not any(math.isnan(point.value) for point in points)
    older = words.points(20, "sampled", "self_play", [communication([[4, 0, 0], [0, 0, 0], [0, 0, 0]], [0, 0])])
    others = words.points(40, "greedy", "self_play", [one])
    found = words.by_step([*points, *older, *others], "sampled", "self_play", "speaker_0")
    assert list(found) == [20, 40]
    matrix = words.matrix(found[40], 3, 3)
    assert np.array_equal(matrix, [[0.75, 0.25, 0], [math.nan] * 3, [0, 0.25, 0.75]], equal_nan=True)
    assert {name: found[40][name] for name in ("reached", "swapped/followed", "swapped/reached", "swapped/return", "episodes")} == {
        "reached": 1.0, "swapped/followed": 1.0, "swapped/reached": 0.0, "swapped/return": 1.0, "episodes": 3.0,
    }  # fmt: skip
    assert [found[40][f"goal_{goal}/episodes"] for goal in range(3)] == [1, 0, 2]
    assert found[20]["information"] == 0.0 and "information_share" not in found[20]
    again = words.by_step([*points, *points[:0], *words.points(40, "sampled", "self_play", [])], "sampled", "self_play", "speaker_0")
    assert again[40] == found[40]


def test_of_a_step_that_was_judged_again_the_last_counts() -> None:
    first = words.points(20, "sampled", "self_play", [communication([[4, 0, 0], [2, 2, 0], [0, 0, 0]], [0, 1])])
    second = words.points(20, "sampled", "self_play", [communication([[4, 0, 0], [0, 4, 0], [0, 0, 0]], [0, 1])])
    found = words.by_step([*first, *second], "sampled", "self_play", "speaker_0")
    assert found[20]["information_share"] == 1.0
    assert words.matrix(found[20], 3, 3)[1] == [0.0, 1.0, 0.0]


def test_people_get_matrices_with_null_for_what_was_not_there() -> None:
    told = words.for_people([communication([[3, 1, 0], [0, 0, 0], [0, 1, 2]], [0, 2, 2])], 2)
    assert told["speaker_0"]["listener"] == "listener_0"
    assert told["speaker_0"]["goals"] == ["red", "green", "blue"]
    assert told["speaker_0"]["words"] == [[0.75, 0.25, 0.0], None, [0.0, 0.33, 0.67]]
    assert told["speaker_0"]["swapped/return/stderr"] == 0.58  # 1 / 3 ** 0.5


def test_words_are_no_return_and_do_not_make_an_evaluation_the_best() -> None:
    points = words.points(20, "sampled", "self_play", [communication([[4, 0, 0], [0, 4, 0], [0, 0, 4]], [0, 1, 2])])
    timed = [TimedPoint(point.key, point.step, point.value, 0) for point in points]
    assert best.of_history([parse("self_play/speaker"), parse("self_play/words")], "sampled", timed, 0) == ()
    of_goals = [point.key for point in points if words.is_of_goal(point.key)]
    assert len(of_goals) == 3 + 9
    assert not words.is_of_goal("evaluation/sampled/self_play/goal_0")
