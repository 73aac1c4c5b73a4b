"""A child's curves in MLflow are those of the whole training, each point once."""

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
from pipeline.evaluate import evaluate
from pipeline.metrics.points import TimedPoint, is_record
from pipeline.process import Interruption
from pipeline.train import train
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


def before(found: list[TimedPoint], step: int) -> set[tuple[str, int, float]]:
    return {point[:3] for point in found if point.step <= step}


def records(found: list[TimedPoint], step: int) -> set[TimedPoint]:
    return {point for point in found if point.step <= step and is_record(point.key)}


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
    assert before(last, FORK) == before(points(project, "s00"), FORK)
    assert records(last, FORK) == records(points(project, "s00"), FORK), "at the times at which they were recorded"
    assert before(last, 65) == before(points(project, "s01"), 65)
    assert {point[0] for point in before(last, FORK)} >= {"time/steps_per_second", "checkpoint/stall_seconds"}
    info = tracking.get_run(run_id(project, "s02"))
    assert info is not None
    assert {point.timestamp_ms - point.step for point in last if not is_record(point.key)} == {info.started_ms}
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
    assert curves(points(project, "s01")) == curves(first)
    assert "NOT REPRODUCED" not in caplog.text
    trained(project, "s02")
    assert curves(points(project, "s02")) == whole(project, tmp_path / "other")


@pytest.mark.parametrize("known_to", ["work directory", "git", "MLflow"])
def test_the_parents_records_come_from_the_first_place_that_has_them(
    project: Path, store_template: Path, known_to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(project, "s00")
    if known_to == "git":
        evaluate(project, "s00")
    expected = records(points(project, "s00"), FORK)
    assert expected
    if known_to != "work directory":
        shutil.rmtree(project / ".matwm")
    if known_to == "git":
        another_store(project, store_template, monkeypatch)
    trained(project, "s01")
    assert records(points(project, "s01"), FORK) == expected
    assert {place for place in curves(points(project, "s01")) if place[1] <= FORK}, "the curves come from the checkpoint"


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
