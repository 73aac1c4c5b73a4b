import numpy as np
import pytest

from matwm.types import EnvSpec, Tick

SPEC = EnvSpec("mixed", ("wolf_0", "wolf_1", "grey_sheep_0", "dog"), (4, 2, 3, 1), (5, 2, 3, 3))


def test_mates_are_the_others_in_index_order():
    assert [SPEC.mates(agent) for agent in range(4)] == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    assert EnvSpec("alone", ("a",), (1,), (2,)).mates(0) == []


def test_action_words_are_cumulative():
    assert SPEC.action_offsets == (0, 5, 7, 10)
    assert SPEC.vocabulary == 13


def test_padding_is_marked():
    assert (SPEC.num_agents, SPEC.obs_size, SPEC.action_size) == (4, 4, 5)
    assert SPEC.obs_exists.sum(1).tolist() == [4, 2, 3, 1]
    assert SPEC.action_exists[1].tolist() == [True, True, False, False, False]


def test_roles_are_names_before_the_last_underscore():
    assert SPEC.roles() == {"wolf": [0, 1], "grey_sheep": [2], "dog": [3]}


@pytest.mark.parametrize(
    ("terminated", "truncated", "is_over"),
    [([0, 0], False, False), ([1, 0], False, False), ([1, 1], False, True), ([0, 0], True, True), ([1, 0], True, True)],
)
def test_an_episode_is_over_when_it_is_cut_or_nobody_is_left(terminated, truncated, is_over):
    tick = Tick(np.zeros((2, 1), np.float32), np.ones((2, 2), bool), np.zeros(2, np.float32), np.array(terminated, bool), truncated)
    assert tick.is_over is is_over
