"""Tracking: MLflow ends up with every point once, whatever happened on the way, and training never waits for it."""

import logging
import math
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from matwm.checkpoint import Checkpoint
from pipeline import runs, tracking
from pipeline.reporting import delivery, life
from pipeline.tracking import Tracker, TrackingError
from tests.pipeline import in_mlflow
from tests.pipeline.servers import silent_server


class Point(NamedTuple):
    key: str
    step: int
    value: float


@pytest.fixture(params=["database", "server"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A project whose metrics go to a database of its own, or to a real server."""
    if request.param == "database":
        return request.getfixturevalue("root")
    request.getfixturevalue("server")
    return tmp_path


def keys() -> dict[str, str]:
    """Tags of a training that no other test has: the server outlives them all."""
    return {"matwm.segment": "s00", "matwm.key": str(time.monotonic_ns())}


class PatientTracker(Tracker):
    """Waits for the first answer of any store as long as a slow machine takes."""

    def _begin(self, wait_seconds: float | None) -> None:
        super()._begin(300.0 if wait_seconds is None else wait_seconds)


def tracker(project: Path, work: str = "work", **options: Any) -> Tracker:
    return PatientTracker(project, "tests", project / work, upload_seconds=0.02, **options)


def history(run_id: str | None) -> list[tuple[str, int, float]]:
    assert run_id
    return sorted((point.key, point.step, point.value) for point in tracking.metric_history(run_id))


def raw_run(run_id: str | None) -> Any:
    return runs.client(runs.configured_uri()).get_run(run_id)


def losses(steps: range) -> list[Point]:
    return [Point("world_model/loss", step, 1 / (1 + step)) for step in steps]


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
    code = "import sys, pipeline.tracking, pipeline.stores.table; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# What a run holds.


def test_a_run_holds_what_it_was_told(project: Path, save: Callable[..., Checkpoint], tmp_path: Path):
    told = keys()
    run = tracker(project)
    run.start(None, "s00", {"seed": "1", "train.env.name": "simple_tag_v3"}, {**told, "matwm.until": "5"})
    run.log(losses(range(5)))
    (tmp_path / "result.json").write_text("{}")
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "return.png").write_bytes(b"png")
    run.artifact(tmp_path / "result.json", "evaluation")
    run.artifact(tmp_path / "plots", "plots")
    run.artifact(save(200).path, "checkpoints")
    run.tag({"matwm.until": "9"})
    assert run.close("FINISHED") is None

    found = raw_run(run.run_id)
    assert found.data.params == {"train.seed": "1", "train.env.name": "simple_tag_v3"}
    assert {key: found.data.tags[key] for key in (*told, "matwm.until", "matwm.step", "mlflow.runName")} == {
        **told, "matwm.until": "9", "matwm.step": "4", "mlflow.runName": "s00",
    }  # fmt: skip
    assert found.info.status == "FINISHED"
    assert history(run.run_id) == sorted(losses(range(5)))
    client = runs.client(run.uri)
    assert [entry.path for entry in client.list_artifacts(run.run_id, "evaluation")] == ["evaluation/result.json"]
    assert [entry.path for entry in client.list_artifacts(run.run_id, "plots")] == ["plots/return.png"]
    assert in_mlflow.steps(run.run_id or "") == [200]


def test_more_labels_and_points_than_one_call_takes_all_arrive(project: Path):
    params, tags = {f"p{number}": str(number) for number in range(250)}, {f"t{number}": str(number) for number in range(150)}
    run = tracker(project)
    run.start(None, "s00", params, {**keys(), **tags})
    run.log(losses(range(2500)))
    assert run.close("FINISHED") is None
    found = raw_run(run.run_id)
    assert len(found.data.params) == 250
    assert tags.items() <= found.data.tags.items()
    assert history(run.run_id) == sorted(losses(range(2500)))


def test_values_longer_than_mlflow_takes_are_cut_and_stay_different(root: Path):
    run = tracker(root)
    run.start(None, "s00", {"a": "x" * 7000 + "a", "b": "x" * 7000 + "b"}, {**keys(), "long": "y" * 9000})
    assert run.close("FINISHED") is None
    params = raw_run(run.run_id).data.params
    assert len(params["train.a"]) <= 6000
    assert params["train.a"] != params["train.b"]
    assert raw_run(run.run_id).data.tags["long"].startswith("yyyy")


def test_artifacts_of_a_local_store_lie_at_an_absolute_place_in_the_project(root: Path):
    run = tracker(root)
    run.start(None, "s00", {}, keys())
    run.close("FINISHED")
    assert raw_run(run.run_id).info.artifact_uri == str(root / "mlruns" / "tests" / str(run.run_id) / "artifacts")


# Exactly once.


def test_the_same_journal_sent_twice_is_stored_once(project: Path):
    run = tracker(project)
    run.start(None, "s00", {}, keys())
    odd = [Point("odd", 0, math.nan), Point("odd", 1, math.inf), Point("odd", 2, -math.inf), Point("odd", 3, -0.1)]
    run.log([*losses(range(1200)), *odd])
    assert run.close("FINISHED") is None
    (project / "work" / "journal.sent.json").unlink()
    again = tracker(project)
    assert "1204 metric points" in str(again.missing())
    again.start(run.run_id, "s00", {}, {})
    assert again.close("FINISHED") is None
    assert again.run_id == run.run_id
    sent = tracking.metric_history(str(run.run_id))
    assert Counter((point.key, point.step) for point in sent) == Counter((point.key, point.step) for point in [*losses(range(1200)), *odd])
    assert [str(point.value) for point in sorted(sent, key=lambda point: point.step) if point.key == "odd"] == [
        "nan",
        "inf",
        "-inf",
        "-0.1",
    ]


def test_steps_computed_again_after_a_crash_are_stored_once(project: Path):
    told = keys()
    first = tracker(project)
    first.start(None, "s00", {"seed": "1"}, told)
    first.log(losses(range(8)))
    first.close("KILLED")
    assert raw_run(first.run_id).info.status == "KILLED"

    second = tracker(project)
    second.start(None, "s00", {"seed": "1"}, {**told, "matwm.until": "12"})
    assert raw_run(first.run_id).info.status == "RUNNING"
    assert second.log(losses(range(5, 12))) == []
    assert second.close("FINISHED") is None
    assert second.run_id == first.run_id
    assert history(first.run_id) == sorted(losses(range(12)))


def test_a_lost_work_directory_is_made_up_for_by_the_runs_history(project: Path):
    told = keys()
    first = tracker(project)
    first.start(None, "s00", {}, told)
    first.log([*losses(range(8)), Point("time/steps_per_second", 7, 30.0), Point("agents/loss", 7, math.inf)])
    first.close("KILLED")

    elsewhere = tracker(project, "other machine")
    elsewhere.start(None, "s00", {}, told)
    again = [*losses(range(5, 12)), Point("time/steps_per_second", 7, 20.0), Point("agents/loss", 7, math.inf)]
    assert elsewhere.log(again) == []
    assert elsewhere.close("KILLED") is None
    assert elsewhere.run_id == first.run_id
    expected = sorted([*losses(range(12)), Point("time/steps_per_second", 7, 30.0), Point("agents/loss", 7, math.inf)])
    assert history(first.run_id) == expected

    # And back on the first machine, whose journal knows nothing of the second's turn.
    back = tracker(project)
    back.start(None, "s00", {}, told)
    assert back.log(losses(range(10, 14))) == []
    assert back.close("FINISHED") is None
    assert history(first.run_id) == sorted([*expected, *losses(range(12, 14))])


def test_a_resume_that_was_not_exact_is_reported_though_only_mlflow_remembers(project: Path, caplog: pytest.LogCaptureFixture):
    told = keys()
    first = tracker(project)
    first.start(None, "s00", {}, told)
    first.log(losses(range(3)))
    first.close("KILLED")
    elsewhere = tracker(project, "other machine")
    elsewhere.start(None, "s00", {}, told)
    (mismatch,) = elsewhere.log([Point("world_model/loss", 2, 0.5)])
    assert (mismatch.key, mismatch.step, mismatch.recorded, mismatch.recomputed) == ("world_model/loss", 2, 1 / 3, 0.5)
    assert "NOT REPRODUCED: world_model/loss at step 2" in caplog.text
    elsewhere.log([Point("world_model/loss", 1, 0.75)])
    elsewhere.close("FINISHED")
    assert elsewhere.mismatches[0] == mismatch
    again = tracker(project, "other machine")
    assert len(again.mismatches) == 2, "a later process knows it too"
    tags = raw_run(first.run_id).data.tags
    assert (tags["matwm.not_reproduced"], tags["matwm.not_reproduced_points"]) == (str(mismatch), "2")
    assert history(first.run_id) == sorted(losses(range(3)))


LOGGER = """
import sys
import time
from pathlib import Path
from typing import NamedTuple
from pipeline import tracking

class Point(NamedTuple):
    key: str
    step: int
    value: float

root = Path(sys.argv[1])
tracking.configure(root)
run = tracking.Tracker(root, "tests", root / "work", upload_seconds=0.01)
run.start(None, "s00", {}, {"matwm.segment": "s00", "matwm.key": "killed"})
step = 0
while True:
    for _ in range(20):
        run.log([Point("loss", step, step / 7), Point("other", step, step / 3)])
        step += 1
        time.sleep(0.0002)
    print(step, run.run_id, flush=True)
"""


def test_a_killed_process_loses_no_point_and_doubles_none(root: Path):
    process = subprocess.Popen([sys.executable, "-c", LOGGER, str(root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        for line in process.stdout:
            step, run_id = line.split()
            if int(step) >= 2000 and int(step) % 200 == 0 and history(run_id):
                break
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    again = tracker(root)
    again.start(None, "s00", {}, {"matwm.segment": "s00", "matwm.key": "killed"})
    assert again.run_id == run_id
    again.log([Point("loss", number, number / 7) for number in range(int(step) - 500, int(step) + 100)])
    assert again.mismatches == []
    assert again.close("FINISHED") is None
    sent = history(run_id)
    assert Counter((key, number) for key, number, _ in sent).most_common(1)[0][1] == 1
    assert {number for key, number, _ in sent if key == "loss"} >= set(range(int(step) + 100))
    assert {number for key, number, _ in sent if key == "other"} >= set(range(int(step)))


def test_a_journal_cut_at_any_byte_doubles_nothing_and_loses_nothing(root: Path):
    """Not even where MLflow has points already that the journal has not any more (a file system that lost what it had confirmed)."""
    told, told_points = keys(), losses(range(200))
    first = tracker(root)
    first.start(None, "s00", {}, told)
    first.log(told_points)
    first.close("KILLED")
    whole, notes = first.journal.path.read_bytes(), first.journal.path.with_suffix(".sent.json").read_bytes()
    expected = sorted(tracking.metric_history(str(first.run_id)))
    assert len(expected) == 200
    for cut in range(1, 201, 20):
        first.journal.path.write_bytes(whole[:-cut])
        first.journal.path.with_suffix(".sent.json").write_bytes(notes)
        again = tracker(root)
        again.start(None, "s00", {}, told)
        again.log(told_points[150:])
        assert again.close("KILLED") is None
        assert again.mismatches == []
        assert sorted(tracking.metric_history(str(first.run_id))) == expected


# A server that is not there.


def test_a_server_that_is_down_at_the_start_gets_everything_from_a_later_run(
    server, tmp_path: Path, save: Callable[..., Checkpoint], caplog: pytest.LogCaptureFixture
):
    server.stop()
    told, known = keys(), []
    first = tracker(tmp_path, on_run=known.append)
    first.start(None, "s00", {"seed": "1"}, told)
    first.log(losses(range(5)))
    first.artifact(save(100).path, "checkpoints")
    missing = first.close("KILLED", patience=0.5)
    first._thread.join()
    assert first.run_id is None
    assert known == []
    assert missing == (
        f"MLflow at {server.uri} lacks 5 metric points, 1 artifact, parameters and tags, the status KILLED of s00: "
        f"they are kept in {tmp_path / 'work'} and sent when it answers at the next run"
    )
    assert f"MLflow at {server.uri} does not answer" in caplog.text

    server.start()
    second = tracker(tmp_path, on_run=known.append)
    second.start(None, "s00", {"seed": "1"}, told)
    second.log(losses(range(3, 8)))
    assert second.close("FINISHED") is None
    assert known == [second.run_id]
    assert history(second.run_id) == sorted(losses(range(8)))
    assert in_mlflow.steps(str(second.run_id)) == [100]
    assert raw_run(second.run_id).data.params == {"train.seed": "1"}


def test_a_server_that_goes_and_comes_back_misses_nothing_and_doubles_nothing(server, tmp_path: Path, wait_until):
    run = tracker(tmp_path)
    run.start(None, "s00", {}, keys())
    run.log(losses(range(5)))
    wait_until(lambda: run.missing() is None)
    server.stop()
    for step in range(5, 300):
        run.log(losses(range(step, step + 1)))
    server.start()
    run.log(losses(range(300, 310)))
    assert run.close("FINISHED") is None
    assert history(run.run_id) == sorted(losses(range(310)))
    assert raw_run(run.run_id).info.status == "FINISHED"


def test_what_a_finished_training_could_not_send_is_sent_without_it(server, tmp_path: Path, wait_until):
    run = tracker(tmp_path)
    run.start(None, "s00", {"seed": "1"}, keys())
    wait_until(lambda: run.missing() is None)
    server.stop()
    run.log(losses(range(5)))
    assert "5 metric points, the status FINISHED of s00" in str(run.close("FINISHED", patience=0.2))
    assert "5 metric points" in str(tracking.send_missed(tmp_path, tmp_path / "work", patience=0.2))
    server.start()
    assert tracking.send_missed(tmp_path, tmp_path / "work") is None
    assert history(run.run_id) == sorted(losses(range(5)))
    assert raw_run(run.run_id).info.status == "FINISHED"
    assert tracking.send_missed(tmp_path, tmp_path / "nothing was ever here") is None


def test_no_call_waits_for_a_server_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3600")
    with silent_server() as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        run = tracker(tmp_path)
        run.start(None, "s00", {}, keys(), wait_seconds=0.1)
        for step in range(1000):
            run.log(losses(range(step, step + 1)))
        run.artifact(tmp_path / "file")
        run.tag({"a": "b"})
        # All that returned while the first request has had no answer, and the end does not wait for it either.
        assert run._has_tried.is_set() is False
        assert "1000 metric points" in str(run.close("KILLED", timeout=0.1))


def test_only_the_trackers_own_thread_talks_to_mlflow(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    callers: set[str] = set()
    real = runs.client

    def client(uri: str) -> Any:
        callers.add(threading.current_thread().name)
        return real(uri)

    monkeypatch.setattr(runs, "client", client)
    (tmp_path / "file").touch()
    run = tracker(root)
    run.start(None, "s00", {"seed": "1"}, keys())
    run.log(losses(range(5)))
    run.tag({"a": "b"})
    run.artifact(tmp_path / "file")
    assert run.close("FINISHED") is None
    assert callers == {"mlflow"}


# What goes wrong on the way.


def test_a_run_that_was_deleted_is_replaced_by_a_new_one_with_everything(project: Path, caplog: pytest.LogCaptureFixture):
    told = keys()
    first = tracker(project)
    first.start(None, "s00", {"seed": "1"}, told)
    first.log(losses(range(5)))
    first.close("KILLED")
    runs.client(first.uri).delete_run(first.run_id)
    second = tracker(project)
    second.start(first.run_id, "s00", {"seed": "1"}, told)
    second.log(losses(range(3, 8)))
    assert second.close("FINISHED") is None
    assert second.run_id != first.run_id
    assert f"has no run {first.run_id}" in caplog.text
    assert history(second.run_id) == sorted(losses(range(8)))
    assert raw_run(second.run_id).data.params == {"train.seed": "1"}


def test_a_run_made_right_before_a_crash_gets_no_twin(root: Path):
    told = keys()
    experiment = runs.experiment_id(runs.configured_uri(), "tests")
    made = runs.client(runs.configured_uri()).create_run(experiment, tags=told).info.run_id
    run = tracker(root)
    run.start(None, "s00", {}, told)
    run.close("FINISHED")
    assert run.run_id == made


def test_a_parameter_keeps_its_first_value_and_the_rest_goes_on(root: Path, caplog: pytest.LogCaptureFixture):
    told = keys()
    first = tracker(root)
    first.start(None, "s00", {"device": "cpu"}, told)
    first.close("KILLED")
    second = tracker(root)
    second.start(None, "s00", {"device": "cuda", "threads": "2"}, told)
    assert second.close("FINISHED") is None
    assert raw_run(first.run_id).data.params == {"train.device": "cpu", "train.threads": "2"}
    assert "keeps train.device = cpu" in caplog.text


def test_a_point_that_mlflow_refuses_is_named_and_holds_up_no_other(project: Path, caplog: pytest.LogCaptureFixture):
    run = tracker(project)
    run.start(None, "s00", {}, keys())
    run.log([*losses(range(3)), Point("bad#name", 3, 1.0), *losses(range(4, 6))])
    assert run.close("FINISHED") is None
    assert history(run.run_id) == sorted([*losses(range(3)), *losses(range(4, 6))])
    assert "bad#name" in caplog.text


def test_a_mistake_in_the_thread_is_loud_and_ends_nothing(root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    real, mistakes = delivery.Delivery.send_points, [ZeroDivisionError("a mistake")]

    def send_points(self: delivery.Delivery) -> bool:
        if mistakes:
            raise mistakes.pop()
        return real(self)

    monkeypatch.setattr(delivery.Delivery, "send_points", send_points)
    run = tracker(root)
    run.start(None, "s00", {}, keys())
    run.log(losses(range(5)))
    assert run.close("FINISHED") is None
    assert history(run.run_id) == sorted(losses(range(5)))
    assert [record.levelno for record in caplog.records if "nobody thought of" in record.message] == [logging.ERROR]


def test_an_artifact_that_is_gone_is_named_and_holds_up_no_other(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "there").touch()
    run = tracker(root)
    run.start(None, "s00", {}, keys())
    run.artifact(tmp_path / "gone")
    run.artifact(tmp_path / "there")
    assert run.close("FINISHED") is None
    assert [entry.path for entry in runs.client(run.uri).list_artifacts(run.run_id)] == ["there"]
    assert f"{tmp_path / 'gone'} is gone" in caplog.text


def test_a_damaged_checkpoint_is_not_sent(root: Path, save: Callable[..., Checkpoint], caplog: pytest.LogCaptureFixture):
    checkpoint = save(100)
    (checkpoint.path / "progress.json").write_text("{}")
    run = tracker(root)
    run.start(None, "s00", {}, keys())
    run.artifact(checkpoint.path, "checkpoints")
    assert run.close("FINISHED") is None
    assert in_mlflow.steps(str(run.run_id)) == []
    assert "progress.json" in caplog.text


def test_an_unreadable_outbox_costs_no_point(root: Path, caplog: pytest.LogCaptureFixture):
    told = keys()
    first = tracker(root)
    first.start(None, "s00", {}, told)
    first.log(losses(range(5)))
    first.close("KILLED")
    (root / "work" / "outbox.json").write_text('{"run_id": ')
    second = tracker(root)
    second.start(None, "s00", {}, told)
    second.log(losses(range(3, 7)))
    assert second.close("FINISHED") is None
    assert second.run_id == first.run_id
    assert history(first.run_id) == sorted(losses(range(7)))
    assert "outbox.json cannot be read" in caplog.text


def test_a_thread_that_nobody_waits_for_writes_nothing_in_a_directory_that_may_be_anothers(root: Path, monkeypatch: pytest.MonkeyPatch):
    real, is_sending, may_return = delivery.Delivery._send_batch, threading.Event(), threading.Event()

    def slow(self: delivery.Delivery, points: Any) -> None:
        real(self, points)
        is_sending.set()
        may_return.wait()

    monkeypatch.setattr(delivery.Delivery, "_send_batch", slow)
    run = tracker(root)
    run.start(None, "s00", {}, keys())
    run.log(losses(range(5)))
    assert is_sending.wait(60)
    assert "5 metric points" in str(run.close("KILLED", timeout=0.1))
    before = {path: path.read_bytes() for path in run.work_dir.iterdir()}
    may_return.set()
    run._thread.join()
    assert {path: path.read_bytes() for path in run.work_dir.iterdir()} == before


# Two machines at once.


def test_a_run_that_lives_elsewhere_is_refused_and_left_as_it_is(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(life, "LEAST_QUIET_SECONDS", 300.0)  # of which a sign of life needs none
    told = keys()
    first, second = tracker(project), tracker(project, "another machine")
    first.start(None, "s00", {}, told)
    first.log(losses(range(5)))
    with pytest.raises(tracking.ElsewhereError, match=rf"is being trained elsewhere.*matwm runs --close {str(first.run_id)[:12]}"):
        second.start(None, "s00", {}, told)
    second.log(losses(range(5)))
    assert second.close("FAILED") is None
    assert tracking.send_missed(project, second.work_dir) is None
    assert raw_run(first.run_id).info.status == "RUNNING"
    first.check()
    first.log(losses(range(3, 8)))
    assert first.close("FINISHED") is None
    assert history(first.run_id) == sorted(losses(range(8)))
    assert life.TAG not in raw_run(first.run_id).data.tags


def test_a_machine_whose_run_was_taken_over_sends_nothing_more(project: Path, monkeypatch: pytest.MonkeyPatch, wait_until):
    monkeypatch.setattr(life, "LEAST_QUIET_SECONDS", 0.3)
    told = keys()
    first = PatientTracker(project, "tests", project / "work", upload_seconds=300)  # It says nothing for so long that it seems dead.
    first.start(None, "s00", {}, told)
    first.log(losses(range(5)))
    first.tag({"matwm.until": "8"})  # wakes it
    wait_until(lambda: first.missing() is None)
    second = tracker(project, "another machine")
    second.start(None, "s00", {}, told)
    second.log(losses(range(8)))
    wait_until(lambda: second.missing() is None)
    first.log(losses(range(5, 10)))
    first.tag({"matwm.until": "9"})  # wakes it
    first._thread.join()
    with pytest.raises(tracking.ElsewhereError, match="another machine or folder has taken over run .*: this one sends it nothing more"):
        first.check()
    assert first.close("FAILED") is None
    assert tracking.send_missed(project, first.work_dir) is None
    assert raw_run(first.run_id or second.run_id).info.status == "RUNNING"
    second.check()
    assert second.close("FINISHED") is None
    assert history(second.run_id) == sorted(losses(range(8)))

    again = tracker(project)
    again.start(None, "s00", {}, told)
    again.log(losses(range(12)))
    assert again.close("FINISHED") is None
    assert (again.run_id, again.mismatches) == (second.run_id, [])
    assert history(again.run_id) == sorted(losses(range(12)))


def test_a_takeover_that_broke_off_still_takes_the_history_over(root: Path, monkeypatch: pytest.MonkeyPatch):
    told = keys()
    first = tracker(root)
    first.start(None, "s00", {}, told)
    first.log(losses(range(5)))
    first.close("KILLED")
    second = tracker(root, "another machine")
    with monkeypatch.context() as patch:
        patch.setattr(runs, "metric_history", lambda *_: (_ for _ in ()).throw(TrackingError("it does not answer")))
        second.start(None, "s00", {}, told, wait_seconds=60)
        second.log(losses(range(8)))
        second.close("KILLED", patience=0.2)
    third = tracker(root, "another machine")
    third.start(None, "s00", {}, told)
    assert third.close("FINISHED") is None
    assert history(first.run_id) == sorted(losses(range(8)))


def test_how_a_process_ended_is_no_news_when_another_machine_has_finished_the_run(root: Path):
    told = keys()
    dead = tracker(root)
    dead._outbox.open("tests", None, "s00", {}, told, None)
    dead.log(losses(range(3)))
    other = tracker(root, "another machine")
    other.start(None, "s00", {}, told)
    other.log(losses(range(8)))
    other.close("FINISHED")
    assert tracking.send_missed(root, dead.work_dir) is None
    assert raw_run(other.run_id).info.status == "FINISHED"
    assert history(other.run_id) == sorted(losses(range(8)))


# Adding to a run afterwards.


def test_a_later_stage_adds_to_a_run_and_leaves_its_status(project: Path, tmp_path: Path):
    run = tracker(project)
    run.start(None, "s00", {}, keys())
    run.log(losses(range(5)))
    run.close("FINISHED")
    ended = raw_run(run.run_id).info.end_time
    for value in (1.0, 1.0, 2.0):
        later = tracker(project)
        later.attach(run.run_id)
        assert later.log([Point("evaluation/return", 4, value)], is_revision=True) == []
        assert later.close(None) is None
    assert (raw_run(run.run_id).info.status, raw_run(run.run_id).info.end_time) == ("FINISHED", ended)
    assert history(run.run_id) == sorted([*losses(range(5)), Point("evaluation/return", 4, 1.0), Point("evaluation/return", 4, 2.0)])


def test_a_run_of_another_store_is_left_out_with_a_warning(root: Path, caplog: pytest.LogCaptureFixture):
    run = tracker(root)
    run.attach("0123456789abcdef0123456789abcdef")
    run.log([Point("evaluation/return", 4, 1.0)])
    assert run.close(None) is None
    assert "has no run 0123456789abcdef0123456789abcdef" in caplog.text
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
