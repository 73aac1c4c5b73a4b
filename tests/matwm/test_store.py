import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from matwm import durable
from matwm.checkpoint import CheckpointError, FormatError, Parent, open_checkpoint, publish
from matwm.history import Episode, History
from matwm.stateful import Chunk, chunks_in, fingerprint
from matwm.step_names import step_name
from matwm.store import LocalStore
from matwm.version import FORMAT, NUMERICS
from tests.matwm.checkpoints import CONFIG, PARENT, SPEC, chunk, contents, make_parts, make_policies, reseal, save

# ---- content


def test_a_checkpoint_gives_back_exactly_what_was_saved(tmp_path):
    parts = make_parts()
    saved = save(tmp_path, parts=parts)
    found = open_checkpoint(tmp_path / "step_000005000")
    loaded = found.load()
    assert fingerprint(loaded) == fingerprint(parts)
    assert (found.step, found.parent, found.config, found.spec, found.digest) == (5000, PARENT, CONFIG, SPEC, saved.digest)
    assert found.fingerprint == saved.fingerprint == fingerprint({name: state for name, state in parts.items() if name != "history"})
    assert torch.equal(found.policy("prey_0")["actor"], make_policies()["prey_0"]["actor"])
    assert found.digest == hashlib.sha256((found.path / "manifest.json").read_bytes()).hexdigest()
    assert found.total_bytes == sum(len(data) for data in contents(found.path).values())
    assert {name: array.tolist() for name, array in list(chunks_in(loaded["replay"]))[2].arrays.items()} == {
        "obs": [[3.0, 3.0], [3.0, 3.0]],
        "is_first": [True, False],
    }


def test_a_checkpoint_gives_back_the_history_alone(tmp_path):
    history = History()
    history.add({"agents/wolf~0/loss": 1 / 3, "b": 2.0})
    history.close_interval(7)
    history.add({"b": -0.0})
    history.episodes.append(Episode(5, 3, (0.1, -1 / 3)))
    assert save(tmp_path, parts={**make_parts(), "history": history.state_dict()}).history() == history
    assert save(tmp_path / "new", parts={**make_parts(), "history": History().state_dict()}).history() == History()


def test_the_folder_is_as_documented(tmp_path):
    found = save(tmp_path)
    digests = [part.digest for part in chunks_in(found.load()["replay"])]
    assert set(contents(found.path)) == {
        "manifest.json",
        "progress.json",
        "world_model.safetensors",
        "agents.safetensors",
        "optimizers.safetensors",
        "history/history.safetensors",
        "policies/adversary_0.safetensors",
        "policies/prey_0.safetensors",
        *(f"replay/{digest}.safetensors" for digest in digests),
    }
    assert json.loads((found.path / "progress.json").read_text())["replay"] == {
        "total_rows": 10,
        "chunks": [{"$chunk": digest} for digest in digests],
    }
    manifest = json.loads((found.path / "manifest.json").read_text())
    assert (manifest["format"], manifest["numerics"]) == (FORMAT, NUMERICS)
    assert manifest["spec"]["agents"] == ["adversary_0", "prey_0"]


def test_the_same_state_gives_the_same_bytes_anywhere(tmp_path):
    save(tmp_path / "one")
    turned = {name: dict(reversed(state.items())) for name, state in reversed(make_parts().items())}
    save(tmp_path / "elsewhere" / "two", parts=turned, config=dict(reversed(CONFIG.items())))
    assert contents(tmp_path / "one") == contents(tmp_path / "elsewhere" / "two")


def test_another_process_with_other_hashes_writes_the_same_bytes(tmp_path):
    program = "import sys; from pathlib import Path; from checkpoints import save; save(Path(sys.argv[1]))"
    environment = {**os.environ, "PYTHONHASHSEED": "11", "PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "two")], env=environment, check=True)
    save(tmp_path / "one")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_the_fingerprint_covers_the_state_but_not_configuration_parent_or_history(tmp_path):
    first = save(tmp_path / "a")
    parts = make_parts()
    other = save(tmp_path / "b", parts={**parts, "history": {}}, config={}, parent=Parent(7, "cd" * 32))
    assert other.fingerprint == first.fingerprint
    assert other.digest != first.digest
    for name in ("world_model", "agents", "optimizers", "replay", "progress"):
        assert save(tmp_path / name, parts={**parts, name: {**parts[name], "more": 1}}).fingerprint != first.fingerprint


def test_slices_of_one_tensor_can_be_saved(tmp_path):
    stacked = torch.arange(6.0).reshape(2, 3)
    found = save(tmp_path, policies={agent: {"actor": stacked[n], "same": stacked[n]} for n, agent in enumerate(SPEC.agents)})
    assert found.policy("prey_0")["actor"].tolist() == [3, 4, 5]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"parts": {}}, "the state has the parts"),
        ({"parts": {**make_parts(), "more": {}}}, "the state has the parts"),
        ({"parts": {**make_parts(), "progress": {"rate": float("nan")}}}, "progress/rate of the state is nan"),
        ({"parts": {**make_parts(), "progress": {"x": torch.ones(1)}}}, "progress holds the tensor x"),
        ({"parts": {**make_parts(), "agents": {"c": chunk(1)}}}, "agents holds a chunk"),
        ({"config": {"x": float("inf")}}, "not JSON compliant"),
        ({"policies": {}}, r"policies of \[\]"),
    ],
)
def test_what_cannot_be_saved_is_refused_and_leaves_nothing(tmp_path, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        save(tmp_path, **changes)
    assert not list(tmp_path.iterdir())


# ---- sharing


def test_chunks_of_earlier_checkpoints_are_linked_and_only_new_ones_written(tmp_path):
    store, shared = LocalStore(tmp_path), [chunk(1), chunk(2)]
    first = save(store, 1, make_parts(chunks=[*shared, chunk(3, rows=1)]))
    second = save(store, 2, make_parts(chunks=[*shared, chunk(3)]))
    for part in shared:
        one, two = (found.path / "replay" / f"{part.digest}.safetensors" for found in (first, second))
        assert one.samefile(two)
        assert one.stat().st_nlink == 2
    assert len(contents(second.path / "replay")) == 3
    shutil.rmtree(first.path)
    assert fingerprint(store.open(2).load()) == fingerprint(make_parts(chunks=[*shared, chunk(3)]))


def test_a_chunk_that_lies_in_the_store_is_not_looked_at(tmp_path):
    first = chunk(1)
    save(tmp_path, 1, make_parts(chunks=[first]))

    def never():
        raise AssertionError

    again = save(LocalStore(tmp_path), 2, make_parts(chunks=[Chunk(never, first.digest)]))
    assert len(contents(again.path / "replay")) == 1


def test_a_chunk_is_read_once_in_the_life_of_a_store(tmp_path, monkeypatch):
    first = chunk(1)
    save(tmp_path, 1, make_parts(chunks=[first]))
    reads, sha256 = [], durable.sha256
    monkeypatch.setattr(durable, "sha256", lambda path: reads.append(path) or sha256(path))
    store = LocalStore(tmp_path)
    for step in (2, 3, 4):
        save(store, step, make_parts(chunks=[first]))
    assert [path.parents[1].name for path in reads] == ["step_000000001"]


def test_a_damaged_chunk_is_not_passed_on_to_the_next_checkpoint(tmp_path):
    store, shared = LocalStore(tmp_path), chunk(1)
    old = save(store, 1, make_parts(chunks=[shared])).path / "replay" / f"{shared.digest}.safetensors"
    data = bytearray(old.read_bytes())
    data[-1] ^= 1
    old.write_bytes(data)
    for step, other in ((2, store), (3, LocalStore(tmp_path))):
        save(other, step, make_parts(chunks=[Chunk(chunk(1).arrays, shared.digest)]))
        assert store.open(step).step == step
    with pytest.raises(CheckpointError, match="damaged"):
        store.open(1)


def test_chunks_of_the_parent_can_be_linked_too(tmp_path):
    shared = chunk(1)
    parent = save(tmp_path / "s00", 1, make_parts(chunks=[shared]))
    child = save(LocalStore(tmp_path / "s01", chunks_from=[parent.path]), 2, make_parts(chunks=[shared]))
    name = f"replay/{shared.digest}.safetensors"
    assert (parent.path / name).samefile(child.path / name)


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EMLINK, errno.EPERM])
def test_where_links_are_impossible_files_are_copied(tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    first = save(tmp_path / "work", 1)
    monkeypatch.setattr(os, "link", refuse)
    second = save(tmp_path / "work", 2)
    public = publish(second.path, tmp_path / "public" / "step_000000002")
    assert open_checkpoint(public.path).digest == second.digest
    for name in contents(first.path / "replay"):
        assert (second.path / "replay" / name).stat().st_nlink == 1


def test_equal_chunks_share_a_file(tmp_path):
    found = save(tmp_path, parts=make_parts(chunks=[chunk(1), chunk(1)]))
    assert len(contents(found.path / "replay")) == 1
    assert len(list(chunks_in(open_checkpoint(found.path).load()["replay"]))) == 2


# ---- atomic writing


def test_saving_the_same_again_keeps_what_is_there(tmp_path):
    first = save(tmp_path)
    inode = (first.path / "manifest.json").stat().st_ino
    assert save(tmp_path).digest == first.digest
    assert (first.path / "manifest.json").stat().st_ino == inode
    assert [path.name for path in tmp_path.iterdir()] == ["step_000005000"]


def test_a_sound_checkpoint_is_never_overwritten(tmp_path):
    first = save(tmp_path)
    before = contents(first.path)
    with pytest.raises(CheckpointError, match="is a sound checkpoint with other contents"):
        save(tmp_path, parts=make_parts(seed=1))
    assert contents(first.path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["step_000005000"]


@pytest.mark.parametrize("name", ["manifest.json", "agents.safetensors", None])
def test_a_damaged_checkpoint_is_replaced(tmp_path, name, caplog):
    first = save(tmp_path)
    if name:
        (first.path / name).write_bytes(b"")
    else:
        shutil.rmtree(first.path)
        first.path.mkdir()
    again = save(tmp_path, parts=make_parts(seed=1))
    assert open_checkpoint(first.path).digest == again.digest
    assert [path.name for path in tmp_path.iterdir()] == ["step_000005000"]
    assert "a damaged checkpoint is replaced" in caplog.text


def test_a_checkpoint_of_another_format_is_not_taken_for_damaged(tmp_path):
    first = save(tmp_path)
    reseal(first.path, lambda manifest: manifest.update(format=FORMAT + 1))
    with pytest.raises(FormatError, match=f"has format {FORMAT + 1}, this code reads {FORMAT}: use the version"):
        save(tmp_path)
    assert first.path.is_dir()


@pytest.mark.parametrize("last", ["world_model.safetensors", "progress.json", "manifest.json", "rename"])
def test_a_failure_while_writing_leaves_nothing_behind_and_names_the_target(tmp_path, monkeypatch, last):
    earlier = save(tmp_path, 1)
    write, rename = durable.write, Path.rename

    def failing_write(path, data):
        if path.name == last:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, data)

    def failing_rename(path, target):
        if last == "rename":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(path, target)

    monkeypatch.setattr(durable, "write", failing_write)
    monkeypatch.setattr(Path, "rename", failing_rename)
    with pytest.raises(CheckpointError, match="step_000000002 cannot be written"):
        save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step_000000001"]
    assert open_checkpoint(earlier.path)


def test_a_process_killed_while_saving_leaves_no_checkpoint_and_the_next_save_cleans_up(tmp_path):
    program = (
        "import os, sys; from pathlib import Path; from matwm import store; from checkpoints import save;"
        "store.settle = lambda *_: os.kill(os.getpid(), 9); save(Path(sys.argv[1]), 2)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=environment, check=False)
    assert killed.returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".saving-")
    assert (left / "manifest.json").is_file()
    store = LocalStore(tmp_path)
    assert store.steps() == []
    assert store.newest() is None
    save(store, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step_000000002"]


def test_the_temporary_folder_of_a_live_process_is_left_alone(tmp_path):
    live, odd = tmp_path / ".saving-live", tmp_path / ".saving-file"
    live.mkdir()
    odd.write_text("not a folder")
    handle = os.open(live, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    save(tmp_path)
    assert live.is_dir()
    os.close(handle)
    save(tmp_path, 6)
    assert not live.exists()


def test_everything_is_on_disk_before_the_name_appears(tmp_path, monkeypatch):
    """What is fsynced, in order: files with the manifest last, folders, and after the rename the store's folder."""
    calls, fsync, rename = [], os.fsync, Path.rename

    def note(handle):
        path = Path(f"/proc/self/fd/{handle}").readlink()
        inside = path.parent.parent != tmp_path and path.is_file()
        calls.append(f"{path.parent.name}/{path.name}" if inside else path.name)
        return fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(Path, "rename", lambda path, target: calls.append("rename") or rename(path, target))
    found = save(tmp_path)
    files = [*contents(found.path)]
    place = calls.index("manifest.json")
    assert sorted(calls[: place + 1]) == sorted(["rename", *files])  # first the folder gets the name of one that is locked
    assert set(calls[place + 1 : -3]) == {"replay", "history", "policies"}
    assert calls[-3].startswith(".saving-")
    assert calls[-2:] == ["rename", tmp_path.name]


# ---- the store


def test_steps_are_the_folders_with_a_manifest_and_a_step_for_a_name(tmp_path):
    store = LocalStore(tmp_path / "none")
    assert store.steps() == []
    store = LocalStore(tmp_path)
    for step in (20, 5, 1_000_000_000):
        save(store, step)
    for name in ("step_7", "step_0000000008", "step_000000009", "other", ".saving-x"):
        (tmp_path / name).mkdir()
        if name != "step_000000009":
            (tmp_path / name / "manifest.json").write_text("{}")
    (tmp_path / "step_000000010").write_text("a file")
    assert store.steps() == [5, 20, 1_000_000_000]
    assert step_name(5000) == "step_000005000"


def test_a_step_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    store = LocalStore(tmp_path)
    with pytest.raises(CheckpointError, match="has no checkpoint of step 5: it has none"):
        store.open(5)
    save(store, 5)
    save(store, 7)
    with pytest.raises(CheckpointError, match="has no checkpoint of step 6: it has 5, 7"):
        store.open(6)
    assert store.open(7).step == 7


def test_the_newest_sound_checkpoint_is_taken_and_bad_ones_are_reported(tmp_path, caplog):
    store = LocalStore(tmp_path)
    for step in (1, 2, 3, 4):
        save(store, step)
    (tmp_path / step_name(4) / "agents.safetensors").write_bytes(b"")
    (tmp_path / step_name(3) / "manifest.json").write_bytes(b"{}")
    with caplog.at_level(logging.WARNING):
        found = store.newest()
    assert found is not None
    assert found.step == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "checkpoint of step 4 is passed over" in caplog.text
    assert "agents.safetensors is damaged: it has 0 bytes, expected" in caplog.text
    newest = store.newest(at_most=1)
    assert newest is not None
    assert newest.step == 1
    assert store.newest(at_most=0) is None


def test_a_checkpoint_under_the_name_of_another_step_is_not_taken(tmp_path, caplog):
    store = LocalStore(tmp_path)
    save(store, 1)
    shutil.copytree(tmp_path / step_name(1), tmp_path / step_name(2))
    newest = store.newest()
    assert newest is not None
    assert newest.step == 1
    assert "is of step 1" in caplog.text
