from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
import torch

from matwm.actor_critic.returns import lambda_returns
from matwm.types import AgentSpec, EnvSpec, Tick
from tests.matwm.tiny import repeating

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
    ("alive", "truncated", "is_over"),
    [([1, 1], False, False), ([0, 1], False, False), ([0, 0], False, True), ([1, 1], True, True), ([0, 1], True, True)],
)
def test_an_episode_is_over_when_it_is_cut_or_nobody_is_left(alive, truncated, is_over):
    nobody = np.zeros(2, bool)
    tick = Tick(
        np.zeros((2, 1), np.float32), np.ones((2, 2), bool), np.zeros(2, np.float32), nobody, truncated, alive=np.array(alive, bool)
    )
    assert tick.is_over is is_over


def test_the_facts_of_an_agent_are_its_column():
    assert SPEC.agent_specs[2] == AgentSpec("grey_sheep_0", "grey_sheep", "vector", (3,), 3, has_action_mask=False)
    assert (SPEC.obs_shape, SPEC.obs_dtype) == ((4,), np.float32)
    pictures = EnvSpec("pictures", ("a_0",), (12,), (2,), has_action_masks=True, image_shape=(3, 2, 2))
    assert pictures.agent_specs == (AgentSpec("a_0", "a", "image", (3, 2, 2), 2, has_action_mask=True),)
    assert (pictures.obs_shape, pictures.obs_dtype) == ((3, 2, 2), np.uint8)


def test_the_time_limit_is_no_part_of_what_must_agree():
    assert replace(SPEC, max_steps=7) == SPEC != replace(SPEC, resume="episode")


def test_shapes_are_checked_while_these_tests_run_but_where_they_repeat_themselves():
    row, too_long = torch.zeros(2, 3), torch.zeros(2, 5)

    def is_refused() -> bool:
        try:
            return lambda_returns(row, row, too_long, discount=0.9, lambda_=0.9).shape != row.shape
        except jaxtyping.TypeCheckError:
            return True

    assert [is_refused() for _ in repeating(3, 1)] == [True, False, False]
    assert is_refused()
