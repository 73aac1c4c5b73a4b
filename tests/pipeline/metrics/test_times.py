"""What git holds of a run's metrics: every point that MLflow has, with its time."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from matwm.history import Episode, History, Point
from pipeline import tracking
from pipeline.evaluate import evaluate
from pipeline.metrics import records, times
from pipeline.metrics.journal import TimedPoint
from pipeline.metrics.times import recorded_points, write_evaluated, write_times
from pipeline.process import Interruption
from pipeline.project import ProjectError
from pipeline.train import train
from tests.pipeline.projects import SOURCE, tiny_params

AGENTS = ("wolf", "sheep")


def history() -> History:
    past = History()
    for step, value in ((10, 0.1), (20, math.nan), (30, 1 / 3)):
        past.add({"loss": value})
        past.close_interval(step)
    for episode in (Episode(12, 12, (1.5, -1.5)), Episode(20, 8, (0.0, 2.0))):
        past.episodes.append(episode)
    return past


JOURNAL = [
    TimedPoint("loss", 10, 0.1, 1000),
    TimedPoint("episode/return/wolf", 12, 1.5, 1100),
    TimedPoint("episode/return/sheep", 12, -1.5, 1100),
    TimedPoint("episode/length", 12, 12.0, 1105),
    TimedPoint("loss", 20, math.nan, 1200),
    TimedPoint("episode/return/wolf", 20, 0.0, 1200),
    TimedPoint("episode/return/sheep", 20, 2.5, 1200),
    TimedPoint("episode/length", 20, 8.0, 1200),
    TimedPoint("time/steps_per_second", 20, 48.125, 1201),
    TimedPoint("evaluation/greedy/wolf", 20, 0.1 + 0.2, 1300),
    TimedPoint("evaluation/greedy/wolf", 20, math.inf, 1400),
]


def written(folder: Path, points: Sequence[TimedPoint] = JOURNAL) -> Path:
    records.write_curves(folder, history().state_dict(), AGENTS, 30)
    write_times(folder, history().state_dict(), AGENTS, points)
    return folder


def plain(points: Sequence[TimedPoint]) -> list[str]:
    return sorted(map(repr, points))


def test_a_journal_comes_back_out_of_the_files_of_git(tmp_path: Path) -> None:
    assert plain(recorded_points(written(tmp_path))) == plain(JOURNAL)


def test_a_time_that_points_of_one_step_share_is_written_once(tmp_path: Path) -> None:
    lines = (written(tmp_path) / times.TIMES).read_text(encoding="utf-8").splitlines()
    assert lines[:4] == ["step,timestamp_ms,key,value", "10,1000,,", "12,1100,,", "12,1105,episode/length,"]
    assert "20,1200,episode/return/sheep,2.5" in lines, "the run keeps its first value, though the checkpoint has another"


def test_a_point_without_a_known_time_is_not_made_up(tmp_path: Path) -> None:
    assert not [point for point in recorded_points(written(tmp_path)) if point.step == 30]


def test_an_evaluation_has_the_times_of_the_journal(tmp_path: Path) -> None:
    judged = [Point("evaluation/greedy/wolf", 20, 0.1 + 0.2), Point("evaluation/greedy/sheep", 20, 7.0)]
    write_evaluated(written(tmp_path), judged, JOURNAL)
    assert set(plain(JOURNAL)) < set(plain(recorded_points(tmp_path)))
    (other,) = [point for point in recorded_points(tmp_path) if point.key.endswith("sheep") and point.key.startswith("evaluation")]
    assert other.value == 7.0


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    (written(tmp_path) / times.TIMES).write_text("step,timestamp_ms,key,value\n10,soon,,\n", encoding="utf-8")
    with pytest.raises(ProjectError, match=r"times\.csv cannot be read: .*restore it from git"):
        recorded_points(tmp_path)


def test_a_trained_segment_leaves_every_point_that_mlflow_has(root: Path) -> None:
    shutil.copytree(SOURCE / "checkpoints/root", root / "checkpoints/root")
    changes = {"run": {"save_interval": 30}, "evaluation": {"interval": 20}}
    params = tiny_params(changes, {"s00": {"from": "checkpoints/root", "until": 40}})
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    assert train(root, "s00", Interruption()) == 0
    evaluate(root, "s00")
    (run,) = tracking.list_runs()
    assert set(recorded_points(root / "metrics/s00")) == set(tracking.metric_history(run.run_id))
