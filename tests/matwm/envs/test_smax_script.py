"""The heuristic of SMAX plays our units as well as it is known to."""

import numpy as np
import pytest

from matwm import scenarios
from matwm.config import EnvConfig
from matwm.envs import is_installed
from matwm.envs.scripted import LineUp, opponents, references, scripts
from matwm.evaluation import reference_lines

pytestmark = pytest.mark.skipif(not is_installed("smax"), reason=scenarios.family("smax").install)
BATTLE = EnvConfig(family="smax", name="2m_vs_1z", options={})


def test_lines_of_a_battle_are_random_play_and_the_heuristic():
    assert [line_up.name for line_up in references(BATTLE)] == ["random", "heuristic"]
    assert opponents(BATTLE) == []


def test_two_marines_that_play_by_it_win_what_random_play_loses():
    lines = {result.matchup: result.metrics["win"].mean for result in reference_lines(BATTLE, episodes=6, first_seed=10_000)}
    assert lines == {"random": 0.0, "heuristic": 1.0}


def test_it_stops_where_its_rule_is_not_legal():
    spec = next(iter(reference_lines(BATTLE, episodes=2, first_seed=0, line_ups=[LineUp(("random",))]))).spec
    unit = scripts(BATTLE, spec, LineUp(("heuristic",)))[0]
    obs = np.zeros((4, spec.obs_size), np.float32)
    mask = np.zeros((4, spec.action_size), bool)
    mask[:, 4] = True
    assert unit.act(obs, mask, np.random.default_rng(0)).tolist() == [4] * 4
