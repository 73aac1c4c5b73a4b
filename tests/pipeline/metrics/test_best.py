"""The best evaluation of a run: worked out by hand."""

from pipeline.metrics import best
from pipeline.metrics.best import Best
from pipeline.metrics.points import TimedPoint


def points(step: int, *values: float, at: int = 1000) -> list[TimedPoint]:
    return [TimedPoint(best.key("sampled", "self_play", f"agent_{number}"), step, value, at) for number, value in enumerate(values)]


def test_the_best_step_is_that_of_the_highest_mean() -> None:
    history = points(10, 1.0, 3.0) + points(20, 4.0, 2.0) + points(30, 9.0, -6.0)
    assert best.of_history("sampled", history, 0) == Best(20, "sampled", 3.0)


def test_what_the_ancestors_reached_is_not_the_runs_own() -> None:
    history = points(10, 9.0) + points(20, 1.0)
    assert best.of_history("sampled", history, 10) == Best(20, "sampled", 1.0)
    assert best.of_history("sampled", history, 20) is None


def test_an_evaluation_done_again_counts_and_half_a_one_does_not() -> None:
    history = points(10, 9.0, 9.0) + points(10, 1.0, 1.0, at=2000) + points(20, 5.0)
    assert best.of_history("sampled", history, 0) == Best(10, "sampled", 1.0)


def test_the_first_mode_counts() -> None:
    names = ["evaluation/greedy/self_play/a", "evaluation/sampled/self_play/a", "evaluation/sampled/self_play/b", "world_model/total"]
    assert best.keys(names, None) == ("sampled", names[1:3])
    assert best.keys(names, "greedy,sampled") == ("greedy", names[:1])
    assert best.keys(names[:1], "sampled") == ("greedy", names[:1])
    assert best.keys(["world_model/total"], "sampled") is None


def test_where_episodes_are_won_the_win_rate_counts_and_is_called_one() -> None:
    names = [f"evaluation/{mode}/self_play/{what}" for mode in ("greedy", "sampled") for what in ("a", "metrics/win", "metrics/win/stderr")]
    assert best.keys(names, "greedy") == ("greedy", [names[1]])
    history = [TimedPoint(names[1], step, won, 1000) for step, won in ((10, 0.25), (20, 0.75), (30, 0.5))]
    assert best.of_history("greedy", history, 0) == Best(20, "greedy", 0.75, "win")
    assert [one.shown for one in (Best(20, "greedy", 0.75, "win"), Best(20, "greedy", -7.5))] == ["0.75 win", "-7.50"]


def test_git_alone_knows_it_too() -> None:
    record = {"step": 80, "greedy": {"self_play": {"a": {"mean": 1.0}, "b": {"mean": 2.0}}, "x": {"a": {"mean": 6.0}}}, "sampled": {}}
    assert best.of_record({**record, "references": {}}) == Best(80, "greedy", 3.0)
    assert best.of_record({"metrics": {"greedy": {"self_play": {"length": {"mean": 0.5}}}}, **record}) == Best(80, "greedy", 3.0)
    assert best.of_record({"metrics": {"greedy": {"self_play": {"win": {"mean": 0.5}}}}, **record}) == Best(80, "greedy", 0.5, "win")
    assert best.of_record({}) is None
    assert best.of_record({"step": 80, "sampled": []}) is None
