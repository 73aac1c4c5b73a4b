"""Checkpoints on a DVC remote: what is sent, what is believed, and what a person is told."""

import errno
import hashlib
import json
import math
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from matwm.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from matwm.version import NUMERICS
from pipeline import runs
from pipeline.catalog import pushing
from pipeline.catalog.sources import in_work
from pipeline.keys import segment_key
from pipeline.metrics.points import TimedPoint
from pipeline.project import ProjectError
from pipeline.run import Run
from pipeline.stores import remote
from pipeline.stores.folder_hash import hashed_files, tree_of
from pipeline.stores.mlflow import MlflowStore
from pipeline.stores.remote import Remote, RemoteError
from pipeline.tracking import committed
from pipeline.training import background, elsewhere
from pipeline.training.background import Pusher
from tests.pipeline import kinds
from tests.pipeline.projects import Project
from tests.pipeline.servers import silent_server

Save = Callable[..., Checkpoint]
KEY = segment_key(NUMERICS, {"seed": 1}, "0" * 64)
RUN, OTHER = Run(None, "s00", KEY), Run(None, "s00", "b" * 64)
"""Of what `save` makes."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / ".dvc").mkdir(parents=True)
    (folder / "dvc.yaml").touch()
    configure(folder, str(tmp_path / "remote"))
    return folder


def configure(project: Path, url: str, *more: str) -> None:
    lines = ["[core]", "    remote = store", "['remote \"store\"']", f"    url = {url}", *(f"    {line}" for line in more)]
    (project / ".dvc/config").write_text("\n".join(lines) + "\n", encoding="utf-8")


def store_of(project: Path) -> Remote:
    return remote.named(project, None)


def objects(tmp_path: Path) -> set[Path]:
    return {path for path in (tmp_path / "remote/files").rglob("*") if path.is_file()}


def stored(tmp_path: Path, checkpoint: Checkpoint, name: str) -> Path:
    md5 = hashlib.md5((checkpoint.path / name).read_bytes()).hexdigest()
    return tmp_path / "remote/files/md5" / md5[:2] / md5[2:]


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def test_what_is_pushed_is_pulled_byte_for_byte(project: Path, save: Save, tmp_path: Path) -> None:
    first, second = save(100), save(200)
    for checkpoint in (first, second):
        store_of(project).put(RUN, checkpoint.path)
    assert store_of(project).steps(RUN) == [100, 200]
    assert store_of(project).steps(OTHER) == []
    pulled = store_of(project).pull(RUN, 200, tmp_path / "pulled")
    assert (pulled.path, pulled.digest) == (tmp_path / "pulled/step_000000200", second.digest)
    assert {path.name for path in (tmp_path / "pulled").iterdir()} == {"step_000000200"}


def test_the_index_names_what_dvc_and_the_manifest_say(project: Path, save: Save, tmp_path: Path) -> None:
    checkpoint = save(100)
    store_of(project).put(RUN, checkpoint.path)
    index = json.loads((tmp_path / "remote/matwm" / KEY / "step_000000100.json").read_text(encoding="utf-8"))
    assert index["manifest"] == checkpoint.digest
    assert index["tree"] == tree_of(hashed_files(checkpoint.path))[0]
    assert (tmp_path / "remote/files/md5" / index["tree"][:2] / index["tree"][2:]).is_file()


def test_only_what_is_new_is_sent(project: Path, save: Save, tmp_path: Path) -> None:
    first, second = save(200), save(300)
    sent = store_of(project).put(RUN, first.path)
    assert (sent.objects, sent.present) == (len(objects(tmp_path)), 0)
    assert store_of(project).put(RUN, first.path).objects == 0
    shared = {name for name in first.manifest["files"] if name.startswith("replay/")} & {*second.manifest["files"]}
    assert shared
    assert store_of(project).put(RUN, second.path).present >= len(shared)


def test_dvc_finds_what_was_pushed(tmp_path: Path, save: Save) -> None:
    project = Project.empty(tmp_path / "dvc")
    project.add_remote(tmp_path / "remote")
    shutil.copytree(save(100).path, project.path / "data/step_000000100")
    store_of(project.path).put(RUN, project.path / "data/step_000000100")
    before = objects(tmp_path)
    project.dvc("add", "-q", "data/step_000000100")
    assert "Everything is up to date." in project.dvc("push")
    assert objects(tmp_path) == before


@pytest.mark.parametrize("name", ["manifest.json", "world_model.safetensors", "progress.json"])
def test_a_damaged_object_is_refused_by_name_and_leaves_nothing_behind(project: Path, save: Save, tmp_path: Path, name: str) -> None:
    checkpoint = save(100)
    store_of(project).put(RUN, checkpoint.path)
    damaged = stored(tmp_path, checkpoint, name)
    damage(damaged)
    with pytest.raises(CheckpointError, match=f"object files/md5/{damaged.parent.name}/{damaged.name}, .* of step_000000100, is damaged"):
        store_of(project).pull(RUN, 100, tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()
    damaged.unlink()
    with pytest.raises(CheckpointError, match="is not there"):
        store_of(project).pull(RUN, 100, tmp_path / "pulled")


def test_half_an_object_is_sent_again_and_a_damaged_one_on_request(project: Path, save: Save, tmp_path: Path) -> None:
    checkpoint = save(100)
    store_of(project).put(RUN, checkpoint.path)
    half, wrong = stored(tmp_path, checkpoint, "agents.safetensors"), stored(tmp_path, checkpoint, "progress.json")
    half.chmod(0o644)
    half.write_bytes(half.read_bytes()[:10])
    damage(wrong)
    assert store_of(project).put(RUN, checkpoint.path).objects == 1
    with pytest.raises(CheckpointError, match="progress.json"):
        store_of(project).pull(RUN, 100, tmp_path / "pulled")
    assert store_of(project).put(RUN, checkpoint.path, verify=True).objects == 1
    assert store_of(project).pull(RUN, 100, tmp_path / "pulled").digest == checkpoint.digest


def test_an_index_that_cannot_be_read_counts_as_none_and_is_written_again(project: Path, save: Save, tmp_path: Path) -> None:
    checkpoint = save(100)
    store_of(project).put(RUN, checkpoint.path)
    index = tmp_path / "remote/matwm" / KEY / "step_000000100.json"
    index.write_text('{"key": ', encoding="utf-8")
    with pytest.raises(RemoteError, match="has no checkpoint of step 100"):
        store_of(project).pull(RUN, 100, tmp_path / "pulled")
    store_of(project).put(RUN, checkpoint.path)
    assert store_of(project).pull(RUN, 100, tmp_path / "pulled").digest == checkpoint.digest


def put_listing(tmp_path: Path, listing: bytes) -> None:
    """Have the index name this list of files, whole by its hash."""
    tree = f"{hashlib.md5(listing).hexdigest()}.dir"
    place = tmp_path / "remote/files/md5" / tree[:2] / tree[2:]
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(listing)
    index = tmp_path / "remote/matwm" / KEY / "step_000000100.json"
    index.write_text(json.dumps(json.loads(index.read_text(encoding="utf-8")) | {"tree": tree}), encoding="utf-8")


@pytest.mark.parametrize("name", ["../../escaped", "/escaped", "."])
def test_no_name_out_of_a_remote_leads_out_of_the_folder(project: Path, save: Save, tmp_path: Path, name: str) -> None:
    checkpoint = save(100)
    store_of(project).put(RUN, checkpoint.path)
    files = {**hashed_files(checkpoint.path), name: hashed_files(checkpoint.path)["progress.json"]}
    put_listing(tmp_path, json.dumps([{"md5": md5, "relpath": name} for name, md5 in sorted(files.items())]).encode())
    with pytest.raises(CheckpointError, match="the list of files of step_000000100 is damaged"):
        store_of(project).pull(RUN, 100, tmp_path / "deep/pulled")
    assert not (tmp_path / "deep").exists()
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize(
    "listing",
    [b"", b"\xff", b'{"relpath": "a"}', b"7", b"[7]", b'[{"relpath": "a"}]', b'[{"relpath": 7, "md5": ""}]']
    + [b'[{"relpath": "manifest.json", "md5": "../../../../secret"}]', b'[{"relpath": "manifest.json", "md5": null}]', b"[" * 99999],
)  # fmt: skip
def test_a_list_of_files_that_is_none_is_one_sentence(project: Path, save: Save, tmp_path: Path, listing: bytes) -> None:
    store_of(project).put(RUN, save(100).path)
    put_listing(tmp_path, listing)
    with pytest.raises(CheckpointError, match="the list of files of step_000000100 is damaged"):
        store_of(project).pull(RUN, 100, tmp_path / "pulled")
    assert store_of(project).put(RUN, save(100).path).present
    assert store_of(project).pull(RUN, 100, tmp_path / "pulled").step == 100


@pytest.mark.parametrize("tree", [None, "", "../../../secret", "a" * 32, 7])
def test_an_index_that_names_no_list_of_files_counts_as_none(project: Path, save: Save, tmp_path: Path, tree: object) -> None:
    store_of(project).put(RUN, save(100).path)
    index = tmp_path / "remote/matwm" / KEY / "step_000000100.json"
    index.write_text(json.dumps(json.loads(index.read_text(encoding="utf-8")) | {"tree": tree}), encoding="utf-8")
    with pytest.raises(RemoteError, match="has no checkpoint of step 100"):
        store_of(project).pull(RUN, 100, tmp_path / "pulled")


def test_the_checkpoint_of_another_training_is_refused(project: Path, save: Save, tmp_path: Path) -> None:
    store_of(project).put(OTHER, save(100).path)
    with pytest.raises(CheckpointError, match="step_000000100, listed as segment bbbbbbbbbbbb, is of another training"):
        store_of(project).pull(OTHER, 100, tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


def test_half_an_entry_is_written_again_by_the_next_push(project: Path, save: Save, tmp_path: Path) -> None:
    work = work_in(project, save(100))
    for _ in pushing.push_new(project, in_work(work), store_of(project), [100]):
        pass
    index = tmp_path / "remote/matwm" / KEY
    (index / "step_000000100.json").write_bytes(b"")
    assert [step for step, _ in pushing.push_new(project, in_work(work), store_of(project), [100])] == [100]
    assert store_of(project).pull(RUN, 100, tmp_path / "pulled").step == 100
    assert list(pushing.push_new(project, in_work(work), store_of(project), [100])) == []


def test_a_push_that_is_killed_while_it_writes_the_index_leaves_no_half_entry(
    project: Path, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, real = store_of(project), Remote._write

    def die(source: str, target: str) -> None:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).write_bytes(Path(source).read_bytes()[:10])
        raise KeyboardInterrupt

    def write(self: Remote, scratch: Path, name: str, data: bytes) -> None:
        with monkeypatch.context() as patch:
            if name.endswith(".json"):
                patch.setattr(self._fs, "put_file", die)
            real(self, scratch, name, data)

    monkeypatch.setattr(Remote, "_write", write)
    with pytest.raises(KeyboardInterrupt):
        there.put(RUN, save(100).path)
    assert there.steps(RUN) == []


def test_what_a_killed_pull_leaves_goes_with_the_next(project: Path, save: Save, tmp_path: Path) -> None:
    store_of(project).put(RUN, save(100).path)
    script = "import os, sys; from pathlib import Path; from pipeline.run import Run; from pipeline.stores import remote\n"
    script += "remote._linked = remote.Remote._fetch = lambda *_: os._exit(9)\n"
    script += "remote.named(Path(sys.argv[1]), None).pull(Run(key=sys.argv[2]), 100, Path(sys.argv[3]))"
    (tmp_path / "pulled").mkdir()
    command = [sys.executable, "-c", script, str(project), KEY, str(tmp_path / "pulled")]
    assert subprocess.run(command, check=False).returncode == 9
    (left,) = (tmp_path / "pulled").iterdir()
    assert store_of(project).pull(RUN, 100, tmp_path / "pulled").step == 100
    assert not left.exists()


def test_another_checkpoint_of_the_same_step_is_kept(project: Path, save: Save, tmp_path: Path) -> None:
    first = save(100)
    store_of(project).put(RUN, first.path)
    shutil.rmtree(first.path)
    with pytest.raises(RemoteError, match="another checkpoint of step 100 of segment s00"):
        store_of(project).put(RUN, save(100, seed=1.0).path)
    assert store_of(project).pull(RUN, 100, tmp_path / "pulled").digest == first.digest


def test_a_damaged_checkpoint_is_not_pushed(project: Path, save: Save, tmp_path: Path) -> None:
    checkpoint = save(100)
    damage(checkpoint.path / "agents.safetensors")
    with pytest.raises(ProjectError, match=r"agents\.safetensors is damaged"):
        store_of(project).put(RUN, checkpoint.path)
    assert store_of(project).steps(RUN) == []
    assert objects(tmp_path) == set()


def test_two_machines_may_push_the_same_at_once(project: Path, save: Save, tmp_path: Path) -> None:
    checkpoint = save(300)
    errors: list[Exception] = []

    def push() -> None:
        try:
            store_of(project).put(RUN, checkpoint.path)
        except ProjectError as error:
            errors.append(error)

    threads = [threading.Thread(target=push) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store_of(project).pull(RUN, 300, tmp_path / "pulled").digest == checkpoint.digest


def test_chunks_that_are_here_are_not_fetched_unless_they_are_damaged(project: Path, save: Save, tmp_path: Path) -> None:
    first, second = save(200), save(300)
    store_of(project).put(RUN, second.path)
    shared = next(name for name in first.manifest["files"] if name.startswith("replay/"))
    there = stored(tmp_path, first, shared)
    there.rename(tmp_path / "taken away")
    pulled = store_of(project).pull(RUN, 300, tmp_path / "pulled", [first.path])
    assert (pulled.path / shared).samefile(first.path / shared)
    shutil.rmtree(pulled.path)
    (tmp_path / "taken away").rename(there)
    data = (first.path / shared).read_bytes()
    (first.path / shared).unlink()
    (first.path / shared).write_bytes(data[:-1] + b"?")
    assert open_checkpoint(store_of(project).pull(RUN, 300, tmp_path / "pulled", [first.path]).path).digest == second.digest


@pytest.fixture(params=["s3", "ssh"])
def far(request: pytest.FixtureRequest, project: Path, tmp_path: Path) -> Iterator[Remote]:
    """A remote that is reached over the network; the project's `push` would use it."""
    (tmp_path / "server").mkdir()
    with kinds.s3() if request.param == "s3" else kinds.ssh(tmp_path / "server") as (url, settings):
        configure(project, url, *settings)
        yield store_of(project)


def test_it_is_the_same_over_a_network(far: Remote, project: Path, save: Save, tmp_path: Path) -> None:
    first, second = save(200), save(300)
    assert far.steps(RUN) == []
    far.put(RUN, first.path)
    sent = far.put(RUN, second.path)
    assert sent.present > 0
    assert far.steps(RUN) == [200, 300]
    assert far.put(RUN, second.path).objects == 0
    assert far.pull(RUN, 300, tmp_path / "pulled").digest == second.digest

    agents, progress = (far._object(hashed_files(first.path)[name]) for name in ("agents.safetensors", "progress.json"))
    far._fs.pipe_file(agents, b"half")
    far._fs.pipe_file(progress, bytes(len((first.path / "progress.json").read_bytes())))
    with pytest.raises(CheckpointError, match=r"agents\.safetensors of step_000000200, is damaged|world_model.* is damaged"):
        far.pull(RUN, 200, tmp_path / "pulled")
    assert store_of(project).put(RUN, first.path, verify=True).objects == 2
    assert store_of(project).pull(RUN, 200, tmp_path / "pulled").digest == first.digest


# What a person is told.


def test_a_remote_that_is_not_there_is_named(project: Path) -> None:
    (project / ".dvc/config").write_text("", encoding="utf-8")
    assert remote.Remote.of(project) is None
    with pytest.raises(RemoteError, match='no DVC remote is set: "dvc remote add --default store URL"'):
        remote.named(project, None)
    with pytest.raises(RemoteError, match=r"there is no DVC remote other \(known: none\)"):
        remote.named(project, "other")


def test_remotes_that_are_not_verified_are_listed(project: Path, tmp_path: Path) -> None:
    assert remote.unverified(project) == ["store"]
    configure(project, str(tmp_path / "remote"), "verify = true")
    assert remote.unverified(project) == []


OTHER_KINDS = ["gs://bucket/path", "azure://container/path", "http://me:hidden1@host/path", "webdavs://host/path", "hdfs://host/path"]


@pytest.mark.parametrize("url", OTHER_KINDS)
def test_a_remote_of_another_kind_is_left_to_dvc_in_one_sentence(project: Path, url: str) -> None:
    configure(project, url, "password = hidden2")
    with pytest.raises(
        RemoteError, match=r'^DVC remote store \([^)]*\) is neither a folder nor ssh:// nor s3://: "dvc push" [^\n]*$'
    ) as refused:
        remote.named(project, None)
    assert "hidden" not in str(refused.value)
    assert remote.refusal(project) == str(refused.value)
    assert remote.Remote.of(project) is None, "a resume does without it"


def test_a_cloud_versioned_remote_is_refused(project: Path) -> None:
    configure(project, "s3://bucket/path", "version_aware = true")
    with pytest.raises(RemoteError, match="cloud-versioned"):
        remote.named(project, None)
    assert remote.Remote.of(project) is None
    configure(project, "s3://bucket/path", "version_aware = false")
    assert remote.refusal(project) is None


@pytest.mark.parametrize(
    ("url", "more"),
    [("ssh://me:hidden1@127.0.0.1:1/path", ["passphrase = hidden2"]), ("ssh://me@127.0.0.1:1/path", ["password = hidden/3"])]
    + [("s3://bucket/path", ["endpointurl = http://me:hid/den1@127.0.0.1:1", "access_key_id = hidden4", "secret_access_key = hidden5"])],
)
def test_a_remote_that_fails_is_one_sentence_without_secrets(project: Path, save: Save, url: str, more: list[str]) -> None:
    configure(project, url, *more)
    with pytest.raises(RemoteError, match=r"^DVC remote store \([^)]*\) does not do it: [^\n]*$") as refused:
        store_of(project).put(RUN, save(100).path)
    assert "hid" not in str(refused.value)
    assert "me:" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "more", "said"),
    [
        ("ssh://host/path", "port = many", "port is 'many', not a number"),
        ("ssh://host/path", "ask_password = true", "ask_password is on"),
        ("s3://bucket", "sse_customer_key = ?", "sse_customer_key is not base64"),
        ("remote://other/path", "jobs = 2", "refers to a remote other"),
        ("remote://store/path", "jobs = 2", "refers to a remote store"),
    ],
)
def test_options_that_cannot_be_right_are_one_sentence(project: Path, url: str, more: str, said: str) -> None:
    configure(project, url, more)
    with pytest.raises(RemoteError, match=rf"^DVC remote store [^\n]*cannot be used: [^\n]*{said}"):
        store_of(project).steps(RUN)


def test_a_package_that_is_missing_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(project, "s3://bucket/path")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(RemoteError, match=r"needs the package s3fs: pip install 'matwm\[s3\]'"):
        store_of(project).steps(RUN)


def test_a_remote_that_never_answers_is_not_waited_for(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    held = threading.Event()
    runs.configure(project)
    monkeypatch.setattr(elsewhere, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(Remote, "steps", lambda self, run: held.wait(300) and [])
    assert elsewhere.offers(project, RUN, [Remote]) == []
    held.set()
    assert "has not answered" in caplog.text


def test_an_mlflow_that_never_answers_is_not_waited_for(
    project: Path, save: Save, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wait_until: Callable[..., None]
) -> None:
    asked, held = [], threading.Event()
    ping = runs.ping
    store_of(project).put(RUN, save(100).path)
    monkeypatch.setattr(runs, "find_by_key", lambda segment, key: asked.append(key) or held.wait(300))
    with silent_server() as uri, monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setattr(runs, "ping", lambda: ping(seconds=0.1))
        assert [offer.store.name for offer in elsewhere.offers(project, RUN, [MlflowStore, Remote])] == [store_of(project).name]
    assert (asked, f"MLflow at {uri} does not answer" in caplog.text) == ([], True), caplog.text
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(elsewhere, "PATIENCE_SECONDS", 0.05)
    assert elsewhere.offers(project, RUN, [MlflowStore]) == []  # a database on a file system that hangs, or a server that hears only
    wait_until(lambda: asked)
    held.set()
    assert asked == [KEY]
    assert "has not answered within" in caplog.text


def test_a_commit_with_damaged_times_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    project = Project(tmp_path / "committed")
    metrics = project.path / "metrics/s00"
    metrics.mkdir(parents=True)
    (metrics / "run.json").write_text(json.dumps({"key": KEY}), encoding="utf-8")
    (metrics / "evaluated.csv").write_text("step,timestamp_ms,key,value\n5,1000,time/speed,2.5\n", encoding="utf-8")
    project.git("init", "-q")
    project.commit("sound")
    assert committed.committed_records(project.path, "s00", KEY) == [TimedPoint("time/speed", 5, 2.5, 1000)]
    assert committed.committed_records(project.path, "s00", "b" * 64) == []
    (metrics / "evaluated.csv").write_text("step,timestamp_ms,key,value\nfive,,,\n", encoding="utf-8")
    project.commit("damaged")
    assert committed.committed_records(project.path, "s00", KEY) == []
    assert "metrics/s00 in the last commit cannot be read" in caplog.text


# In the background.


def work_in(project: Path, checkpoint: Checkpoint) -> Path:
    work = project / "work"
    shutil.copytree(checkpoint.path, work / "checkpoints" / checkpoint.path.name)
    (work / "run.json").write_text(json.dumps({"segment": "s00", "key": KEY, "run_id": None}), encoding="utf-8")
    return work


def test_a_saved_checkpoint_is_on_the_remote_when_the_pusher_is_closed(project: Path, save: Save) -> None:
    pusher = Pusher(project, work_in(project, save(100)))
    pusher.saved([100])
    pusher.close(patience=600.0)
    assert store_of(project).steps(RUN) == [100]


def test_a_remote_that_is_down_is_loud_and_tried_again(
    project: Path, save: Save, tmp_path: Path, caplog: pytest.LogCaptureFixture, wait_until: Callable[..., None]
) -> None:
    (tmp_path / "remote").write_text("in the way", encoding="utf-8")
    pusher = Pusher(project, work_in(project, save(100)))
    pusher.saved([100])
    wait_until(lambda: warnings(caplog))
    pusher.close(patience=600.0)
    said = warnings(caplog)
    assert len(said) == 2, "once when it failed, once at the end"
    assert said[0].startswith(f"a checkpoint is not on the DVC remote: DVC remote store ({tmp_path / 'remote'}) ")


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What pushers have said, and no thread that another test has left."""
    return [record.message for record in caplog.records if record.name == background.__name__]


@pytest.fixture
def halted(monkeypatch: pytest.MonkeyPatch) -> "queue.Queue[subprocess.Popen[str]]":
    """The processes of pushes, each halted where it begins, so that it does not end by itself."""
    begun: queue.Queue[subprocess.Popen[str]] = queue.Queue()
    start = Pusher._started

    def starting(self: Pusher) -> "subprocess.Popen[str]":
        process = start(self)
        process.send_signal(signal.SIGSTOP)
        begun.put(process)
        return process

    monkeypatch.setattr(Pusher, "_started", starting)
    return begun


def test_a_pusher_that_is_given_up_leaves_no_process(
    project: Path, save: Save, halted: "queue.Queue[subprocess.Popen[str]]", caplog: pytest.LogCaptureFixture
) -> None:
    pusher = Pusher(project, work_in(project, save(100)))
    pusher.saved([100])
    process = halted.get(timeout=300)
    pusher.close(patience=0.0)
    assert process.poll() is not None
    assert "is not waited for" in caplog.text
    assert subprocess.run(["ps", "-p", str(process.pid)], capture_output=True, check=False).returncode != 0


def test_a_pusher_in_a_hurry_gives_up_before_its_patience_ends(
    project: Path, save: Save, halted: "queue.Queue[subprocess.Popen[str]]", caplog: pytest.LogCaptureFixture
) -> None:
    pusher = Pusher(project, work_in(project, save(100)))
    pusher.saved([100])
    halted.get(timeout=300)
    looks = iter([math.inf, math.inf, 0.0])
    pusher.close(left=lambda: next(looks))
    assert list(looks) == []
    assert "is not waited for" in caplog.text


def test_a_process_that_cannot_be_started_once_is_loud_and_tried_again(
    project: Path, save: Save, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wait_until: Callable[..., None]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    pusher = Pusher(project, work_in(project, save(100)))
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", refuse)
        pusher.saved([100])
        wait_until(lambda: warnings(caplog))
    pusher.saved([100])
    pusher.close(patience=600.0)
    said = "a checkpoint is not on the DVC remote: no process can be started (Resource temporarily unavailable). Training goes on; "
    assert warnings(caplog) == [f"{said}it is tried again at the next save"]
    assert store_of(project).steps(RUN) == [100]


def test_a_thread_that_died_or_could_not_be_started_is_replaced(
    project: Path, save: Save, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pusher = Pusher(project, work_in(project, save(100)))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        pusher.saved([100])
    assert "can't start new thread. Training goes on" in caplog.text
    with monkeypatch.context() as patch:
        patch.setattr(Pusher, "_work_off", lambda self: None)
        pusher.saved([100])
        pusher._thread.join()
    pusher.saved([100])
    pusher.close(patience=600.0)
    assert store_of(project).steps(RUN) == [100]
