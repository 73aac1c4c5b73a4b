"""Ancestry: a child's curves in MLflow are those of the whole training, each point once and at its own time."""

import json
import shutil
import signal
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from matwm.step_names import step_name
from pipeline import runs, tracking
from pipeline.job import open_start
from pipeline.metrics.journal import TimedPoint
from pipeline.process import Interruption
from pipeline.train import train
from pipeline.training import ancestry
from pipeline.validate import validate
from tests.pipeline.projects import SOURCE, StopAfter, tiny_params

ROOT = "checkpoints/root"
FORK, END = 45, 80  # metrics come every ten steps: the fork is in the middle of an interval
CHAIN = {
    "s00": {"from": ROOT, "until": 60},
    "s01": {"from": f"checkpoints/s00/{step_name(FORK)}", "until": 70},
    "s02": {"from": f"checkpoints/s01/{step_name(65)}", "until": END},
}
MEASURED = ("time/", "checkpoint/")


@pytest.fixture
def project(root: Path) -> Path:
    """A project of three segments, each a child of the one before it."""
    shutil.copytree(SOURCE / ROOT, root / ROOT)
    write(root)
    return root


def write(project: Path, changes: Mapping[str, Any] | None = None) -> None:
    (project / "params.yaml").write_text(yaml.safe_dump(tiny_params(changes, CHAIN)), encoding="utf-8")


def run_id(project: Path, name: str) -> str:
    return json.loads((project / "metrics" / name / "run.json").read_text(encoding="utf-8"))["run_id"]


def points(project: Path, name: str) -> list[TimedPoint]:
    return tracking.metric_history(run_id(project, name))


def trained(project: Path, *names: str) -> None:
    for name in names:
        assert train(project, name, Interruption()) == 0


def curves(found: list[TimedPoint]) -> dict[tuple[str, int], float]:
    """Return what is not measured by a clock; every point of the run must be there once."""
    assert [pair for pair, times in Counter((point.key, point.step) for point in found).items() if times > 1] == []
    return {(point.key, point.step): point.value for point in found if not point.key.startswith(MEASURED)}


def before(found: list[TimedPoint], step: int) -> set[TimedPoint]:
    return {point for point in found if point.step <= step}


def another_store(project: Path, store_template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(store_template, project / "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    runs.configure(project)


def whole(project: Path, other: Path) -> dict[tuple[str, int], float]:
    """Return the curves of the same training in one piece."""
    shutil.copytree(SOURCE / ROOT, other / ROOT)
    entries = {"s00": {"from": ROOT, "until": END}}
    (other / "params.yaml").write_text(yaml.safe_dump(tiny_params({"tracking": {"experiment": "whole"}}, entries)), encoding="utf-8")
    shutil.copy(project / "mlflow.db", other / "mlflow.db")
    trained(other, "s00")
    found = curves(points(other, "s00"))
    runs.configure(project)
    return found


def test_one_curve_shows_the_whole_training_grandchildren_included(project: Path, tmp_path: Path) -> None:
    trained(project, "s00", "s01", "s02")
    expected = whole(project, tmp_path / "other")
    last = points(project, "s02")
    assert curves(last) == expected
    assert before(last, FORK) == before(points(project, "s00"), FORK), "the first run's points, at their times"
    assert before(last, 65) == before(points(project, "s01"), 65)
    assert {point.key for point in before(last, FORK)} >= {"time/steps_per_second", "checkpoint/stall_seconds"}
    info = tracking.get_run(run_id(project, "s02"))
    assert info is not None
    assert info.step == END
    assert json.loads((project / "metrics/s02/run.json").read_text(encoding="utf-8"))["not_reproduced"] == {"points": 0, "first": None}
    # As the page of `mlflow ui` asks for the children that it nests:
    client, experiment = runs.client(runs.configured_uri()), runs.experiment_id(runs.configured_uri(), "matwm")
    (child,) = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id(project, 's00')}'")
    assert child.info.run_id == run_id(project, "s01")


def test_an_interrupted_child_inherits_once(project: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trained(project, "s00")
    assert train(project, "s01", StopAfter(5)) == 128 + signal.SIGTERM
    trained(project, "s01")
    first = points(project, "s01")
    shutil.rmtree(project / ".matwm")  # another machine, which MLflow must tell everything
    shutil.rmtree(project / "checkpoints/s01")
    trained(project, "s01")
    assert sorted(points(project, "s01")) == sorted(first)
    assert "NOT REPRODUCED" not in caplog.text
    trained(project, "s02")
    assert curves(points(project, "s02")) == whole(project, tmp_path / "other")


@pytest.mark.parametrize("known_to", ["journal", "MLflow", "git"])
def test_the_parents_times_come_from_the_best_place_that_knows_them(
    project: Path, store_template: Path, known_to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(project, "s00")
    expected = before(points(project, "s00"), FORK)
    if known_to != "journal":
        shutil.rmtree(project / ".matwm")
    if known_to != "MLflow":
        another_store(project, store_template, monkeypatch)
    trained(project, "s01")
    assert before(points(project, "s01"), FORK) == expected


def test_without_any_record_the_times_are_between_those_at_which_the_run_began_and_ended(
    project: Path, store_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(project, "s00")
    facts = json.loads((project / "metrics/s00/run.json").read_text(encoding="utf-8"))
    shutil.rmtree(project / ".matwm")
    (project / "metrics/s00/times.csv").unlink()
    another_store(project, store_template, monkeypatch)
    facts |= {"started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T00:01:00+00:00"}
    (project / "metrics/s00/run.json").write_text(json.dumps(facts), encoding="utf-8")
    trained(project, "s01")
    found = points(project, "s01")
    assert len(curves(found)) > 100
    began = 1767225600000
    assert {point.timestamp_ms - began for point in before(found, FORK) if point.step == 30} == {30_000}, (
        "half of a minute for half of the steps"
    )


def test_a_fork_of_an_imported_run_inherits_too(project: Path) -> None:
    trained(project, "s00")
    parent = run_id(project, "s00")
    expected = before(points(project, "s00"), FORK)
    shutil.copytree(project / "checkpoints/s00" / step_name(FORK), project / "imports" / parent / step_name(FORK))
    for folder in (".matwm", "checkpoints/s00", "metrics/s00"):
        shutil.rmtree(project / folder)
    segments = {"again": {"from": f"imports/{parent}/{step_name(FORK)}", "until": 60}}
    (project / "params.yaml").write_text(yaml.safe_dump(tiny_params(segments=segments)), encoding="utf-8")
    trained(project, "again")
    assert before(points(project, "again"), FORK) == expected
    assert tracking.get_run(run_id(project, "again")).parent_run_id == parent


def test_a_store_that_is_down_leaves_what_git_knows(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(project, "s00")
    expected = before(points(project, "s00"), FORK)
    shutil.rmtree(project / ".matwm")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    runs.configure(project)
    graph = validate(project)
    start = open_start(project, graph["s01"], graph)
    found = ancestry.inherited(project, start, lambda key, step: False, 0)
    assert set(found) == expected
    assert ancestry.inherited(project, start, lambda key, step: True, 0) == []
