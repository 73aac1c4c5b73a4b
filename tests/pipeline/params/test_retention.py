"""Retention: which checkpoints stay, by hand-made numbers and by laws, and what the train stage makes of it."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matwm.config import RetentionConfig
from matwm.history import Episode, History
from matwm.scenarios.objective import parse
from matwm.step_names import step_name
from pipeline import runs
from pipeline.params.retention import reasons, retained, scored, scores
from tests.pipeline import in_mlflow
from tests.pipeline.projects import StopAfter
from tests.pipeline.test_train import ROOT, digests, facts, project, run, steps_counted, work, write

__all__ = ["project"]
KEEP_ALL = {"keep_last": None, "keep_every": None, "keep_best": 0}


def policy(**values: Any) -> RetentionConfig:
    return RetentionConfig.model_validate({"keep_last": 0, "keep_every": None, "keep_best": 0, **values})


TENS = range(10, 110, 10)


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        (policy(), [100]),
        (policy(keep_last=None), list(TENS)),
        (policy(keep_last=1), [100]),
        (policy(keep_last=3), [80, 90, 100]),
        (policy(keep_last=99), list(TENS)),
        (policy(keep_every=30), [30, 60, 90, 100]),
        (policy(keep_every=25), [30, 50, 80, 100]),
        (policy(keep_every=1000), [100]),
        (policy(keep_best=2), [20, 50, 100]),
        (policy(keep_last=2, keep_every=50, keep_best=1), [50, 90, 100]),
    ],
)
def test_a_checkpoint_stays_if_any_rule_keeps_it(config: RetentionConfig, kept: list[int]) -> None:
    assert list(retained(TENS, config, [100], [{20: 1.0, 30: -5.0, 50: 2.5}])) == kept


def test_what_is_needed_stays_whatever_the_rules_say() -> None:
    assert reasons(TENS, policy(keep_last=1), [40, 100], []) == {40: ["needed"], 100: ["needed", "last"]}


def test_every_counts_from_where_the_segment_begins() -> None:
    assert retained([60, 70, 80, 90], policy(keep_every=50), [90], [], start=50) == (90,)
    assert retained([60, 70, 80, 100, 110], policy(keep_every=50), [110], [], start=50) == (100, 110)


def test_of_equal_scores_the_newer_one_is_better() -> None:
    assert retained(TENS, policy(keep_best=1), [100], [{10: 3.0, 40: 3.0}]) == (40, 100)


def test_a_score_is_the_mean_return_of_the_latest_episodes_that_had_ended() -> None:
    history = History(episodes=[Episode(10 * number, 10, (float(number), 3.0 * number)) for number in range(1, 31)])
    assert scores(history, [9, 10, 25, 300], [0, 1]) == {10: 2.0, 25: 3.0, 300: 2 * sum(range(11, 31)) / 20}


def test_each_role_of_a_game_of_opponents_keeps_its_best() -> None:
    assert retained(TENS, policy(keep_best=1), [100], [{20: 1.0, 30: 5.0}, {20: -1.0, 30: -9.0}]) == (20, 30, 100)


def test_the_objective_says_whose_returns_count_and_which_way(save: Callable[..., Any]) -> None:
    newest = save(40)  # of agents wolf_0 and sheep_0
    history = History(episodes=[Episode(10, 10, (1.0, -1.0)), Episode(30, 20, (5.0, -9.0))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(newest), "history", lambda _: history)
        wolf, sheep = {10: 1.0, 30: 3.0}, {10: -1.0, 30: -5.0}
        assert scored(newest, [parse("learned_v_random/wolf")], [10, 30]) == [wolf]
        assert scored(newest, [parse("min self_play/sheep")], [10, 30]) == [{10: 1.0, 30: 5.0}]
        assert scored(newest, [parse("learned_v_random/wolf"), parse("random_v_learned/sheep")], [10, 30]) == [wolf, sheep]
        assert scored(newest, [parse("win")], [10, 30]) == scored(newest, [], [10, 30]) == [{10: 0.0, 30: -1.0}]


@st.composite
def _cases(draw: st.DrawFn) -> tuple[list[int], RetentionConfig, dict[int, float], int]:
    steps = sorted(draw(st.sets(st.integers(1, 60), min_size=1)))
    config = RetentionConfig(
        keep_last=draw(st.none() | st.integers(0, 9)), keep_every=draw(st.none() | st.integers(1, 30)), keep_best=draw(st.integers(0, 4))
    )
    scored = {step: draw(st.sampled_from([-1.0, 0.0, 2.0])) for step in steps if draw(st.booleans())}
    return steps, config, scored, draw(st.integers(0, steps[0] - 1))


@given(_cases())
def test_to_apply_the_rules_again_drops_nothing_more(case: tuple[list[int], RetentionConfig, dict[int, float], int]) -> None:
    steps, config, scores_of_steps, start = case
    kept = retained(steps, config, [], [scores_of_steps], start=start)
    assert retained(kept, config, [], [scores_of_steps], start=start) == kept
    assert steps[-1] in kept


@given(_cases(), st.integers(0, 60))
def test_what_stays_at_the_end_stayed_all_along(case: tuple[list[int], RetentionConfig, dict[int, float], int], now: int) -> None:
    """So that whoever goes on in the middle, and drops what is not kept then, ends with the same checkpoints."""
    steps, config, scores_of_steps, start = case
    by_now = {step: score for step, score in scores_of_steps.items() if step <= now}
    then = {step for step in retained(steps, config, [], [by_now], start=start) if step <= now}
    assert {step for step in retained(steps, config, [], [scores_of_steps], start=start) if step <= now} <= then


# ---- the train stage


LONG = {"s00": {"from": ROOT, "until": 200}}


def steps_of(project: Path, name: str = "s00") -> list[int]:
    return [int(folder.removeprefix("step_")) for folder in digests(project, name)]


def forget(project: Path, step: int, name: str = "s00") -> None:
    """Remove a checkpoint from the work directory and MLflow, as `matwm prune` does."""
    folders = [work(project, name) / "checkpoints" / step_name(step), *project.glob(f"mlruns/*/*/artifacts/checkpoints/{step_name(step)}")]
    for folder in folders:
        shutil.rmtree(folder)


def test_what_is_published_is_what_stays(project: Path) -> None:
    write(project, LONG, {"retention": {"keep_last": 1, "keep_every": 80}})
    assert run(project) == 0
    assert steps_of(project) == [80, 160, 200]
    assert in_mlflow.steps(facts(project)["run_id"]) == [40, 80, 120, 160, 200], "the store is `matwm prune`'s business"


def test_the_best_are_published_by_their_episodes(project: Path) -> None:
    write(project, LONG, {"retention": {"keep_last": 1, "keep_best": 2}})
    assert run(project) == 0
    head, *rows = (project / "metrics/s00/episodes.csv").read_text(encoding="utf-8").splitlines()
    ended = [[float(cell) for cell in row.split(",")] for row in rows]
    staying = {200}
    for role in ("adversary", "agent"):  # opponents: each keeps its own best
        columns = [number for number, name in enumerate(head.split(",")) if f"/{role}_" in name]
        found: dict[int, float] = {}
        for step in range(40, 201, 40):
            latest = [sum(row[number] for number in columns) / len(columns) for row in ended if row[0] <= step][-20:]
            found[step] = sum(latest) / len(latest)
        staying |= {*sorted(found, key=lambda step: found[step])[-2:]}
    assert steps_of(project) == sorted(staying)


def test_a_named_step_is_published_whatever_the_retention(project: Path) -> None:
    write(project, {"s00": LONG["s00"], "s01": {"from": f"checkpoints/s00/{step_name(70)}", "until": 110}}, {"retention": {"keep_last": 1}})
    assert run(project) == 0
    assert run(project, "s01") == 0
    assert (steps_of(project), steps_of(project, "s01")) == ([70, 200], [110])


def test_what_was_dropped_is_not_trained_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project, LONG, {"retention": {"keep_last": 2}})
    run(project, interruption=StopAfter(170))
    for step in (40, 80, 120):
        forget(project, step)
    with steps_counted(monkeypatch) as taken:
        assert run(project) == 0
    assert taken == list(range(171, 201))
    assert steps_of(project) == [160, 200]


def test_what_stays_is_made_again_when_it_is_lost(project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    write(project, LONG, {"retention": {"keep_last": 1, "keep_every": 80}})
    run(project, interruption=StopAfter(170))
    forget(project, 80)
    forget(project, 120)
    with steps_counted(monkeypatch) as taken, caplog.at_level(logging.WARNING):
        assert run(project) == 0
    assert taken == [*range(41, 81), *range(171, 201)]
    assert steps_of(project) == [80, 160, 200]
    assert "segment s00 is to keep step 80, of which there is no checkpoint any more: trained again" in caplog.text


@pytest.mark.parametrize("from_mlflow", [False, True])
def test_another_retention_of_a_finished_segment_trains_nothing(project: Path, monkeypatch: pytest.MonkeyPatch, from_mlflow: bool) -> None:
    write(project, LONG, {"retention": {"keep_last": 1}})
    run(project)
    before, recorded = digests(project), facts(project)
    for keep, steps in ((KEEP_ALL, [40, 80, 120, 160, 200]), ({"keep_last": 1, "keep_every": 120}, [120, 200])):
        if from_mlflow:
            shutil.rmtree(project / ".matwm")
        shutil.rmtree(project / "checkpoints/s00")  # DVC does
        write(project, LONG, {"retention": keep})
        with steps_counted(monkeypatch) as taken:
            assert run(project) == 0
        assert (taken, steps_of(project), facts(project)["run_id"]) == ([], steps, recorded["run_id"])
    assert digests(project)[step_name(200)] == before[step_name(200)]
    (info,) = runs.list_runs()
    assert json.loads((project / "metrics/s00/train.json").read_text(encoding="utf-8"))["step"] == info.step == 200
