"""Tail and records: a damaged line is never believed, and what was recorded first stays."""

import logging
import math
import os
from pathlib import Path

import numpy as np
import pytest

from matwm.history import Point
from pipeline.metrics.mismatches import Mismatch
from pipeline.metrics.points import TimedPoint
from pipeline.tracking import lines
from pipeline.tracking.records import Records
from pipeline.tracking.tail import Tail, last_step


def losses(steps: range) -> list[Point]:
    return [Point("loss", step, step / 7) for step in steps]


def tail(path: Path, until: int, begin: int = 0) -> Tail:
    made = Tail(path)
    made.resume(begin)
    for step in range(begin + 1, until + 1):
        made.record(losses(range(step, step + 1)), step)
    return made


def test_a_point_is_in_the_file_before_record_returns(tmp_path: Path) -> None:
    tail(tmp_path / "tail", 2)
    assert Tail(tmp_path / "tail").unsent(-1, 9)[1] == losses(range(1, 3))
    assert last_step(tmp_path / "tail") == 2


def test_a_value_that_comes_out_otherwise_is_reported_by_name_and_step_and_the_first_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tail(tmp_path / "tail", 3)
    again = Tail(tmp_path / "tail")
    again.resume(1)
    with caplog.at_level(logging.ERROR):
        found = again.record([Point("loss", 2, math.nextafter(2 / 7, 1)), Point("other", 2, 1.0)], 2)
    assert found == [Mismatch("loss", 2, 2 / 7, math.nextafter(2 / 7, 1))]
    assert "loss at step 2 was 0.2857142857142857 and is 0.28571428571428575" in caplog.text
    assert again.record(losses(range(3, 5)), 4) == []
    assert sorted(Tail(tmp_path / "tail").unsent(1, 9)[1], key=str) == sorted([*losses(range(2, 5)), Point("other", 2, 1.0)], key=str)


def test_values_that_are_not_finite_come_back_and_equal_themselves(tmp_path: Path) -> None:
    values = [Point("x", step, value) for step, value in enumerate([math.nan, math.inf, -math.inf], 1)]
    first = Tail(tmp_path / "tail")
    first.resume(0)
    first.record(values, 3)
    again = Tail(tmp_path / "tail")
    assert again.record(values, 3) == []
    assert [str(point.value) for point in again.unsent(0, 3)[1]] == ["nan", "inf", "-inf"]
    assert [str(found.recorded) for found in again.record([Point("x", 1, 1.0)], 3)] == ["nan"]


def test_no_random_damage_to_a_line_is_believed(tmp_path: Path) -> None:
    """Of 80 mutations of a file without checksums 18 gave other points silently."""
    path, rng = tmp_path / "tail", np.random.default_rng(0)
    tail(path, 20)
    whole, truth = path.read_bytes(), {(point.key, point.step, point.value) for point in losses(range(1, 21))}
    for _ in range(300):
        data = bytearray(whole)
        place, length = int(rng.integers(len(data))), int(rng.integers(1, 6))
        data[place : place + length] = rng.bytes(int(rng.integers(0, 6)))
        path.write_bytes(data)
        damaged = Tail(path)
        found = {(point.key, point.step, point.value) for point in damaged.unsent(-1, 99)[1]}
        assert found <= truth
        # What is said to be complete is: of the steps after that a later process makes every point again.
        assert {place for place in truth if place[1] <= damaged.complete} <= found


@pytest.mark.parametrize("cut", range(1, 90, 4))
def test_a_torn_line_is_left_out_and_recorded_again(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "tail"
    tail(path, 4)
    path.write_bytes(path.read_bytes()[:-cut])
    again = Tail(path)
    assert again.complete < 4
    again.resume(0)
    for step in range(1, 6):
        assert again.record(losses(range(step, step + 1)), step) == []
    assert Tail(path).unsent(0, 9)[1] == losses(range(1, 6))


def test_the_tail_begins_at_the_checkpoint_before_the_newest(tmp_path: Path) -> None:
    made = tail(tmp_path / "tail", 90)
    made.cut(40)
    assert (made.begin, made.unsent(-1, 99)[1]) == (40, losses(range(41, 91)))
    assert (Tail(tmp_path / "tail").begin, Tail(tmp_path / "tail").unsent(-1, 99)[1]) == (40, losses(range(41, 91)))


def test_what_does_not_come_out_the_same_again_is_dropped_beyond_the_checkpoint(tmp_path: Path) -> None:
    tail(tmp_path / "tail", 9)
    again = Tail(tmp_path / "tail")
    again.resume(5, is_exact=False)
    assert again.record([Point("loss", 6, 77.0)], 6) == []
    assert Tail(tmp_path / "tail").unsent(-1, 9)[1] == [Point("loss", 6, 77.0)]


def test_a_measured_value_is_recorded_once_and_an_evaluation_can_be_done_again(tmp_path: Path) -> None:
    records = Records(tmp_path / "records")
    for now, value in enumerate([1.0, 2.0, 2.0]):
        records.add([Point("time/rate", 9, value)], now)
        records.add([Point("evaluation/return", 9, value)], now, is_revision=True)
    expected = [TimedPoint("time/rate", 9, 1.0, 0), TimedPoint("evaluation/return", 9, 1.0, 0), TimedPoint("evaluation/return", 9, 2.0, 1)]
    assert records.points() == Records(tmp_path / "records").points() == expected
    assert records.has_evaluation(9) is True
    assert records.has_evaluation(8) is False


def test_a_record_is_unsent_until_its_position_is_noted_and_a_damaged_one_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "records"
    records = Records(path)
    records.add([Point("time/rate", step, 0.5) for step in range(1, 6)], 7)
    assert [record.point.step for record in records.unsent(0, 3)] == [1, 2, 3]
    position = records.unsent(0, 3)[-1].end
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    again = Records(path)
    assert [record.point.step for record in again.unsent(position, 99)] == [4, 5]
    assert [point.step for point in again.points()] == [2, 3, 4, 5]


def test_a_full_disk_leaves_a_file_of_whole_lines_and_costs_no_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    records = Records(tmp_path / "records")
    records.add([Point("time/rate", 1, 0.1)], 1000)
    whole, file = records.path.read_bytes(), records._file._file

    class Full:
        def write(self, data: bytes) -> int:
            file.write(data[:10])
            raise OSError(28, "No space left on device")

        fileno = file.fileno

    monkeypatch.setattr(records._file, "_file", Full())
    records.add([Point("time/rate", 2, 0.2)], 2000)
    records.add([Point("time/rate", 3, 0.3)], 3000)
    assert records.path.read_bytes() == whole
    assert caplog.text.count("No space left on device. Metric points are held in memory") == 1, "said once"
    assert [record.point.step for record in records.unsent(0, 99)] == [1], "MLflow gets nothing that a crash could take back"
    with pytest.raises(OSError, match="No space"):
        records.flush()
    monkeypatch.setattr(records._file, "_file", file)
    records.flush()
    assert [(point.step, point.timestamp_ms) for point in Records(records.path).points()] == [(1, 1000), (2, 2000), (3, 3000)]


def test_a_flush_returns_when_the_disk_itself_has_every_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append((os.fstat(descriptor).st_ino, os.fstat(descriptor).st_size)))
    records = Records(tmp_path / "records")
    records.add([Point("time/rate", 1, 0.1)], 1000)
    assert synced == []
    records.flush()
    assert synced == [(records.path.stat().st_ino, records.path.stat().st_size)]


def test_the_last_row_is_found_without_reading_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    lines.CheckedLines(path).append([{"step": step} for step in range(9000)])
    with path.open("ab") as file:
        file.write(b"torn")
    assert lines.last_row(path) == {"step": 8999}
    assert lines.last_row(tmp_path / "none") is None


def test_points_expected_from_another_machine_are_written_when_they_are_computed_here(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "tail")
    tail.resume(0)
    tail.record(losses(range(1, 3)), 2)
    tail.expect(losses(range(3, 9)))
    tail.cut(1)
    again = Tail(tmp_path / "tail")
    assert (again.complete, again.unsent(-1, 99)) == (2, (1, losses(range(2, 3)))), "what is only expected is not here"
    assert tail.record(losses(range(3, 5)), 4) == []
    assert Tail(tmp_path / "tail").unsent(-1, 99) == (1, losses(range(2, 5)))
    (found,) = tail.record([Point(losses(range(5, 6))[0].key, 5, 9.0)], 5)
    assert (found.step, found.recomputed) == (5, 9.0)
