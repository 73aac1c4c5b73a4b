"""Upkeep: what dead processes left behind is put right, and what lives is left alone."""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import cli, process, runs, tracking
from pipeline import project as places
from pipeline.run import HEARTBEAT
from pipeline.tracking import upkeep
from pipeline.tracking.heartbeat import Heartbeat
from tests.pipeline.projects import until
from tests.pipeline.tracked import Trained, history, losses, new_key, plain


def work_of(segment: str = "s00") -> str:
    return f".matwm/work/{segment}-0123456789ab"


def begun(project: Path, segment: str = "s00", key: str | None = None) -> Trained:
    """Return a run of three points as a killed process leaves it."""
    one = Trained(project, key or new_key(), work_of(segment)).start().train(range(1, 4))
    until(lambda: one.tracker.missing() is None)
    one.die()
    return one


def raw(run_id: str | None) -> Any:
    assert run_id
    return runs.client(runs.configured_uri()).get_run(run_id)


def silence(run_id: str | None) -> None:
    """Have the last heartbeat of a run be as old as that of a dead process."""
    runs.client(runs.configured_uri()).set_tag(str(run_id), HEARTBEAT, f"somebody {time.time_ns() // 1_000_000 - 9000} 5000")


def test_a_run_of_a_dead_process_is_killed_and_a_live_one_is_left_alone(project: Path) -> None:
    dead, alive = begun(project), begun(project, "s01")
    with process.exclusive(alive.run.work / "lock", "segment s01"):
        said = upkeep.settle(project, timeout=600)
    assert said == [f"run {str(dead.run.run_id)[:12]} (s00) was RUNNING, but its process is dead: it is KILLED now"]
    last = dead.run.tail.path.stat().st_mtime
    assert (raw(dead.run.run_id).info.status, raw(dead.run.run_id).info.end_time) == ("KILLED", round(1000 * last))
    assert raw(alive.run.run_id).info.status == "RUNNING"
    assert [run.run_id for run in upkeep.close_dead(project)] == [alive.run.run_id]
    assert upkeep.settle(project, timeout=600) == []


def test_live_are_the_runs_whose_work_directory_a_process_holds(tmp_path: Path) -> None:
    works = [tmp_path / work_of(f"s{number:02}") for number in range(3)]
    for number, work in enumerate(works):
        places.write_json(work / "run.json", {"run_id": f"run{number}" if number else None})
    assert upkeep.live(tmp_path) == set()
    with process.exclusive(works[0] / "lock", "segment s00"), process.exclusive(works[1] / "lock", "segment s01"):
        assert upkeep.live(tmp_path) == {"run1"}


def test_a_run_of_another_machine_is_not_touched(server: Any, tmp_path: Path) -> None:
    one = begun(tmp_path)
    shutil.rmtree(tmp_path / ".matwm")
    silence(one.run.run_id)
    assert upkeep.close_dead(tmp_path) == []
    assert raw(one.run.run_id).info.status == "RUNNING"


def test_a_run_that_another_machine_went_on_with_is_not_touched(root: Path) -> None:
    here = begun(root, key="shared")
    elsewhere = Trained(root, "shared", "elsewhere")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Heartbeat, "_await_silence", lambda *_: None)
        elsewhere.start().train(range(1, 6))
    elsewhere.die()
    assert elsewhere.run.run_id == here.run.run_id
    assert upkeep.close_dead(root) == []
    assert raw(here.run.run_id).info.status == "RUNNING"


def test_a_live_process_sends_what_mlflow_lacks_itself(server: Any, tmp_path: Path) -> None:
    server.stop()
    key = new_key()
    dead = Trained(tmp_path, key, work_of()).start(0.1).train(range(1, 2))
    dead.die()
    server.start()
    with process.exclusive(dead.run.work / "lock", "segment s00"):
        assert upkeep.settle(tmp_path, timeout=600) == []
        assert tracking.find_by_key("s00", key) is None
    upkeep.settle(tmp_path, timeout=600)
    found = tracking.find_by_key("s00", key)
    assert found is not None
    assert history(found.run_id) == plain(losses(range(1, 2)))
    assert found.status == "KILLED"
    assert upkeep.has_work(tmp_path) is False


def test_a_run_without_any_sign_is_closed_when_a_person_says_so_and_a_live_one_is_not(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    alive, foreign = begun(root), begun(root, "s01")
    shutil.rmtree(foreign.run.work)
    runs.client(runs.configured_uri()).set_tag(str(foreign.run.run_id), HEARTBEAT, f"somebody {time.time_ns() // 1_000_000} 600000")
    with process.exclusive(alive.run.work / "lock", "segment s00"):
        assert cli.main(["runs", "--close", str(alive.run.run_id)]) == 1
        assert "is being trained here at this moment" in capsys.readouterr().err
        assert cli.main(["runs", "--close", str(foreign.run.run_id)]) == 0
        assert f"run {str(foreign.run.run_id)[:12]} (s00) is KILLED now, since its last sign of life" in capsys.readouterr().err
    assert (raw(alive.run.run_id).info.status, raw(foreign.run.run_id).info.status) == ("RUNNING", "KILLED")


def test_whether_there_is_something_to_do_is_known_without_mlflow(root: Path) -> None:
    assert upkeep.has_work(root) is False
    one = begun(root)
    assert upkeep.has_work(root) is True, "its process is dead"
    assert upkeep.has_work(root, {one.run.work}) is False, "whoever trains it next closes or goes on with it"
    upkeep.settle(root, timeout=600)
    assert upkeep.has_work(root) is False


TRAINER = """
import sys
import time
from pathlib import Path
from pipeline import runs
from tests.pipeline.tracked import Trained

root = Path(sys.argv[1])
runs.configure(root)
one = Trained(root, "0123456789abcdef", ".matwm/work/s00-0123456789ab").start().train(range(1, 2))
while one.tracker.missing():
    time.sleep(0.01)
print(one.run.run_id, flush=True)
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
    silence(run_id)
    assert upkeep.settle(root, timeout=600) == [f"run {run_id[:12]} (s00) was RUNNING, but its process is dead: it is KILLED now"]
    assert raw(run_id).info.status == "KILLED"


def test_a_work_directory_that_refuses_to_be_written_keeps_nobody_from_looking(project: Path) -> None:
    one = begun(project)
    lock = one.run.work / "lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()
    assert upkeep.settle(project) == [f"{lock} cannot be used (Is a directory): what MLflow lacks of earlier runs is not sent"]
    lock.rmdir()
    assert [sentence.rpartition(": ")[2] for sentence in upkeep.settle(project, timeout=600)] == ["it is KILLED now"]
