import shutil
from dataclasses import replace

import pytest

from matwm.checkpoint import (
    Checkpoint,
    CheckpointError,
    FormatError,
    open_checkpoint,
    open_parent,
)
from matwm.version import FORMAT
from tests.matwm.checkpoints import SPEC, reseal, save


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return save(tmp_path_factory.mktemp("sound")).path


def renamed(manifest, new, old="agents.safetensors"):
    manifest["files"][new] = manifest["files"].pop(old)


ADVERSARY, OUTSIDE = "policies/adversary_0.safetensors", "policies/../x.safetensors"
ODD_MANIFESTS = {
    "absolute name": lambda m: renamed(m, "/etc/passwd"),
    "name that leads out": lambda m: renamed(m, "../agents.safetensors"),
    "name that leads out within": lambda m: renamed(m, "policies/../../x.safetensors"),
    "backslash": lambda m: renamed(m, "policies\\prey_0.safetensors", "policies/prey_0.safetensors"),
    "pickle": lambda m: renamed(m, "agents.pt"),
    "chunk of another name": lambda m: renamed(m, f"replay/{'0' * 64}.safetensors", min(n for n in m["files"] if "replay" in n)),
    "file left out": lambda m: m["files"].pop("agents.safetensors"),
    "agent without a policy": lambda m: m["spec"].update(agents=["wolf_0", "prey_0"]),
    "agent with a path for a name": lambda m: (m["spec"].update(agents=["../x", "prey_0"]), renamed(m, OUTSIDE, ADVERSARY)),
    "files is a list": lambda m: m.update(files=[]),
    "facts are no mapping": lambda m: m["files"].update({"agents.safetensors": 3}),
    "negative size": lambda m: m["files"]["agents.safetensors"].update(size=-1),
    "size is a truth": lambda m: m["files"]["agents.safetensors"].update(size=True),
    "no digest": lambda m: m["files"]["agents.safetensors"].pop("sha256"),
    "short digest": lambda m: m["files"]["agents.safetensors"].update(sha256="ab"),
    "digest is a number": lambda m: m["files"]["agents.safetensors"].update(sha256=3),
    "unknown fact": lambda m: m["files"]["agents.safetensors"].update(mode=7),
    "no numerics": lambda m: m.pop("numerics"),
    "numerics is text": lambda m: m.update(numerics="1"),
    "one entry more": lambda m: m.update(host="me"),
    "reservation where there is none": lambda m: m.update(reservation="none"),
    "step is a fraction": lambda m: m.update(step=1.5),
    "parent is text": lambda m: m.update(parent="root"),
    "parent without digest": lambda m: m.update(parent={"step": 1}),
    "unknown field of the spec": lambda m: m["spec"].update(colour="red"),
    "spec is null": lambda m: m.update(spec=None),
    "config is text": lambda m: m.update(config="x"),
    "format is a truth": lambda m: m.update(format=True),
}


@pytest.mark.parametrize("name", ODD_MANIFESTS)
def test_a_manifest_that_no_store_has_written_is_refused_before_its_names_are_used(sound, tmp_path, name, monkeypatch):
    copy = tmp_path / "step"
    shutil.copytree(sound, copy)
    reseal(copy, ODD_MANIFESTS[name])
    monkeypatch.setattr(Checkpoint, "verify", lambda self: pytest.fail("its names were used"))
    with pytest.raises(CheckpointError, match=r"manifest\.json is damaged"):
        open_checkpoint(copy)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"format": NaN}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format": "1"}',
        b'{"format": 1}',
        b'{"format": 1e999}',
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path, data):
    (tmp_path / "manifest.json").write_bytes(data)
    for ask in (open_checkpoint, open_parent):
        with pytest.raises(CheckpointError, match=r"manifest\.json is damaged"):
            ask(tmp_path)


def test_a_folder_that_is_none_or_has_no_manifest_is_no_checkpoint(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        for ask in (open_checkpoint, open_parent):
            with pytest.raises(CheckpointError, match=r"is not a checkpoint: manifest\.json cannot be read"):
                ask(path)


def test_what_is_not_promised_is_said(sound, tmp_path):
    assert "reservation" not in open_checkpoint(sound).manifest
    written = save(tmp_path, spec=replace(SPEC, resume="episode"))
    assert open_checkpoint(written.path).manifest["reservation"] == (
        "an episode of tag cannot be brought back or repeated: what is interrupted or branched is continued, not reproduced bit for bit"
    )
    reseal(written.path, lambda manifest: manifest.pop("reservation"))
    assert open_checkpoint(written.path).step == 5000, "earlier ones did not say it"


def test_another_format_is_refused_in_one_sentence(sound, tmp_path):
    copy = tmp_path / "step"
    shutil.copytree(sound, copy)
    reseal(copy, lambda manifest: manifest.update(format=99))
    with pytest.raises(FormatError, match=f"step has format 99, this code reads {FORMAT}: "):
        open_checkpoint(copy)
