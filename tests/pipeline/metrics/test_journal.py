"""The journal: what is recorded once stays, through crashes, and is handed out exactly as it was."""

import json
import logging
import math
import os
from pathlib import Path
from typing import NamedTuple

import pytest

from matwm import durable
from pipeline.metrics.journal import Journal, TimedPoint
from pipeline.metrics.mismatches import Mismatch


class Point(NamedTuple):
    key: str
    step: int
    value: float


def lines(journal: Journal) -> list[dict]:
    return [json.loads(line) for line in journal.path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "work" / "journal.jsonl"


def test_a_point_is_in_the_file_before_record_returns(path: Path):
    Journal(path).record([Point("loss", 3, 0.1)], 1000)
    assert path.read_bytes() == b'{"key": "loss", "step": 3, "value": 0.1, "timestamp_ms": 1000}\n'


def test_a_point_recorded_again_after_a_restart_keeps_its_line_and_its_time(path: Path):
    Journal(path).record([Point("loss", 1, 0.1), Point("loss", 2, 0.2)], 1000)
    again = Journal(path)
    assert again.record([Point("loss", 2, 0.2), Point("loss", 3, 0.3)], 2000) == []
    assert [(line["step"], line["timestamp_ms"]) for line in lines(again)] == [(1, 1000), (2, 1000), (3, 2000)]


def test_a_value_that_comes_out_otherwise_is_reported_by_name_and_step_and_the_first_stays(path: Path, caplog: pytest.LogCaptureFixture):
    Journal(path).record([Point("loss", 2, 0.2)], 1000)
    again = Journal(path)
    with caplog.at_level(logging.ERROR):
        assert again.record([Point("loss", 2, math.nextafter(0.2, 1))], 2000) == [Mismatch("loss", 2, 0.2, 0.20000000000000004)]
    assert "loss at step 2 was 0.2 and is 0.20000000000000004" in caplog.text
    assert [line["value"] for line in lines(again)] == [0.2]


@pytest.mark.parametrize("key", ["time/steps_per_second", "checkpoint/stall_seconds"])
def test_a_measured_value_may_differ_and_the_first_stays(path: Path, key: str, caplog: pytest.LogCaptureFixture):
    journal = Journal(path)
    journal.record([Point(key, 2, 10.0)], 1000)
    assert journal.record([Point(key, 2, 11.0)], 2000) == []
    assert caplog.text == ""
    assert [line["value"] for line in lines(journal)] == [10.0]


def test_a_revised_value_joins_the_first_without_complaint_and_the_same_one_does_not(path: Path):
    journal = Journal(path)
    journal.record([Point("evaluation/return", 9, 1.0)], 1000)
    assert journal.record([Point("evaluation/return", 9, 2.0)], 2000, is_revision=True) == []
    assert journal.record([Point("evaluation/return", 9, 2.0)], 3000, is_revision=True) == []
    assert [(line["value"], line["timestamp_ms"]) for line in lines(journal)] == [(1.0, 1000), (2.0, 2000)]


def test_values_that_are_not_finite_come_back_as_they_were_and_equal_themselves(path: Path):
    values = [math.nan, math.inf, -math.inf]
    Journal(path).record([Point("x", step, value) for step, value in enumerate(values)], 1)
    again = Journal(path)
    assert again.record([Point("x", step, value) for step, value in enumerate(values)], 2) == []
    assert [str(point.value) for point in again.unsent("run", 10)[0]] == ["nan", "inf", "-inf"]
    assert [str(mismatch.recorded) for mismatch in again.record([Point("x", 0, 1.0)], 3)] == ["nan"]


@pytest.mark.parametrize("kept", range(1, 62))
def test_a_line_torn_at_any_byte_is_cut_off_and_can_be_recorded_again(path: Path, kept: int):
    Journal(path).record([Point("loss", 1, 0.1)], 1000)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:kept].replace(b": 1,", b": 2,"))
    journal = Journal(path)
    assert path.read_bytes() == whole
    journal.record([Point("loss", 2, 0.2)], 2000)
    assert [line["step"] for line in lines(journal)] == [1, 2]


def test_a_line_destroyed_in_the_middle_costs_that_point_only(path: Path, caplog: pytest.LogCaptureFixture):
    Journal(path).record([Point("loss", step, 0.5) for step in range(3)], 1000)
    damaged = path.read_bytes().replace(b'"step": 1', b'"st\xff\x00": 1')
    path.write_bytes(damaged)
    journal = Journal(path)
    assert len(journal) == 2
    assert "not a metric point" in caplog.text
    assert [point.step for point in journal.unsent("run", 10)[0]] == [0, 2]


@pytest.mark.parametrize("is_sent", [False, True])
def test_a_journal_cut_at_any_of_its_last_200_bytes_ends_as_it_was(tmp_path: Path, is_sent: bool):
    """What MLflow has of it comes back with its time; what it has not gets a new one."""
    points = [Point("loss", step, step / 7) for step in range(20)]
    whole = Journal(tmp_path / "whole.jsonl")
    whole.record(points, 1000)
    mlflow = whole.unsent("run", 100)[0] if is_sent else []
    data = whole.path.read_bytes()
    for cut in range(201):
        path = tmp_path / str(cut) / "journal.jsonl"
        path.parent.mkdir()
        path.write_bytes(data[: len(data) - cut])
        path.with_suffix(".sent.json").write_text(json.dumps({"run_id": "run", "bytes": len(data) if is_sent else 0}))
        journal = Journal(path)
        assert journal.has_lost_sent_points is (is_sent and cut > 0)
        assert journal.record(points, 2000) == []
        assert journal.adopt(mlflow) == []
        again = Journal(path).unsent("run", 100)[0]
        assert [(point.step, point.value) for point in again] == [(point.step, point.value) for point in points]
        assert {point.timestamp_ms for point in again} <= ({1000} if is_sent else {1000, 2000})


def test_an_evaluation_done_again_here_joins_the_one_that_mlflow_has(path: Path, caplog: pytest.LogCaptureFixture):
    journal = Journal(path)
    journal.record([Point("evaluation/return", 9, 2.0)], 5000)
    assert journal.adopt([TimedPoint("evaluation/return", 9, 1.0, 1000)]) == []
    assert [(line["value"], line["timestamp_ms"]) for line in lines(journal)] == [(1.0, 1000), (2.0, 5000)]
    assert caplog.text == ""


def test_inherited_points_keep_their_times_come_once_and_are_never_contradicted(path: Path, caplog: pytest.LogCaptureFixture):
    before = [TimedPoint("loss", 1, 0.1, 100), TimedPoint("loss", 2, 0.2, 200)]
    journal = Journal(path)
    journal.inherit(before, 2)
    journal.record([Point("loss", 3, 0.3)], 5000)
    again = Journal(path)
    again.inherit(before, 2)
    assert [(line["step"], line["timestamp_ms"]) for line in lines(again)] == [(1, 100), (2, 200), (3, 5000)]
    assert again.adopt([TimedPoint("loss", 2, 0.25, 201)]) == []
    assert [(line["step"], line["value"]) for line in lines(again)] == [(2, 0.25), (1, 0.1), (3, 0.3)]
    assert caplog.text == ""


def test_points_are_handed_out_oldest_first_until_they_are_marked_as_sent(path: Path):
    journal = Journal(path)
    journal.record([Point("loss", step, float(step)) for step in range(5)], 7)
    first, position = journal.unsent("run", 3)
    assert first == [TimedPoint("loss", step, float(step), 7) for step in range(3)]
    assert journal.unsent("run", 3)[0] == first
    journal.mark_sent("run", position)
    assert [point.step for point in Journal(path).unsent("run", 3)[0]] == [3, 4]
    assert Journal(path).num_unsent("run") == 2


def test_another_run_gets_everything_from_the_beginning(path: Path):
    journal = Journal(path)
    journal.record([Point("loss", step, 0.5) for step in range(5)], 7)
    journal.mark_sent("run", journal.unsent("run", 10)[1])
    assert journal.num_unsent("run") == 0
    assert journal.num_unsent("another") == journal.num_unsent(None) == 5


def test_a_note_about_a_journal_that_is_gone_hides_no_point_of_the_next(path: Path):
    journal = Journal(path)
    journal.record([Point("loss", step, 0.5) for step in range(5)], 7)
    journal.mark_sent("run", journal.unsent("run", 10)[1])
    path.unlink()
    following = Journal(path)
    following.record([Point("loss", step, 0.5) for step in range(20)], 8)
    assert following.num_unsent("run") == 20


def test_a_history_from_mlflow_gives_its_times_to_points_that_were_computed_again(path: Path):
    journal = Journal(path)
    journal.record([Point("loss", 2, 0.2), Point("loss", 3, 0.3)], 5000)
    history = [TimedPoint("loss", 1, 0.1, 1000), TimedPoint("loss", 2, 0.2, 1001)]
    assert journal.adopt(history) == []
    expected = [(1, 1000), (2, 1001), (3, 5000)]
    assert [(line["step"], line["timestamp_ms"]) for line in lines(journal)] == expected
    journal.record([Point("loss", 1, 0.1), Point("loss", 4, 0.4)], 6000)
    assert [(line["step"], line["timestamp_ms"]) for line in lines(journal)] == [*expected, (4, 6000)]


def test_a_history_from_mlflow_that_contradicts_the_journal_is_reported_and_wins(path: Path, caplog: pytest.LogCaptureFixture):
    journal = Journal(path)
    journal.record([Point("loss", 2, 0.2), Point("time/rate", 2, 9.0)], 5000)
    assert journal.adopt([TimedPoint("loss", 2, 0.25, 1001), TimedPoint("time/rate", 2, 8.0, 1001)]) == [Mismatch("loss", 2, 0.25, 0.2)]
    assert "loss at step 2" in caplog.text
    assert [line["value"] for line in lines(journal)] == [0.25, 8.0]


def test_a_full_disk_leaves_a_file_of_whole_lines_and_costs_no_point(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    journal = Journal(path)
    journal.record([Point("loss", 1, 0.1)], 1000)
    whole, file = path.read_bytes(), journal._file

    class Full:
        def write(self, data: bytes) -> int:
            file.write(data[:10])
            raise OSError(28, "No space left on device")

        fileno = file.fileno

    monkeypatch.setattr(journal, "_file", Full())
    journal.record([Point("loss", 2, 0.2)], 2000)
    journal.record([Point("loss", 3, 0.3)], 3000)
    assert path.read_bytes() == whole
    assert caplog.text.count("No space left on device. Metric points are held in memory") == 1, "said once"
    assert [point.step for point in journal.unsent("run", 100)[0]] == [1], "MLflow gets nothing that a crash could take back"
    with pytest.raises(OSError, match="No space"):
        journal.flush()
    monkeypatch.setattr(journal, "_file", file)
    assert journal.record([Point("loss", 2, 0.25)], 4000) == [Mismatch("loss", 2, 0.2, 0.25)]
    assert [(line["step"], line["timestamp_ms"]) for line in lines(journal)] == [(1, 1000), (2, 2000), (3, 3000)]


def test_the_last_step_is_the_highest_on_record_after_a_restart_too(path: Path):
    Journal(path).record([Point("loss", 7, 0.1), Point("loss", 3, 0.1)], 1000)
    assert Journal(path).last_step == 7


def test_a_flush_returns_when_the_disk_itself_has_every_point(path: Path, monkeypatch: pytest.MonkeyPatch):
    """A checkpoint is on the disk when it is there: a power cut must not leave it without the points before it."""
    synced: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append((os.fstat(descriptor).st_ino, os.fstat(descriptor).st_size)))
    journal = Journal(path)
    journal.record([Point("loss", 1, 0.1)], 1000)
    assert synced == []
    journal.flush()
    assert synced == [(path.stat().st_ino, path.stat().st_size)]


def test_a_crash_while_the_file_is_replaced_leaves_no_note_about_the_other_one(path: Path, monkeypatch: pytest.MonkeyPatch):
    told = Journal(path)
    told.record([Point("loss", step, 0.5) for step in range(5)], 7)
    told.mark_sent("run", told.unsent("run", 10)[1])

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(durable, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        told.adopt([TimedPoint("loss", 0, 0.5, 1)])
    assert Journal(path).num_unsent("run") == 5
