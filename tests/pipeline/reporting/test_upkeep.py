"""Upkeep: what dead processes left behind is put right, and what lives is left alone."""

import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipeline import cli, process, runs, tracking
from pipeline.metrics.journal import TimedPoint
from pipeline.reporting import upkeep
from pipeline.tracking import Tracker
from tests.pipeline.projects import until


class Point(NamedTuple):
    key: str
    step: int
    value: float


def work_of(project: Path, segment: str = "s00") -> Path:
    return project / ".matwm" / "work" / f"{segment}-0123456789ab"


def begun(project: Path, segment: str = "s00", tags: Mapping[str, str] | None = None) -> Tracker:
    """Return a tracker that has told MLflow of three points of a run and is then left as a killed process leaves it."""
    tracker = Tracker(project, "tests", work_of(project, segment), upload_seconds=0.02)
    tracker.start(None, segment, {"seed": "1"}, {"matwm.segment": segment, "matwm.key": str(time.monotonic_ns()), **(tags or {})})
    tracker.log([Point("loss", step, step / 7) for step in range(3)])
    until(lambda: tracker.missing() is None)
    tracker._abandoned.set()
    tracker._wake.set()
    tracker._thread.join()
    return tracker


def raw(run_id: str | None) -> Any:
    assert run_id
    return runs.client(runs.configured_uri()).get_run(run_id)


@pytest.fixture(params=["database", "server"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A project whose runs go to a database of its own, or to a real server."""
    if request.param == "database":
        return request.getfixturevalue("root")
    request.getfixturevalue("server")
    return tmp_path


def test_a_run_of_a_dead_process_is_killed_at_its_last_point_and_a_live_one_is_left_alone(project: Path) -> None:
    dead, alive = begun(project), begun(project, "s01")
    with process.exclusive(work_of(project, "s01") / "lock", "segment s01"):
        said = upkeep.settle(project, timeout=600)
    assert said == [f"run {str(dead.run_id)[:12]} (s00) was RUNNING, but its process is dead: it is KILLED now"]
    last = max(point.timestamp_ms for point in tracking.metric_history(str(dead.run_id)))
    assert (raw(dead.run_id).info.status, raw(dead.run_id).info.end_time) == ("KILLED", last)
    assert raw(alive.run_id).info.status == "RUNNING"
    assert [run.run_id for run in upkeep.close_dead(project)] == [alive.run_id]
    assert upkeep.settle(project, timeout=600) == []


def test_a_run_of_another_machine_is_not_touched(root: Path, tmp_path: Path) -> None:
    run = begun(root)
    shutil.rmtree(root / ".matwm")
    assert upkeep.close_dead(root) == []
    assert raw(run.run_id).info.status == "RUNNING"


def test_a_run_that_another_machine_went_on_with_is_not_touched(root: Path, tmp_path: Path) -> None:
    tags = {"matwm.key": "shared"}
    here = begun(root, tags=tags)
    elsewhere = Tracker(root, "tests", tmp_path / "elsewhere", upload_seconds=0.02)
    elsewhere.start(None, "s00", {}, {"matwm.segment": "s00", **tags})
    elsewhere.log([Point("loss", 3, 3 / 7)])
    assert elsewhere.close(None) is None
    assert elsewhere.run_id == here.run_id
    assert upkeep.close_dead(root) == []
    assert raw(here.run_id).info.status == "RUNNING"


def test_what_a_dead_process_could_not_send_is_sent_with_its_times_and_ends_killed(server: Any, tmp_path: Path) -> None:
    server.stop()
    told = {"matwm.segment": "s00", "matwm.key": str(time.monotonic_ns())}
    dead = Tracker(tmp_path, "tests", work_of(tmp_path), upload_seconds=0.02)
    began = time.time_ns() // 1_000_000
    dead.start(None, "s00", {"seed": "1"}, told, wait_seconds=0.1)
    dead.log([Point("loss", 1, 0.5)])
    dead._abandoned.set()
    dead._wake.set()
    dead._thread.join()
    (missing,) = upkeep.settle(tmp_path, timeout=600)
    assert (
        missing == f"MLflow at {server.uri} does not answer: start that server, or unset MLFLOW_TRACKING_URI to use this folder's own store"
    )
    server.start()
    with process.exclusive(work_of(tmp_path) / "lock", "segment s00"):
        assert upkeep.settle(tmp_path, timeout=600) == []
        assert tracking.find_by_key("s00", told["matwm.key"]) is None, "a live process sends it itself"
    assert upkeep.settle(tmp_path, timeout=600) == []
    run = tracking.find_by_key("s00", told["matwm.key"])
    assert run is not None
    (point,) = tracking.metric_history(run.run_id)
    assert point == TimedPoint("loss", 1, 0.5, point.timestamp_ms)
    assert (run.status, run.ended_ms) == ("KILLED", point.timestamp_ms)
    assert began <= run.started_ms <= point.timestamp_ms
    assert tracking.owes(work_of(tmp_path)) is False


def test_a_directory_that_only_adds_to_a_run_of_another_store_owes_this_one_nothing(root: Path) -> None:
    tracker = Tracker(root, "tests", work_of(root), upload_seconds=0.02)
    tracker.attach("0123456789abcdef0123456789abcdef")
    tracker.log([Point("evaluation/sampled/self_play/agent_0", 4, 1.0)])
    tracker.close(None)
    assert upkeep.settle(root, timeout=600) == []
    assert tracking.list_runs() == []


def test_a_run_without_any_sign_is_closed_when_a_person_says_so_and_a_live_one_is_not(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    alive, foreign = begun(root), begun(root, "s01")
    shutil.rmtree(work_of(root, "s01"))
    with process.exclusive(work_of(root) / "lock", "segment s00"):
        assert cli.main(["runs", "--close", str(alive.run_id)]) == 1
        assert "is being trained here at this moment" in capsys.readouterr().err
        assert cli.main(["runs", "--close", str(foreign.run_id)]) == 0
        assert f"run {str(foreign.run_id)[:12]} (s01) is KILLED now, since its last sign of life" in capsys.readouterr().err
    assert (raw(alive.run_id).info.status, raw(foreign.run_id).info.status) == ("RUNNING", "KILLED")


def test_whether_there_is_something_to_do_is_known_without_mlflow(root: Path) -> None:
    assert upkeep.has_work(root) is False
    begun(root)
    assert upkeep.has_work(root) is True, "its process is dead"
    assert upkeep.has_work(root, {work_of(root)}) is False, "whoever trains it next closes or goes on with it"
    upkeep.settle(root, timeout=600)
    assert upkeep.has_work(root) is False


TRAINER = """
import sys
import time
from pathlib import Path
from pipeline import runs
from pipeline.metrics.journal import TimedPoint
from pipeline.tracking import Tracker

root = Path(sys.argv[1])
runs.configure(root)
tracker = Tracker(root, "tests", root / ".matwm" / "work" / "s00-0123456789ab", upload_seconds=0.02)
tracker.start(None, "s00", {}, {"matwm.segment": "s00", "matwm.key": "0123456789abcdef"})
tracker.log([TimedPoint("loss", 1, 0.5, 0)])
while tracker.missing():
    time.sleep(0.01)
print(tracker.run_id, flush=True)
time.sleep(1000)
"""


def test_a_run_whose_work_directory_is_gone_is_killed_if_its_process_is_dead(root: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", TRAINER, str(root)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        run_id = process.stdout.readline().strip()
        shutil.rmtree(root / ".matwm")
        assert upkeep.close_dead(root) == [], "its process lives"
    finally:
        process.kill()
        process.wait()
    assert upkeep.settle(root, timeout=600) == [f"run {run_id[:12]} (s00) was RUNNING, but its process is dead: it is KILLED now"]
    (point,) = tracking.metric_history(run_id)
    assert (raw(run_id).info.status, raw(run_id).info.end_time) == ("KILLED", point.timestamp_ms)
