"""Guards FORMAT: a checkpoint that was written once must stay readable, byte for byte and in what follows from it.

`golden_checkpoint/` holds one of a very small training, `golden_checkpoint.json` what it is and where training from it leads.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from matwm import manifest
from matwm.checkpoint import CheckpointError, open_checkpoint
from matwm.config import Config
from matwm.manifest import ROOT, FormatError
from matwm.params_yaml import parse_config
from matwm.stateful import fingerprint
from matwm.step_names import step_name
from matwm.store import LocalStore
from matwm.trainer import Trainer, build_trainer
from matwm.version import FORMAT, NUMERICS
from tests.matwm.test_golden import COMPARED, differences
from tests.matwm.tiny import tiny_config

FOLDER = Path(__file__).with_name("golden_checkpoint")
RECORDING = FOLDER.with_suffix(".json")
STEP, MORE = 30, 20
LARGEST_BYTES = 200_000
CHANGES: dict[str, Any] = {
    "env.options": {"num_good": 1, "num_adversaries": 1, "num_obstacles": 1, "max_cycles": 7},
    "schedule.warmup_steps": 12,
    "run.metrics_interval": 5,
    "replay.chunk_rows": 10,
    "world_model.hidden_size": 8,
    "world_model.layers": 1,
    "world_model.encoder_width": 8,
    "world_model.head_width": 8,
    "world_model.bins": {"count": 7, "bound": 6.0},
    "actor_critic.width": 8,
    "actor_critic.bins": {"count": 7, "bound": 6.0},
}
HOW = "python -m pytest tests/matwm/test_golden_checkpoint.py --record-golden-checkpoint"
MEANING = (
    f"A format change must read or migrate this: checkpoints like it lie in people's stores. Raise FORMAT in matwm/version.py, teach the "
    f"code to read format {FORMAT} or `matwm` to migrate it, say so in CHANGELOG.md, and record the new format beside this one with {HOW}."
)


def config() -> Config:
    """Return the checkpoint's own configuration; what does not shape training may have got other fields since."""
    return parse_config(tiny_config(CHANGES).shaped_by(open_checkpoint(FOLDER / step_name(STEP)).config))


def recorded() -> dict[str, Any]:
    return json.loads(RECORDING.read_text(encoding="utf-8"))


def state_of(trainer: Trainer) -> str:
    return fingerprint({name: state for name, state in trainer.parts().items() if name != "history"})


def resumed() -> Trainer:
    try:
        trainer = build_trainer(config())
        trainer.resume(open_checkpoint(FOLDER / step_name(STEP)))
    except ValueError as error:
        pytest.fail(f"the golden checkpoint cannot be read: {error}\n{MEANING}")
    return trainer


def curves_from(trainer: Trainer) -> dict[str, Any]:
    """Train on; return what training minimised since, and what it led to."""
    begun = trainer.env_step
    for _ in range(MORE):
        trainer.step()
    found = {key: [[step, value] for step, value in points if step > begun] for key, points in sorted(trainer.history.metrics.items())}
    return {key: points for key, points in found.items() if key.rpartition("/")[2] in COMPARED}


def test_the_golden_checkpoint_is_of_the_present_format_and_small():
    assert recorded()["format"] == FORMAT, MEANING
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < LARGEST_BYTES


def test_it_is_read_as_what_it_was_written_as():
    try:
        checkpoint = open_checkpoint(FOLDER / step_name(STEP))
    except CheckpointError as error:
        pytest.fail(f"the golden checkpoint cannot be read: {error}\n{MEANING}")
    facts = recorded()
    found = {"digest": checkpoint.digest, "fingerprint": checkpoint.fingerprint, "files": sorted(checkpoint.manifest["files"])}
    assert found == {key: facts[key] for key in found}, MEANING
    assert checkpoint.parent == ROOT


def test_loaded_and_saved_again_its_files_are_the_same_bytes(tmp_path):
    trainer = resumed()
    assert state_of(trainer) == recorded()["fingerprint"], MEANING
    again = trainer.save(LocalStore(tmp_path), ROOT)
    if recorded()["numerics"] == NUMERICS:
        files = open_checkpoint(FOLDER / step_name(STEP)).manifest["files"]  # the configuration may have got fields since
        assert again.manifest["files"] == files, f"saved again it is another checkpoint. {MEANING}"
    assert again.fingerprint == recorded()["fingerprint"], MEANING


def test_training_goes_on_from_it_to_the_recorded_numbers():
    facts = recorded()
    if facts["curves_numerics"] != NUMERICS:
        pytest.fail(f"NUMERICS is {NUMERICS}, but the curves belong to {facts['curves_numerics']}: record them anew with {HOW}")
    wrong = differences(curves_from(resumed()), facts["curves"])
    assert not wrong, f"training from the golden checkpoint leads elsewhere, first: {wrong[0]}"


def test_what_training_from_it_must_reproduce_would_notice_another_start():
    facts = recorded()
    trainer = build_trainer(config())
    for _ in range(STEP - 1):
        trainer.step()
    assert differences(curves_from(trainer), facts["curves"])


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (0, f"has format 0, this code reads {FORMAT}: use the version of MATWM that wrote it, or start a new run"),
        (FORMAT + 1, f"has format {FORMAT + 1}, this code reads {FORMAT}: use the version of MATWM that wrote it, or start a new run"),
        (str(FORMAT), "manifest.json is damaged: it names no format"),
        (True, "manifest.json is damaged: it names no format"),
        (None, "manifest.json is damaged: it names no format"),
    ],
)
def test_another_format_is_refused_in_a_sentence(tmp_path, found, sentence):
    folder = shutil.copytree(FOLDER / step_name(STEP), tmp_path / step_name(STEP))
    facts = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    facts = {key: value for key, value in {**facts, "format": found}.items() if value is not None and key != "seal"}
    (folder / "manifest.json").write_bytes(manifest.to_json({**facts, "seal": manifest.seal(facts)}))
    with pytest.raises(CheckpointError, match=sentence) as caught:
        open_checkpoint(folder)
    assert isinstance(caught.value, FormatError) == (type(found) is int)


def record() -> None:
    """Write the checkpoint and its facts anew; of one of this format, which must stay readable, only where training from it leads."""
    if RECORDING.exists() and (facts := recorded())["format"] == FORMAT:
        if facts["curves_numerics"] == NUMERICS:
            raise SystemExit(
                f"{FOLDER.name} is of format {FORMAT} and its curves are of numerics {NUMERICS} already: raise one of them in "
                f"matwm/version.py first (or remove {RECORDING.name}, if no checkpoint of this format was ever published)"
            )
        write({**facts, "curves_numerics": NUMERICS, "curves": curves_from(resumed())})
        return
    shutil.rmtree(FOLDER, ignore_errors=True)
    trainer = build_trainer(tiny_config(CHANGES))
    for _ in range(STEP):
        trainer.step()
    checkpoint = trainer.save(LocalStore(FOLDER), ROOT)
    for path in FOLDER.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    facts = {"format": FORMAT, "numerics": NUMERICS, "digest": checkpoint.digest, "fingerprint": checkpoint.fingerprint}
    facts |= {"files": sorted(checkpoint.manifest["files"]), "curves_numerics": NUMERICS, "curves": curves_from(trainer)}
    write(facts)


def write(facts: dict[str, Any]) -> None:
    RECORDING.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
