"""`matwm eval`: returns by role with their errors, against oneself, scripts and another checkpoint."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from matwm.evaluation import evaluate
from matwm.policy import load_networks
from matwm.store import LocalStore
from pipeline import runs
from pipeline.metrics import best
from tests.pipeline.lineages import Matwm
from tests.pipeline.projects import Project


def told(made: Project, matwm_in: Matwm, *arguments: str, log: str = "--no-log") -> Any:
    code, output, errors = matwm_in(made, "eval", *arguments, "--episodes", "4", "--json", *log.split())
    assert (code, errors) == (0, "")
    return json.loads(output)


def test_it_says_what_the_evaluation_finds(made: Project, matwm_in: Matwm) -> None:
    document = told(made, matwm_in, "s00@20", "--seed", "5")
    networks = load_networks(LocalStore(made.path / "checkpoints/s00").open(20))
    assert document["in_mlflow"] is False
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
    code, output, _ = matwm_in(made, "eval", "s00@20", "--against", "random", "--episodes", "2", "--no-log")
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


def test_its_run_gets_the_result_once(copied: Project, matwm_in: Matwm) -> None:
    """Under names that say of what it is, beside the evaluation stage's, which go on counting alone."""
    document = told(copied, matwm_in, "s01@60", log="")
    uri = runs.tracking_uri(copied.path)
    assert document["in_mlflow"] is True
    found = runs.get_run(document["run_id"], uri)
    (matchup,) = document["matchups"]
    logged = {point.key: point for point in runs.metric_history(document["run_id"], uri) if point.key.startswith("eval/")}
    above = "eval/sampled/self_play/4_from_10000/"
    assert {key: (point.step, point.value) for key, point in logged.items()} == {
        f"{above}{role}{below}": (60, one[name])
        for role, one in matchup["roles"].items()
        for name, below in (("mean", ""), ("stderr", "/stderr"))
    }
    assert found
    stage = frozenset(key for key in found.metrics if not key.startswith("eval/"))
    for objective in best.objectives(found.tags):
        counted = best.keys(found.metrics, "sampled", objective)
        assert counted and counted == best.keys(stage, "sampled", objective)
    for arguments, new in (((), 0), (("--seed", "5"), len(logged)), (("--mode", "greedy"), len(logged)), (("--seed", "5"), 0)):
        size = len(runs.metric_history(document["run_id"], uri))
        told(copied, matwm_in, "s01@60", *arguments, log="")
        assert len(runs.metric_history(document["run_id"], uri)) == size + new, arguments
    assert matwm_in(copied, "eval", "s01@60", "--episodes", "4")[1].splitlines()[-1] == (
        f"run {document['run_id'][:12]} has it already: {above}adversary"
    )
    code, output, _ = matwm_in(copied, "verify", "s01@60")
    assert code == 0, output


def test_metrics_name_the_rival_by_its_run_or_digest(copied: Project, matwm_in: Matwm, tmp_path: Path) -> None:
    document = told(copied, matwm_in, "s00@20", "--against", "s02@60", log="")
    uri = runs.tracking_uri(copied.path)
    (rival,) = [str(run.run_id) for run in runs.list_runs(uri=uri) if run.segment == "s02"]
    elsewhere = tmp_path / "elsewhere" / "step_000000060"
    shutil.copytree(copied.path / "checkpoints/s02/step_000000060", elsewhere)
    shutil.rmtree(copied.path / "metrics/s02")
    shutil.rmtree(copied.path / ".matwm")
    runs.client(uri).delete_run(rival)
    told(copied, matwm_in, "s00@20", "--against", str(elsewhere), log="")
    digest = json.loads(matwm_in(copied, "show", str(elsewhere), "--json")[1])["digest"]
    run = runs.get_run(document["run_id"], uri)
    assert run
    found = {key.split("/")[2] for key in run.metrics if key.startswith("eval/")}
    names = (f"{rival[:12]}_step_60", f"digest_{digest[:12]}")
    assert found == {f"learned_v_{name}" for name in names} | {f"{name}_v_learned" for name in names}


def test_a_store_that_refuses_costs_no_result(copied: Project, matwm_in: Matwm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's role that no metric may be called by: MLflow refuses, and the numbers are told all the same."""
    document = told(copied, matwm_in, "s01@60", log="")
    monkeypatch.setattr("pipeline.commands.eval_checkpoint.ON_DEMAND", "eval?/")
    code, output, _ = matwm_in(copied, "eval", "s01@60", "--episodes", "4", "--json")
    assert (code, json.loads(output)) == (0, document | {"in_mlflow": False})
