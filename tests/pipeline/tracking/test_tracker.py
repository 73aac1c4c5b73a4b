"""Tracking: MLflow ends up with every point once, whatever happened on the way, and training never waits for it."""

import json
import logging
import math
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from matwm.checkpoint import Checkpoint
from matwm.history import Point
from pipeline import runs, tracking
from pipeline.run import HEARTBEAT, Run
from pipeline.stores.mlflow import MlflowStore
from pipeline.tracking import TrackingError, heartbeat, sync, upkeep
from pipeline.tracking.heartbeat import Heartbeat, OwnedError
from pipeline.tracking.local_run import LocalRun
from tests.pipeline import in_mlflow
from tests.pipeline.projects import until
from tests.pipeline.servers import silent_server
from tests.pipeline.tracked import Trained, history, losses, new_key, plain, put_checkpoint


def raw_run(run_id: str | None) -> Any:
    return runs.client(runs.configured_uri()).get_run(run_id)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the methods of MLflow's client that are called."""
    from mlflow import MlflowClient

    called: list[str] = []
    for name in [name for name in vars(MlflowClient) if not name.startswith("_") and callable(getattr(MlflowClient, name))]:
        method = getattr(MlflowClient, name)

        def counted(*arguments: Any, name: str = name, method: Any = method, **named: Any) -> Any:
            called.append(name)
            return method(*arguments, **named)

        monkeypatch.setattr(MlflowClient, name, counted)
    return called


# Where the store is.


def test_the_store_is_the_one_that_mlflow_ui_without_flags_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from mlflow.tracking._tracking_service.utils import _get_default_tracking_uri

    monkeypatch.chdir(tmp_path)
    assert _get_default_tracking_uri() == "sqlite:///mlflow.db"
    assert runs.tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"


def test_a_queued_experiment_shares_the_store_of_its_project(tmp_path: Path):
    assert runs.tracking_uri(tmp_path / ".dvc" / "tmp" / "exps" / "abc") == f"sqlite:///{tmp_path}/mlflow.db"


def test_a_relative_database_is_one_of_the_project_and_a_server_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    assert runs.tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/other.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert runs.tracking_uri(tmp_path) == "http://host:5000"


def test_a_folder_of_files_is_refused_as_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    with pytest.raises(TrackingError, match=r"MLFLOW_TRACKING_URI is './mlruns'.*sqlite:///mlflow.db"):
        tracking.configure(tmp_path)


def test_the_run_that_mlflow_run_leaves_in_the_environment_is_taken_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    assert tracking.configure(tmp_path) == "abc"
    assert tracking.configure(tmp_path) is None


def test_importing_the_modules_does_not_import_mlflow():
    code = "import sys, pipeline.tracking.upkeep, pipeline.stores.table; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# What a run holds.


def test_a_run_holds_what_lies_in_its_work_directory(project: Path, tmp_path: Path) -> None:
    key = new_key()
    one = Trained(project, key, params={"seed": "1", "env.name": "simple_tag_v3"}, **{"matwm.until": "5"}).start().train(range(1, 6))
    (tmp_path / "return.png").write_bytes(b"png")
    one.run.artifact(tmp_path / "return.png", "plots")
    one.run.tag({"matwm.until": "9"})
    one.measure("time/rate", 5, 2.0)
    assert one.close() is None
    found = raw_run(one.run.run_id)
    assert found.data.params == {"train.seed": "1", "train.env.name": "simple_tag_v3"}
    assert {name: found.data.tags[name] for name in ("matwm.key", "matwm.until", "matwm.step", "mlflow.runName")} == {
        "matwm.key": key, "matwm.until": "9", "matwm.step": "5", "mlflow.runName": "s00",
    }  # fmt: skip
    assert found.info.status == "FINISHED"
    assert history(one.run.run_id) == plain([*losses(range(1, 6)), Point("time/rate", 5, 2.0)])
    times = {
        point.timestamp_ms - found.info.start_time for point in tracking.metric_history(str(one.run.run_id), keys=["world_model/loss"])
    }
    assert times == set(range(1, 6)), "one millisecond a step"
    client = runs.client(runs.configured_uri())
    assert [entry.path for entry in client.list_artifacts(one.run.run_id, "plots")] == ["plots/return.png"]


def test_more_labels_and_points_than_one_call_takes_all_arrive(project: Path) -> None:
    params, tags = {f"p{number}": str(number) for number in range(250)}, {f"t{number}": str(number) for number in range(150)}
    one = Trained(project, new_key(), params=params, **tags).start()
    one.run.log([point for step in range(1, 2501) for point in losses(range(step, step + 1))], 2500)
    assert one.close() is None
    found = raw_run(one.run.run_id)
    assert len(found.data.params) == 250
    assert tags.items() <= found.data.tags.items()
    assert history(one.run.run_id) == plain(losses(range(1, 2501)))


def test_values_longer_than_mlflow_takes_are_cut_and_stay_different(root: Path) -> None:
    one = Trained(root, new_key(), params={"a": "x" * 7000 + "a", "b": "x" * 7000 + "b"}, long="y" * 9000).start()
    assert one.close() is None
    params = raw_run(one.run.run_id).data.params
    assert len(params["train.a"]) <= 6000
    assert params["train.a"] != params["train.b"]
    assert raw_run(one.run.run_id).data.tags["long"].startswith("yyyy")


def test_artifacts_of_a_local_store_lie_at_an_absolute_place_in_the_project(root: Path) -> None:
    one = Trained(root, new_key()).start()
    one.close()
    assert raw_run(one.run.run_id).info.artifact_uri == str(root / "mlruns" / "tests" / str(one.run.run_id) / "artifacts")


# Exactly once, and nothing if nothing is pending.


def test_a_second_sync_calls_nothing(root: Path, calls: list[str]) -> None:
    one = Trained(root, new_key()).start().train(range(1, 9))
    one.measure("evaluation/return", 8, 1.0)
    assert one.close() is None
    assert calls
    calls.clear()
    run = LocalRun(one.run.work)
    assert run.has_pending(runs.configured_uri()) is False
    sync.sync(run)
    assert calls == []
    run.tag({"note": "mine"})
    sync.sync(run)
    assert "log_batch" in calls
    calls.clear()
    sync.sync(LocalRun(one.run.work))
    assert calls == []


def test_commands_ask_as_much_for_many_runs_in_order_as_for_one(root: Path, calls: list[str]) -> None:
    counts: list[int] = []
    for number in range(3):
        Trained(root, new_key(), f".matwm/work/s00-{number}").start().train(range(1, 4)).close()
        calls.clear()
        assert upkeep.settle(root) == []
        counts.append(len(calls))
    assert len(set(counts)) == 1
    assert not {"log_batch", "get_run", "set_tag", "get_metric_history"} & set(calls)
    calls.clear()
    assert upkeep.has_work(root) is False
    assert calls == []


def test_the_same_points_sent_twice_are_stored_once(project: Path) -> None:
    key = new_key()
    one = Trained(project, key).start()
    odd = [Point("odd", 1, math.nan), Point("odd", 2, math.inf), Point("odd", 3, -math.inf), Point("odd", 4, -0.1)]
    one.run.log([*odd, *losses(range(5, 1205))], 1204)
    one.measure("time/rate", 4, 2.0)
    assert one.close() is None
    run = LocalRun(one.run.work)
    with run.state.change() as contents:
        contents.synced, contents.records = -1, 0  # A crash came before this was noted.
    sync.sync(run)
    with run.state.change() as contents:
        contents.store = None  # Everything is compared.
    sync.sync(run)
    sent = tracking.metric_history(str(one.run.run_id))
    assert Counter((point.key, point.step) for point in sent) == Counter(
        (point.key, point.step) for point in [*losses(range(5, 1205)), *odd, Point("time/rate", 4, 2.0)]
    )
    assert [str(point.value) for point in sorted(sent, key=lambda point: point.step) if point.key == "odd"] == [
        "nan",
        "inf",
        "-inf",
        "-0.1",
    ]


def test_steps_computed_again_after_a_crash_are_stored_once(project: Path) -> None:
    key = new_key()
    first = Trained(project, key).start().train(range(1, 8))
    first.close("KILLED")
    assert raw_run(first.run.run_id).info.status == "KILLED"
    second = Trained(project, key, at=4, **{"matwm.until": "12"}).start()
    assert raw_run(first.run.run_id).info.status == "RUNNING"
    second.train(range(5, 12))
    assert second.close() is None
    assert second.run.run_id == first.run.run_id
    assert second.run.tail.mismatches.all() == []
    assert history(first.run.run_id) == plain(losses(range(1, 12)))


def test_one_step_of_two_machines_is_stored_once(project: Path) -> None:
    key = new_key()
    first = Trained(project, key).start().train(range(1, 8))
    first.measure("time/rate", 7, 30.0)
    first.measure("evaluation/return", 7, 1.0)
    first.close("KILLED")
    other = Trained(project, key, "other machine", at=4).start().train(range(5, 12))
    other.measure("time/rate", 7, 20.0)
    other.measure("evaluation/return", 7, 1.0)
    assert other.close("KILLED") is None
    assert other.run.run_id == first.run.run_id
    expected = [*losses(range(1, 12)), Point("time/rate", 7, 30.0), Point("evaluation/return", 7, 1.0)]
    assert history(first.run.run_id) == plain(expected)
    back = Trained(project, key, at=7).start().train(range(8, 14))
    assert back.close() is None
    assert history(first.run.run_id) == plain([*expected, *losses(range(12, 14))])


def test_who_sends_one_file_for_long_goes_on_showing_that_it_lives(
    root: Path, save: Callable[..., Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    put, seen = MlflowStore.put, []

    def slow(store: MlflowStore, run: Run, *arguments: Any) -> None:
        def beat() -> str:
            return raw_run(run.id).data.tags[HEARTBEAT]

        for _ in range(2):
            before = beat()
            until(lambda before=before: beat() != before, 60)
            seen.append(before)
        put(store, run, *arguments)

    monkeypatch.setattr(MlflowStore, "put", slow)
    one = Trained(root, new_key()).start()
    put_checkpoint(one.run, save(2))
    assert one.close() is None
    assert len(seen) == 2
    assert in_mlflow.steps(one.run.run_id) == [2]
    assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat"], "it ends with the file"


def test_a_request_that_arrives_late_stores_nothing_twice(root: Path) -> None:
    """The first machine's points are on their way while the second one takes the run over."""
    key = new_key()
    first = Trained(root, key).start()
    first.die()
    first.train(range(1, 8))
    late = [(point.key, point.value, point.step) for point in first.run.training_points(-1, 7)]
    shown = first.process.quiet_seconds
    second = Trained(root, key, "other machine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heartbeat.time, "sleep", lambda seconds: None)
        patch.setattr(Heartbeat, "_await_silence", lambda *_: None)
        second.start().train(range(1, 8))
    assert second.close() is None
    client, began = runs.client(runs.configured_uri()), raw_run(second.run.run_id).info.start_time
    for name, value, step in late:
        client.log_metric(second.run.run_id, name, value, timestamp=began + step, step=step)
    assert shown
    assert history(second.run.run_id) == plain(losses(range(1, 8)))


def test_a_resume_that_was_not_exact_is_reported_though_only_mlflow_remembers(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = new_key()
    first = Trained(project, key).start().train(range(1, 4))
    first.close("KILLED")
    elsewhere = Trained(project, key, "other machine").start()
    (mismatch,) = elsewhere.run.log([Point("world_model/loss", 2, 0.5)], 2)
    assert (mismatch.key, mismatch.step, mismatch.recorded, mismatch.recomputed) == ("world_model/loss", 2, 1 / 3, 0.5)
    assert "NOT REPRODUCED: world_model/loss at step 2" in caplog.text
    elsewhere.close()
    assert LocalRun(elsewhere.run.work).tail.mismatches.all() == [mismatch], "a later process knows it too"
    tags = raw_run(first.run.run_id).data.tags
    assert (tags["matwm.not_reproduced"], tags["matwm.not_reproduced_points"]) == (str(mismatch), "1")
    assert history(first.run.run_id) == plain(losses(range(1, 4)))


@pytest.mark.parametrize("damage", [slice(30, 34), slice(-9, None)])
def test_a_damaged_line_of_the_tail_is_computed_again_and_never_believed(root: Path, damage: slice) -> None:
    key = new_key()
    first = Trained(root, key)
    first.train(range(1, 9))
    first.run.close()
    data = bytearray(first.run.tail.path.read_bytes())
    data[damage] = b""
    first.run.tail.path.write_bytes(data)
    dead = LocalRun(first.run.work)
    dead.mark_killed()
    sync.sync(dead)
    assert set(history(dead.run_id)) < set(plain(losses(range(1, 9))))
    again = Trained(root, key).start().train(range(1, 9))
    assert again.close() is None
    assert history(dead.run_id) == plain(losses(range(1, 9)))


LOGGER = """
import sys
import time
from pathlib import Path
from pipeline import tracking
from tests.pipeline.tracked import Trained

root = Path(sys.argv[1])
tracking.configure(root)
one = Trained(root, "killed").start()
step = 0
while True:
    for _ in range(20):
        step += 1
        one.train(range(step, step + 1))
        time.sleep(0.0002)
    print(step, one.run.run_id, flush=True)
"""


def test_a_killed_process_loses_no_point_and_doubles_none(root: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", LOGGER, str(root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        for line in process.stdout:
            step, run_id = line.split()
            if int(step) >= 2000 and int(step) % 200 == 0 and run_id != "None" and history(run_id):
                break
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    again = Trained(root, "killed", at=int(step) - 500).start()
    assert again.run.run_id == run_id
    again.train(range(int(step) - 499, int(step) + 100))
    assert again.close() is None
    assert again.run.tail.mismatches.all() == []
    sent = history(run_id)
    assert max(Counter(pair[:2] for pair in sent).values()) == 1
    assert {number for _, number, _ in sent} >= set(range(1, int(step) + 100))


# A store that is lost.


def test_a_database_that_is_removed_is_rebuilt_with_each_point_once(root: Path, wait_until) -> None:
    key = new_key()
    one = Trained(root, key).start().train(range(1, 8))
    one.measure("evaluation/return", 7, 1.0)
    wait_until(lambda: one.run.state.now.synced >= 7)
    lost = one.run.run_id
    (root / "mlflow.db").unlink()
    one.train(range(8, 12))
    wait_until(lambda: one.run.run_id != lost)
    assert one.close() is None
    expected = plain([*losses(range(1, 12)), Point("evaluation/return", 7, 1.0)])
    assert history(one.run.run_id) == expected
    assert raw_run(one.run.run_id).info.status == "FINISHED"

    shutil.rmtree(root / ".matwm", ignore_errors=True)
    shutil.copytree(one.run.work, root / ".matwm/work/s00-0")
    (root / "mlflow.db").unlink()
    assert upkeep.settle(root, timeout=600) == []
    (found,) = tracking.list_runs()
    assert (found.run_id != one.run.run_id, found.status) == (True, "FINISHED")
    assert history(found.run_id) == expected
    assert upkeep.settle(root, timeout=600) == []
    assert [run.run_id for run in tracking.list_runs()] == [found.run_id]


def test_what_is_measured_while_all_points_are_compared_arrives_too(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Trained(root, new_key()).start().train(range(1, 4))
    one.measure("evaluation/return", 2, 1.0)
    assert one.close() is None
    two = Trained(root, str(one.run.state.now.key), "again")
    two.measure("evaluation/return", 2, 1.0)
    ask = runs.metric_history

    def slow(*arguments: Any) -> Any:
        found = ask(*arguments)
        two.measure("evaluation/return", 3, 5.0)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(runs, "metric_history", slow)
        two.start()
    two.train(range(1, 4))
    assert two.close() is None
    expected = plain([*losses(range(1, 4)), Point("evaluation/return", 2, 1.0), Point("evaluation/return", 3, 5.0)])
    assert sorted(set(history(one.run.run_id))) == expected


def test_a_store_that_takes_no_checkpoint_gets_the_rest_and_holds_nobody_up(
    root: Path, save: Callable[..., Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("413 Request Entity Too Large")

    monkeypatch.setattr(sync.MlflowStore, "put", refuse)
    one = Trained(root, new_key()).start().train(range(1, 4))
    put_checkpoint(one.run, save(2))
    one.measure("evaluation/return", 3, 1.0)
    began = time.monotonic()
    assert "lacks 1 artifact of" in (one.close(timeout=300, patience=1) or "")
    assert time.monotonic() - began < 200, "it does not wait for the whole of `timeout`"
    assert history(one.run.run_id) == plain([*losses(range(1, 4)), Point("evaluation/return", 3, 1.0)])
    assert raw_run(one.run.run_id).info.status == "FINISHED"


@pytest.mark.parametrize(("parent_work", "child_work"), [("s00-0", "s01-0"), ("s01-0", "s00-0")], ids=["parent first", "child first"])
def test_runs_of_a_removed_database_are_rebuilt_below_their_parents(root: Path, parent_work: str, child_work: str) -> None:
    parent = Trained(root, new_key(), f".matwm/work/{parent_work}").start().train(range(1, 4))
    parent.close()
    link = {"matwm.parent_run": str(parent.run.run_id), "mlflow.parentRunId": str(parent.run.run_id)}
    child = Trained(root, new_key(), f".matwm/work/{child_work}", **link).start().train(range(1, 4))
    child.close()
    (root / "mlflow.db").unlink()
    assert upkeep.settle(root, timeout=600) == []
    new_parent, new_child = LocalRun(parent.run.work).run_id, LocalRun(child.run.work).run_id
    assert new_parent != parent.run.run_id
    assert {raw_run(new_child).data.tags[name] for name in link} == {new_parent}
    LocalRun(child.run.work).tag({"note": "sent with all other tags"})
    assert upkeep.settle(root, timeout=600) == []
    tags = raw_run(new_child).data.tags
    assert ({tags[name] for name in link}, tags["note"]) == ({new_parent}, "sent with all other tags")


def test_a_run_that_its_experiment_lost_is_created_again_only_when_asked_to(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    runs.experiment_id(runs.configured_uri(), "tests")
    backup = (root / "mlflow.db").read_bytes()
    one = Trained(root, new_key(), ".matwm/work/s00-0").start().train(range(1, 4))
    one.close()
    (root / "mlflow.db").unlink()
    (root / "mlflow.db").write_bytes(backup)
    for _ in range(2):
        (sentence,) = upkeep.settle(root, timeout=3)
        assert "lacks 3 metric points" in sentence
    assert f"no longer run {one.run.run_id}" in caplog.text
    assert tracking.list_runs() == []
    assert upkeep.settle(root, timeout=600, recreates=True) == []
    (found,) = tracking.list_runs()
    assert history(found.run_id) == plain(losses(range(1, 4)))


def test_a_store_that_never_finds_a_run_gets_one_and_no_more(
    root: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runs, "get_run", lambda *_: None)
    monkeypatch.setattr(runs, "list_runs", lambda *_, **__: [])
    for _ in range(2):
        one = Trained(root, "a").start().train(range(1, 4))
        assert "lacks" in (one.close(patience=0.5) or "")
    assert calls.count("create_run") == 1
    assert "not created a second time" in caplog.text


def test_a_run_that_somebody_has_deleted_is_not_brought_back_by_a_command(root: Path) -> None:
    one = Trained(root, new_key(), ".matwm/work/s00-0").start().train(range(1, 4))
    one.close()
    runs.client(runs.configured_uri()).delete_run(one.run.run_id)
    LocalRun(one.run.work).tag({"note": "mine"})
    assert upkeep.settle(root, timeout=600) == []
    assert tracking.list_runs() == []


def test_a_copied_project_sends_nothing_into_the_originals_folder(
    root: Path, tmp_path: Path, save: Callable[..., Checkpoint], caplog: pytest.LogCaptureFixture
) -> None:
    one = Trained(root, new_key(), ".matwm/work/s00-0").start().train(range(1, 4))
    put_checkpoint(one.run, save(2))
    assert one.close() is None
    before = sorted((root / "mlruns").rglob("*"))
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    runs.configure(copy)
    two = Trained(copy, str(one.run.state.now.key), ".matwm/work/s00-0", at=2).start().train(range(3, 7))
    put_checkpoint(two.run, save(6))
    assert "lacks" in (two.close(patience=1) or "")
    assert f"keeps artifacts in {root / 'mlruns'}: this project was copied or moved from there" in caplog.text
    assert sorted((root / "mlruns").rglob("*")) == before
    runs.configure(root)
    assert history(one.run.run_id) == plain(losses(range(1, 4)))


# A server that is not there.


def test_a_server_that_is_down_for_a_whole_run_gets_everything_after_a_kill(server, tmp_path: Path, wait_until) -> None:
    server.stop()
    one = Trained(tmp_path, new_key(), ".matwm/work/s00-0").start(0.1).train(range(1, 6))
    one.measure("evaluation/return", 5, 1.0)
    one.measure("time/rate", 5, 2.0)
    one.die()
    (missing,) = upkeep.settle(tmp_path, timeout=600)
    assert "does not answer" in missing
    server.start()
    assert upkeep.settle(tmp_path, timeout=600) == [
        f"run {str(_only(tmp_path))[:12]} (s00) was RUNNING, but its process is dead: it is KILLED now"
    ]
    expected = [*losses(range(1, 6)), Point("evaluation/return", 5, 1.0), Point("time/rate", 5, 2.0)]
    assert history(_only(tmp_path)) == plain(expected)
    assert raw_run(_only(tmp_path)).info.status == "KILLED"


def _only(project: Path) -> str:
    (path,) = project.glob(".matwm/work/*/run.json")
    return json.loads(path.read_text(encoding="utf-8"))["run_id"]


def test_what_mlflow_lacks_is_said_and_sent_by_a_later_process(server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server.stop()
    key = new_key()
    first = Trained(tmp_path, key).start(0.1).train(range(1, 6))
    missing = first.close("KILLED", patience=0.5)
    first.tracker._thread.join()
    assert first.run.run_id is None
    assert missing == (
        f"MLflow at {server.uri} lacks 5 metric points, parameters and tags, the status KILLED of s00: "
        f"they are kept in {tmp_path / 'work'} and sent when it answers at the next run"
    )
    assert f"MLflow at {server.uri} does not answer" in caplog.text
    server.start()
    second = Trained(tmp_path, key, at=2).start().train(range(3, 8))
    assert second.close() is None
    assert history(second.run.run_id) == plain(losses(range(1, 8)))


def test_a_server_that_goes_and_comes_back_misses_nothing_and_doubles_nothing(server, tmp_path: Path, wait_until) -> None:
    one = Trained(tmp_path, new_key()).start().train(range(1, 5))
    wait_until(lambda: one.tracker.missing() is None)
    server.stop()
    one.train(range(5, 300))
    server.start()
    one.train(range(300, 310))
    assert one.close() is None
    assert history(one.run.run_id) == plain(losses(range(1, 310)))
    assert raw_run(one.run.run_id).info.status == "FINISHED"


def test_no_call_waits_for_a_server_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3600")
    with silent_server() as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        one = Trained(tmp_path, new_key()).start(0.1).train(range(1, 1001))
        one.run.artifact(tmp_path / "file")
        one.run.tag({"a": "b"})
        # All that returned while the first request has had no answer, and the end does not wait for it either.
        assert one.tracker._has_tried.is_set() is False
        assert "1000 metric points" in str(one.close("KILLED", timeout=0.1))


def test_only_the_trackers_own_thread_talks_to_mlflow(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    callers: set[str] = set()
    real = runs.client

    def client(uri: str) -> Any:
        callers.add(threading.current_thread().name)
        return real(uri)

    monkeypatch.setattr(runs, "client", client)
    (tmp_path / "file").touch()
    one = Trained(root, new_key()).start().train(range(1, 5))
    one.run.artifact(tmp_path / "file")
    assert one.close() is None
    assert callers == {"mlflow"}


# What goes wrong on the way.


def test_a_run_that_was_deleted_is_replaced_by_a_new_one_with_everything(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = new_key()
    first = Trained(project, key).start().train(range(1, 5))
    first.close("KILLED")
    runs.client(runs.configured_uri()).delete_run(first.run.run_id)
    second = Trained(project, key, at=2).start().train(range(3, 8))
    assert second.close() is None
    assert second.run.run_id != first.run.run_id
    assert f"has no run {first.run.run_id}" in caplog.text
    assert history(second.run.run_id) == plain(losses(range(1, 8)))
    assert raw_run(second.run.run_id).data.params == {"train.seed": "1"}


def test_a_run_goes_on_in_its_own_experiment_and_one_warning_names_it(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = new_key()
    first = Trained(root, key).start().train(range(1, 5))
    first.close()
    second = Trained(root, key, "again")
    with second.run.state.change() as contents:
        contents.experiment = "other"
    second.start().train(range(1, 8))
    assert second.close() is None
    assert second.run.run_id == first.run.run_id
    (line,) = [line for line in caplog.text.splitlines() if "tracking.experiment" in line]
    assert f"run {first.run.run_id[:12]} of experiment tests already" in line


def test_a_run_made_right_before_a_crash_gets_no_twin(root: Path) -> None:
    key = new_key()
    experiment = runs.experiment_id(runs.configured_uri(), "tests")
    made = runs.client(runs.configured_uri()).create_run(experiment, tags={"matwm.segment": "s00", "matwm.key": key}).info.run_id
    one = Trained(root, key).start()
    one.close()
    assert one.run.run_id == made


def test_a_twin_of_a_lost_answer_is_deleted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    create, key = MlflowClient.create_run, new_key()

    def twice(*arguments: Any, **named: Any) -> Any:
        create(*arguments, **named)
        return create(*arguments, **named)

    monkeypatch.setattr(MlflowClient, "create_run", twice)
    one = Trained(root, key).start().train(range(1, 5))
    assert one.close() is None
    assert [run.run_id for run in tracking.list_runs()] == [one.run.run_id]
    assert history(one.run.run_id) == plain(losses(range(1, 5)))


def test_of_two_machines_that_create_at_once_the_later_one_deletes_its_own_and_stops(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, find, first = new_key(), runs.find_by_key, None

    def found(*arguments: Any) -> Any:
        nonlocal first
        if first is None:
            result = find(*arguments)
            monkeypatch.setattr(runs, "find_by_key", find)
            first = Trained(root, key, "other machine").start()
            return result
        return find(*arguments)

    monkeypatch.setattr(runs, "find_by_key", found)
    monkeypatch.setattr(heartbeat, "LEAST_QUIET_SECONDS", 300.0)
    second = Trained(root, key)
    with second.run.state.change() as contents:
        contents.started = "2026-01-01T00:00:01.000+00:00"
    with pytest.raises(OwnedError):
        second.start()
    assert first is not None
    (left,) = tracking.list_runs()
    assert left.run_id == first.run.run_id
    first.train(range(1, 3))
    assert first.close() is None
    assert history(left.run_id) == plain(losses(range(1, 3)))


def test_a_parameter_keeps_its_first_value_and_the_rest_goes_on(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = new_key()
    first = Trained(root, key, params={"device": "cpu"}).start()
    first.close("KILLED")
    second = Trained(root, key, params={"device": "cuda", "threads": "2"}).start()
    assert second.close() is None
    assert raw_run(first.run.run_id).data.params == {"train.device": "cpu", "train.threads": "2"}
    assert "keeps train.device = cpu" in caplog.text


def test_a_point_that_mlflow_refuses_is_named_and_holds_up_no_other(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = Trained(project, new_key()).start()
    one.run.log([*losses(range(1, 3)), Point("bad#name", 3, 1.0), *losses(range(4, 6))], 6)
    assert one.close() is None
    assert history(one.run.run_id) == plain([*losses(range(1, 3)), *losses(range(4, 6))])
    assert "bad#name" in caplog.text


def test_a_mistake_in_the_thread_is_loud_and_ends_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, mistakes = sync._Sync._send_training_points, [ZeroDivisionError("a mistake")]

    def send(self: Any, until: int) -> None:
        if mistakes:
            raise mistakes.pop()
        real(self, until)

    monkeypatch.setattr(sync._Sync, "_send_training_points", send)
    one = Trained(root, new_key()).start().train(range(1, 5))
    assert one.close() is None
    assert history(one.run.run_id) == plain(losses(range(1, 5)))
    assert [record.levelno for record in caplog.records if "unexpected error" in record.message] == [logging.ERROR]


def test_an_artifact_that_is_gone_is_named_and_holds_up_no_other(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "there").touch()
    one = Trained(root, new_key()).start()
    one.run.artifact(tmp_path / "gone")
    one.run.artifact(tmp_path / "there")
    assert one.close() is None
    assert [entry.path for entry in runs.client(runs.configured_uri()).list_artifacts(one.run.run_id)] == ["there"]
    assert f"{tmp_path / 'gone'} is gone" in caplog.text


def test_a_damaged_checkpoint_is_not_sent(root: Path, save: Callable[..., Checkpoint], caplog: pytest.LogCaptureFixture) -> None:
    one = Trained(root, new_key())
    put_checkpoint(one.run, save(100))
    (one.run.folder(100) / "progress.json").write_text("{}")
    one.start()
    assert one.close() is None
    assert in_mlflow.steps(str(one.run.run_id)) == []
    assert "progress.json" in caplog.text


def test_facts_that_cannot_be_read_cost_no_point(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = new_key()
    first = Trained(root, key).start().train(range(1, 5))
    first.close("KILLED")
    (first.run.work / "run.json").write_text('{"run_id": ')
    second = Trained(root, key, at=2).start().train(range(3, 7))
    assert second.close() is None
    assert second.run.run_id == first.run.run_id
    assert history(first.run.run_id) == plain(losses(range(1, 7)))
    assert "run.json cannot be read" in caplog.text


def test_a_thread_that_nobody_waits_for_writes_nothing_in_a_directory_that_may_be_anothers(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, is_sending, may_return = sync._Sync._send_batch, threading.Event(), threading.Event()

    def slow(self: Any, points: Any) -> None:
        real(self, points)
        is_sending.set()
        may_return.wait()

    monkeypatch.setattr(sync._Sync, "_send_batch", slow)
    one = Trained(root, new_key()).start(0.1).train(range(1, 6))
    assert is_sending.wait(60)
    assert "metric points" in str(one.close("KILLED", timeout=0.1))
    before = {path: path.read_bytes() for path in one.run.work.iterdir()}
    may_return.set()
    one.tracker._thread.join()
    assert {path: path.read_bytes() for path in one.run.work.iterdir()} == before


# Two machines at once.


def test_a_run_that_lives_elsewhere_is_refused_and_left_as_it_is(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "LEAST_QUIET_SECONDS", 300.0)  # of which a sign of life needs none
    key = new_key()
    first = Trained(project, key).start().train(range(1, 5))
    second = Trained(project, key, "another machine")
    with pytest.raises(OwnedError, match=rf"is being trained elsewhere.*matwm runs --close {str(first.run.run_id)[:12]}"):
        second.start()
    second.die()
    assert raw_run(first.run.run_id).info.status == "RUNNING"
    first.tracker.check()
    first.train(range(5, 8))
    assert first.close() is None
    assert history(first.run.run_id) == plain(losses(range(1, 8)))


def test_a_process_whose_run_another_one_owns_sends_nothing_more(project: Path, wait_until) -> None:
    key = new_key()
    first = Trained(project, key).start().train(range(1, 5))
    wait_until(lambda: first.run.state.now.synced >= 4)
    runs.client(runs.configured_uri()).set_tag(first.run.run_id, HEARTBEAT, f"another {time.time_ns() // 1_000_000} 5000")
    first.tracker._thread.join(60)
    with pytest.raises(OwnedError, match="another process owns run"):
        first.tracker.check()
    first.train(range(5, 8))
    assert first.tracker.close() is None
    assert history(first.run.run_id) == plain(losses(range(1, 5)))
    assert raw_run(first.run.run_id).info.status == "RUNNING", "it is the other one's to end"


def test_how_a_process_ended_is_no_news_when_another_machine_has_finished_the_run(root: Path) -> None:
    key = new_key()
    dead = Trained(root, key).start().train(range(1, 3))
    dead.die()
    other = Trained(root, key, "another machine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Heartbeat, "_await_silence", lambda *_: None)
        other.start().train(range(1, 8))
    other.close()
    left = LocalRun(dead.run.work)
    assert left.mark_killed() is True
    sync.sync(left)
    assert raw_run(other.run.run_id).info.status == "FINISHED"
    assert history(other.run.run_id) == plain(losses(range(1, 8)))
    assert left.has_pending(runs.configured_uri()) is False


# A work directory of an earlier version.


def old_work(project: Path, key: str, points: range, sent: range) -> Path:
    """Make a work directory of 5774db8 in the midst of a run of which MLflow has some points, at the times of a clock."""
    uri, work = runs.configured_uri(), project / "work"
    experiment = runs.experiment_id(uri, "tests")
    tags = {"matwm.segment": "s00", "matwm.key": key, "matwm.writer": "w"}
    made = runs.client(uri).create_run(experiment, tags=tags, start_time=1000).info.run_id
    for step in sent:
        runs.client(uri).log_metric(made, "world_model/loss", 1 / (1 + step), timestamp=5000 + step, step=step)
    runs.client(uri).log_metric(made, "time/rate", 2.0, timestamp=6000, step=1)
    runs.client(uri).set_tag(made, "matwm.step", str(points[-1]))
    work.mkdir()
    rows = [{"key": "world_model/loss", "step": step, "value": 1 / (1 + step), "timestamp_ms": 5000 + step} for step in points]
    rows += [{"key": "time/rate", "step": 1, "value": 2.0, "timestamp_ms": 6000}]
    (work / "journal.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (work / "journal.sent.json").write_text(json.dumps({"run_id": made, "bytes": 0}))
    outbox = {
        "run_id": made,
        "writer": "w",
        "name": "s00",
        "experiment": "tests",
        "params": {"train.seed": "1"},
        "tags": tags,
        "uploads": [],
    }
    (work / "outbox.json").write_text(json.dumps({**outbox, "status": None, "is_running": True, "started_ms": 1000}))
    (work / "run.json").write_text(json.dumps({"run_id": made, "segment": "s00", "key": key, "started": "1970-01-01T00:00:01+00:00"}))
    return work


def test_an_old_work_directory_is_taken_over_with_each_point_once(root: Path) -> None:
    key = new_key()
    work = old_work(root, key, range(1, 9), range(1, 5))
    made = json.loads((work / "run.json").read_text())["run_id"]
    one = Trained(root, key).start().train(range(1, 12))
    assert one.close() is None
    assert one.run.run_id == made
    assert one.run.tail.mismatches.all() == []
    assert history(made) == plain([*losses(range(1, 12)), Point("time/rate", 1, 2.0)])
    assert not [path.name for path in work.iterdir() if path.name.startswith(("journal", "outbox"))]


def test_an_old_work_directory_of_a_dead_process_is_finished_by_a_command(root: Path) -> None:
    key = new_key()
    work = old_work(root, key, range(1, 9), range(1, 5))
    run = LocalRun(work)
    assert run.mark_killed() is True
    sync.sync(run)
    assert history(run.run_id) == plain([*losses(range(1, 9)), Point("time/rate", 1, 2.0)])
    assert raw_run(run.run_id).info.status == "KILLED"


# Adding to a run afterwards.


def test_a_later_stage_adds_to_a_run_and_leaves_its_status(project: Path) -> None:
    one = Trained(project, new_key()).start().train(range(1, 5))
    one.close()
    ended = raw_run(one.run.run_id).info.end_time
    for value in (1.0, 1.0, 2.0):
        later = LocalRun(one.run.work)
        later.records.add([Point("evaluation/return", 4, value)], time.time_ns() // 1_000_000, is_revision=True)
        sync.sync(later)
    assert (raw_run(one.run.run_id).info.status, raw_run(one.run.run_id).info.end_time) == ("FINISHED", ended)
    assert history(one.run.run_id) == plain([*losses(range(1, 5)), Point("evaluation/return", 4, 1.0), Point("evaluation/return", 4, 2.0)])


def test_a_run_of_another_store_is_left_out_with_a_warning(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = LocalRun(root / "work")
    with run.state.change() as contents:
        contents.segment, contents.key, contents.run_id = "s00", "k", "0123456789abcdef0123456789abcdef"
    run.records.add([Point("evaluation/return", 4, 1.0)], 1)
    sync.sync(run)
    assert "has no run 0123456789abcdef0123456789abcdef" in caplog.text
    assert run.has_pending(runs.configured_uri()) is False
    assert tracking.list_runs() == []


# Looking runs up.


def make(segment: str, key: str, started_ms: int | None = None, **tags: str) -> str:
    """Make a run with an ID of MLflow's choice."""
    all_tags = {"matwm.segment": segment, "matwm.key": key, **{f"matwm.{name}": value for name, value in tags.items()}}
    uri = runs.configured_uri()
    return runs.client(uri).create_run(runs.experiment_id(uri, f"of {segment}"), started_ms, all_tags, segment).info.run_id


def test_runs_are_listed_over_all_experiments_newest_first_with_their_lineage(root: Path):
    first = make("s00", "a", step="25000")
    second = make("s01", "b", step="30000", parent_run=first, parent_step="25000")
    uri = runs.configured_uri()
    runs.client(uri).create_run("0")  # Somebody else's.
    listed = tracking.list_runs()
    assert {run.run_id: (run.segment, run.parent_run_id, run.parent_step, run.step, run.status, run.experiment) for run in listed} == {
        first: ("s00", None, None, 25000, "RUNNING", "of s00"),
        second: ("s01", first, 25000, 30000, "RUNNING", "of s01"),
    }


def test_the_newest_run_of_a_key_is_found_unless_it_is_deleted(root: Path):
    older, newer = make("s00", "a", 1000), make("s00", "a", 1001)
    make("s00", "b")
    make("s01", "a")
    found = tracking.find_by_key("s00", "a")
    assert found is not None
    assert found.run_id == newer
    runs.client(runs.configured_uri()).delete_run(newer)
    found = tracking.find_by_key("s00", "a")
    assert found is not None
    assert found.run_id == older
    assert tracking.find_by_key("s00", "c") is None


def test_looking_into_a_store_that_is_not_there_makes_none(tmp_path: Path):
    tracking.configure(tmp_path)
    assert tracking.list_runs() == []
    assert tracking.get_run("0" * 32) is None
    assert list(tmp_path.iterdir()) == []


def test_a_dead_server_is_named_in_one_sentence_without_its_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:1")
    tracking.configure(tmp_path)
    with pytest.raises(TrackingError, match=r"^MLflow at http://\*\*\*@127.0.0.1:1 does not answer: [^\n]*$") as refused:
        tracking.list_runs()
    assert "secret" not in str(refused.value)
