"""`matwm eval`: returns by role with their errors, against oneself, scripts and another checkpoint."""

import json
from typing import Any

import pytest

from matwm.evaluation import evaluate
from matwm.policy import load_networks
from matwm.store import LocalStore
from tests.pipeline.lineages import Matwm
from tests.pipeline.projects import Project


def told(made: Project, matwm_in: Matwm, *arguments: str) -> Any:
    code, output, errors = matwm_in(made, "eval", *arguments, "--episodes", "4", "--json")
    assert (code, errors) == (0, "")
    return json.loads(output)


def test_it_says_what_the_evaluation_finds(made: Project, matwm_in: Matwm) -> None:
    document = told(made, matwm_in, "s00@20", "--seed", "5")
    networks = load_networks(LocalStore(made.path / "checkpoints/s00").open(20))
    found = evaluate(
        networks.world_model,
        networks.actors,
        networks.env,
        episodes=4,
        first_seed=5,
        modes=["sampled"],
        acting_context=networks.acting_context,
    )
    (matchup,) = document["matchups"]
    assert (matchup["matchup"], document["step"], document["against"]) == ("self_play", 20, None)
    for role, summary in found[0].roles.items():
        one = matchup["roles"][role]
        assert one | {"is_learned": True, "mean": summary.mean, "stderr": summary.stderr, "episodes": 4} == one
        assert one["interval"] == pytest.approx([summary.mean - 1.96 * summary.stderr, summary.mean + 1.96 * summary.stderr])


def test_a_script_plays_the_side_that_can(made: Project, matwm_in: Matwm) -> None:
    both = told(made, matwm_in, "s00@20", "--against", "random", "--mode", "greedy")
    assert [one["matchup"] for one in both["matchups"]] == ["learned_v_random", "random_v_learned"]
    (one,) = told(made, matwm_in, "s00@20", "--against", "flee")["matchups"]
    assert {role: facts["is_learned"] for role, facts in one["roles"].items()} == {"adversary": True, "agent": False}


def test_another_checkpoint_plays_the_other_side(made: Project, matwm_in: Matwm) -> None:
    ways = [told(made, matwm_in, "s00@20", "--against", "s02@60")["matchups"] for _ in range(2)]
    assert [one["matchup"] for one in ways[0]] == ["learned_v_rival", "rival_v_learned"]
    assert ways[0] == ways[1]


def test_people_get_a_table(made: Project, matwm_in: Matwm) -> None:
    code, output, _ = matwm_in(made, "eval", "s00@20", "--against", "random", "--episodes", "2")
    lines = output.splitlines()
    assert (code, lines[0]) == (0, "step 20, 2 episodes of each match-up from seed 10000, sampled")
    assert [line.split()[:2] for line in lines[2:]] == [
        *(["learned_v_random", "adversary"], ["learned_v_random", "agent"]),
        *(["random_v_learned", "adversary"], ["random_v_learned", "agent"]),
    ]
    assert [line.split()[-1] for line in lines[2:]] == ["checkpoint", "random", "random", "checkpoint"]


def test_what_nobody_can_play_is_said(made: Project, matwm_in: Matwm) -> None:
    code, output, errors = matwm_in(made, "eval", "s00@20", "--against", "dance")
    assert (code, output) == (1, "")
    assert errors.startswith("'dance' is no script of simple_tag_v3 (chase, chase_lead, flee, random, still), and as a checkpoint: ")
