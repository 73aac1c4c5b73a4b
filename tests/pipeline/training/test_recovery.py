"""Only a training's own checkpoints are gone on from, wherever they come from and whatever name they have."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from matwm.checkpoint import Checkpoint, open_checkpoint, publish
from matwm.store import LocalStore
from matwm.version import NUMERICS
from pipeline.segments import segment_key
from pipeline.training import recovery
from pipeline.training.elsewhere import Source

Save = Callable[..., Checkpoint]
KEY = segment_key(NUMERICS, {"seed": 1}, "0" * 64)
"""Of what `save` makes."""
OTHER = "b" * 64


def source(name: str, *checkpoints: Checkpoint) -> Source:
    """Return a place whose folders for the steps 100, 200, ... hold these checkpoints, whatever they are of."""

    def pull(step: int, folder: Path, near: object) -> Checkpoint:
        return publish(checkpoints[step // 100 - 1].path, folder / f"step_{step:09d}")

    return Source(name, frozenset(100 * number for number in range(1, len(checkpoints) + 1)), pull)


def test_what_is_of_another_training_is_not_brought(save: Save, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = LocalStore(tmp_path / "work/checkpoints")
    assert not recovery._bring(100, OTHER, [source("run 1", save(100))], store)
    assert store.steps() == []
    assert [record.message for record in caplog.records] == [
        "what run 1 has as step 100 of this segment is a checkpoint of another training: it is not used"
    ]


def test_after_a_foreign_checkpoint_the_next_source_is_asked(save: Save, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = LocalStore(tmp_path / "work/checkpoints")
    later, own = save(200), save(100)
    assert recovery._bring(100, KEY, [source("run 1", later), source("run 2", own)], store)
    assert store.open(100).digest == own.digest
    assert "what run 1 has as step 100" in caplog.text


def test_foreign_checkpoints_in_a_work_directory_are_kept_aside(save: Save, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = LocalStore(tmp_path / "work/checkpoints")
    for name in ("step_000000100", "step_000000300"):
        shutil.copytree(save(100).path, store.folder / name)
    shutil.copytree(save(200).path, store.folder / "step_000000200")
    (store.folder / "step_000000200/agents.safetensors").write_bytes(b"")
    recovery.set_aside(store, KEY)
    assert store.steps() == [100, 200], "the one under the wrong name is gone, a damaged one of this training is not"
    recovery.set_aside(store, OTHER)
    assert store.steps() == []
    kept = {path.name.split("-")[0]: path for path in (tmp_path / "work/foreign").iterdir()}
    assert sorted(kept) == ["step_000000100", "step_000000200", "step_000000300"]
    assert open_checkpoint(kept["step_000000300"]).digest == save(100).digest
    assert (
        f"{store.folder}/step_000000300 is a checkpoint of another training: it is not used, and lies in {kept['step_000000300']} now"
        in (record.message for record in caplog.records)
    )
