import hashlib
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from matwm.checkpoint import (
    CheckpointError,
    Parent,
    is_root,
    open_checkpoint,
    open_parent,
    publish,
    read_manifest,
)
from matwm.stateful import chunks_in
from tests.matwm.checkpoints import contents, make_parts, reseal, save


def test_an_agent_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="has no agent 'wolf_0': it has adversary_0, prey_0"):
        save(tmp_path).policy("wolf_0")


# ---- verification


def every_file():
    names = [
        "agents",
        "optimizers",
        "world_model",
        "history/history",
        "policies/adversary_0",
        "policies/prey_0",
        "replay/0",
        "replay/1",
        "replay/2",
    ]
    return ["manifest.json", "progress.json", *(f"{name}.safetensors" for name in names)]


def actual(folder, name):
    """`replay/1.safetensors` means the second of the chunks."""
    if name.startswith("replay/"):
        return sorted((folder / "replay").iterdir())[int(name[7])]
    return folder / name


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return save(tmp_path_factory.mktemp("sound")).path


@pytest.mark.parametrize("name", every_file())
def test_a_flipped_bit_anywhere_is_noticed(sound, tmp_path, name):
    copy = tmp_path / "step"
    shutil.copytree(sound, copy)
    path = actual(copy, name)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    places = range(0, len(data), 11) if name == "manifest.json" else [0, 7, 8, len(data) - 1, *rng.integers(0, len(data), 8)]
    for place in places:
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << rng.integers(8)]) + data[place + 1 :])
        with pytest.raises(CheckpointError, match=path.name if name != "manifest.json" else "step"):
            open_checkpoint(copy) if name != "manifest.json" else read_manifest(copy)
    path.write_bytes(data)
    assert open_checkpoint(copy)


@pytest.mark.parametrize("name", every_file())
def test_a_truncated_lengthened_or_missing_file_is_noticed_and_named(sound, tmp_path, name):
    copy = tmp_path / "step"
    shutil.copytree(sound, copy)
    path = actual(copy, name)
    data = path.read_bytes()
    for other in (b"", data[:1], data[:-1], data + b"\0", data + b"\n", None):
        path.unlink()
        if other is not None:
            path.write_bytes(other)
        with pytest.raises(CheckpointError, match=path.name):
            open_checkpoint(copy)
        path.write_bytes(data)


@pytest.mark.parametrize("name", ["more.txt", "replay/x", ".hidden", "policies/wolf_0.safetensors", "deep/er/file"])
def test_a_file_that_is_not_listed_is_noticed_and_named(tmp_path, name):
    found = save(tmp_path)
    (found.path / name).parent.mkdir(parents=True, exist_ok=True)
    (found.path / name).write_text("x")
    with pytest.raises(CheckpointError, match=f"{name} is not listed"):
        open_checkpoint(found.path)


@pytest.mark.parametrize("name", ["manifest.json", "agents.safetensors", "policies"])
def test_links_are_refused(tmp_path, name):
    found = save(tmp_path / "store")
    (found.path / name).rename(tmp_path / "outside")
    (found.path / name).symlink_to(tmp_path / "outside")
    with pytest.raises(CheckpointError, match=f"{name} is a link"):
        open_checkpoint(found.path)


def forge(folder, name, data):
    """Replace a file and make the manifest agree."""
    (folder / name).unlink()
    (folder / name).write_bytes(data)
    reseal(folder, lambda m: m["files"].update({name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}}))


def test_a_state_that_does_not_have_the_fingerprint_is_refused(tmp_path):
    found, other = save(tmp_path / "a"), save(tmp_path / "b", parts=make_parts(seed=1))
    forge(found.path, "agents.safetensors", (other.path / "agents.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"holds a state with the fingerprint [0-9a-f]{64}, its manifest\.json says"):
        open_checkpoint(found.path)


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("agents.safetensors", pickle.dumps({"a": 1}), "agents.safetensors cannot be read: no safetensors file"),
        ("policies/prey_0.safetensors", b"", "policies/prey_0.safetensors cannot be read: no safetensors file"),
        ("progress.json", b"[]", "progress.json does not hold the parts"),
        ("progress.json", b"[" * 100_000, "progress.json cannot be read: it is nested too deeply"),
        ("progress.json", b"\xff", "progress.json cannot be read"),
    ],
)
def test_a_file_of_another_kind_is_refused_even_with_the_right_digest(tmp_path, name, data, sentence):
    found = save(tmp_path)
    forge(found.path, name, data)
    with pytest.raises(CheckpointError, match=sentence):
        open_checkpoint(found.path).policy("prey_0")


@pytest.mark.parametrize("digest", ["0" * 64, "../../../etc/passwd"])
def test_progress_cannot_name_a_chunk_that_the_manifest_does_not_list(tmp_path, digest):
    found = save(tmp_path)
    progress = json.loads((found.path / "progress.json").read_bytes())
    progress["replay"]["chunks"].append({"$chunk": digest})
    forge(found.path, "progress.json", json.dumps(progress).encode())
    with pytest.raises(CheckpointError, match="names the chunk"):
        open_checkpoint(found.path)


def test_a_chunk_that_no_part_names_is_refused(tmp_path):
    found = save(tmp_path)
    progress = json.loads((found.path / "progress.json").read_bytes())
    progress["replay"]["chunks"].pop()
    forge(found.path, "progress.json", json.dumps(progress).encode())
    with pytest.raises(CheckpointError, match="do not agree on replay/"):
        open_checkpoint(found.path)


def test_a_chunk_that_is_damaged_after_opening_is_noticed_when_it_is_looked_at(tmp_path):
    found = save(tmp_path)
    loaded = next(chunks_in(open_checkpoint(found.path).load()["replay"]))
    path = found.path / "replay" / f"{loaded.digest}.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=path.name):
        _ = loaded.arrays


# ---- parents and publishing


def test_a_parent_is_the_root_or_a_checkpoint(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "manifest.json").write_text('{"format": 1, "root": true, "step": 0}\n')
    digest = hashlib.sha256(b'{"format": 1, "root": true, "step": 0}\n').hexdigest()
    assert is_root(root)
    assert open_parent(root) == Parent(0, digest)
    with pytest.raises(CheckpointError, match="is the root of all lineages"):
        open_checkpoint(root)
    found = save(tmp_path / "store", parent=open_parent(root))
    assert not is_root(found.path)
    assert open_parent(found.path) == Parent(5000, found.digest)
    assert open_checkpoint(found.path).parent == Parent(0, digest)


@pytest.mark.parametrize(
    "text", ['{"format": 1, "root": true, "step": 1}', '{"format": 1, "root": true}', '{"format": 1, "root": true, "step": false}']
)
def test_a_root_with_other_facts_is_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match="restore it from git"):
        open_parent(tmp_path)


def test_the_committed_root_is_a_root():
    assert is_root(Path(__file__).parents[2] / "checkpoints" / "root")


def test_a_published_checkpoint_is_the_same_files_under_another_name(tmp_path):
    found = save(tmp_path / "work")
    target = tmp_path / "checkpoints" / "s00" / "step_000005000"
    for _ in range(2):
        public = publish(found.path, target)
        assert public.path == target
        assert open_checkpoint(target).digest == found.digest
        assert all((target / name).samefile(found.path / name) for name in contents(target))
        assert contents(target).keys() == contents(found.path).keys()
        assert [path.name for path in target.parent.iterdir()] == ["step_000005000"]


def test_publishing_replaces_what_is_damaged_and_refuses_to_replace_what_is_sound(tmp_path):
    found, other = save(tmp_path / "a"), save(tmp_path / "b", parts=make_parts(seed=1))
    target = tmp_path / "out" / "step"
    publish(found.path, target)
    with pytest.raises(CheckpointError, match="sound checkpoint with other contents"):
        publish(other.path, target)
    (target / "manifest.json").unlink()
    assert publish(other.path, target).digest == open_checkpoint(target).digest == other.digest
    (target / "agents.safetensors").unlink()
    (other.path / "agents.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"agents\.safetensors is missing"):
        publish(other.path, target)
