"""Only a training's own checkpoints are gone on from, wherever they come from and whatever name they have."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from matwm.checkpoint import Checkpoint, open_checkpoint
from matwm.store import LocalStore
from matwm.version import NUMERICS
from pipeline.keys import segment_key
from pipeline.run import Run
from pipeline.stores.folders import PublishedStore
from pipeline.training import recovery
from pipeline.training.elsewhere import Offer

Save = Callable[..., Checkpoint]
KEY = segment_key(NUMERICS, {"seed": 1}, "0" * 64)
"""Of what `save` makes."""
OTHER = "b" * 64


def offer(folder: Path, key: str, **checkpoints: Checkpoint) -> Offer:
    """Return a store whose folders, named by keyword, hold these checkpoints, whatever they are of."""
    for name, checkpoint in checkpoints.items():
        shutil.copytree(checkpoint.path, folder / name)
    store, run = PublishedStore(folder), Run(key=key, published=folder)
    store.name = folder.name
    return Offer(store, run, frozenset(store.steps(run)))


def test_what_is_of_another_training_is_not_brought(save: Save, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = LocalStore(tmp_path / "work/checkpoints")
    assert not recovery._bring(100, [offer(tmp_path / "one", OTHER, step_000000100=save(100))], store)
    assert store.steps() == []
    assert [record.message for record in caplog.records] == [
        "what one has as step 100 of this segment is a checkpoint of another training: it is not used"
    ]


def test_after_a_foreign_checkpoint_the_next_store_is_asked(save: Save, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = LocalStore(tmp_path / "work/checkpoints")
    later, own = save(200), save(100)
    offers = [offer(tmp_path / "one", KEY, step_000000100=later), offer(tmp_path / "two", KEY, step_000000100=own)]
    assert recovery._bring(100, offers, store)
    assert store.open(100).digest == own.digest
    assert "what one has as step 100" in caplog.text


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
