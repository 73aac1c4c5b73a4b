"""The best evaluation of a run by its objectives: worked out by hand."""

import pytest

from matwm.scenarios.objective import Objective, parse
from pipeline.catalog import overview
from pipeline.metrics import best
from pipeline.metrics.best import Best
from pipeline.metrics.points import TimedPoint
from pipeline.run import Run

TEAM = [parse("self_play/agent")]
CHASE = [parse("learned_v_random/adversary"), parse("random_v_learned/agent")]


def points(step: int, *values: float, at: int = 1000) -> list[TimedPoint]:
    return [TimedPoint(best.key("sampled", "self_play", f"agent_{number}"), step, value, at) for number, value in enumerate(values)]


def of(matchup: str, agent: str, *values: tuple[int, float], mode: str = "sampled") -> list[TimedPoint]:
    return [TimedPoint(best.key(mode, matchup, agent), step, value, 1000) for step, value in values]


def test_the_best_step_is_that_of_the_roles_highest_mean() -> None:
    history = points(10, 1.0, 3.0) + points(20, 4.0, 2.0) + points(30, 9.0, -6.0)
    assert best.of_history(TEAM, "sampled", history, 0) == (Best(20, "sampled", 3.0, "self_play/agent"),)
    least = [parse("min self_play/agent")]
    assert best.of_history(least, "sampled", history, 0) == (Best(30, "sampled", 1.5, "min self_play/agent"),)


def test_opponents_do_not_cancel_each_other() -> None:
    history = of("learned_v_random", "adversary_0", (10, 5.0), (20, 9.0)) + of("learned_v_random", "adversary_1", (10, 5.0), (20, 7.0))
    history += of("random_v_learned", "agent_0", (10, -1.0), (20, -9.0)) + of("self_play", "adversary_0", (10, 99.0), (20, 0.0))
    found = best.of_history(CHASE, "sampled", history, 0)
    assert found == (Best(20, "sampled", 8.0, "learned_v_random/adversary"), Best(10, "sampled", -1.0, "random_v_learned/agent"))
    assert best.shown(found) == "8.00 adversary, -1.00 agent"
    assert best.shown(found, with_steps=True) == "8.00 adversary at 20, -1.00 agent at 10"


def test_what_the_ancestors_reached_is_not_the_runs_own() -> None:
    history = points(10, 9.0) + points(20, 1.0)
    assert [one.step for one in best.of_history(TEAM, "sampled", history, 10)] == [20]
    assert best.of_history(TEAM, "sampled", history, 20) == ()


def test_an_evaluation_done_again_counts_and_half_a_one_does_not() -> None:
    history = points(10, 9.0, 9.0) + points(10, 1.0, 1.0, at=2000) + points(20, 5.0)
    assert best.of_history(TEAM, "sampled", history, 0) == (Best(10, "sampled", 1.0, "self_play/agent"),)


def test_the_first_mode_counts() -> None:
    names = ["evaluation/greedy/self_play/a", "evaluation/sampled/self_play/a", "evaluation/sampled/self_play/metrics/win", "x/total"]
    assert best.mode_of(names, None) == "sampled"
    assert best.mode_of(names, "greedy,sampled") == "greedy"
    assert best.mode_of(names[:1], "sampled") == "greedy"
    assert best.mode_of(["x/total"], "sampled") is None


def test_a_metric_is_called_by_its_name() -> None:
    history = of("self_play", "metrics/win", (10, 0.25), (20, 0.75), (30, 0.5)) + of("self_play", "metrics/win/stderr", (10, 9.0))
    found = best.of_history([parse("win")], "sampled", history + of("self_play", "ally_0", (10, 99.0)), 0)
    assert found == (Best(20, "sampled", 0.75, "win"),)
    assert best.shown(found) == "0.75 win"
    assert best.shown([Best(20, "greedy", -7.5, "self_play/agent")]) == "-7.50"
    assert best.shown([]) == "-"


def test_without_an_objective_there_is_no_number() -> None:
    assert best.of_history([], "sampled", points(10, 1.0), 0) == ()


def test_git_alone_knows_it_too() -> None:
    record = {"step": 80, "greedy": {"self_play": {"agent_0": {"mean": 1.0}, "agent_1": {"mean": 2.0}}, "x": {"agent_0": {"mean": 6.0}}}}
    assert best.of_record({**record, "references": {}}, TEAM) == (Best(80, "greedy", 1.5, "self_play/agent"),)
    won = {"metrics": {"greedy": {"self_play": {"win": {"mean": 0.5}}}}, **record}
    assert best.of_record(won, [parse("win")]) == (Best(80, "greedy", 0.5, "win"),)
    assert best.of_record({}, TEAM) == ()
    assert best.of_record({"step": 80, "sampled": []}, TEAM) == ()


def test_a_run_with_the_tag_needs_no_history() -> None:
    judged = (Best(20, "sampled", 8.0, "learned_v_random/adversary"),)
    run = Run("0" * 32, metrics=frozenset(["evaluation/sampled/learned_v_random/adversary_0"]), tags=best.tag(judged))
    assert overview.best_of(run) == judged  # MLflow is not configured here, and could not be asked.
    assert best.of_tags({best.TAG: "[{]"}) is None
    assert best.of_tags({best.TAG: '[{"step": 1, "mode": "sampled", "mean": 0, "objective": "a b c"}]'}) is None


def test_runs_older_than_the_tag_go_by_their_scenario() -> None:
    assert best.objectives({"matwm.env": "simple_tag_v3"}) == tuple(CHASE)
    assert best.objectives({"matwm.env": "simple_tag_v3", best.OBJECTIVE_TAG: "min self_play/agent; win"}) == (
        Objective("self_play", "agent", is_least=True),
        Objective("self_play", "win", is_metric=True),
    )
    assert best.objectives({"matwm.env": "package:env"}) == best.objectives({"matwm.env": "x", best.OBJECTIVE_TAG: ""}) == ()


@pytest.mark.parametrize("text", ["win", "min win", "learned_v_random/adversary", "min self_play/agent", "learned_v_flee/metrics/caught"])
def test_an_objective_reads_as_it_is_written(text: str) -> None:
    assert str(parse(text)) == text


@pytest.mark.parametrize("text", ["", "a b", "least win", "metrics/win", "a/b/c", "self_play/"])
def test_what_is_no_objective_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a role in a match-up"):
        parse(text)
