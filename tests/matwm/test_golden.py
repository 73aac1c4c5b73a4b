"""Guards NUMERICS: the same parameters must train to the same numbers until that version is raised.

The recordings hold their own parameters, so that tuning presets or test sizes does not touch them.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from matwm.config import LossWeights
from matwm.params_yaml import parse_config
from matwm.trainer import build_trainer
from matwm.version import NUMERICS
from tests.matwm.tiny import tiny_config

HERE = Path(__file__).parent
STEPS = 64
CHANGES = {
    "schedule.warmup_steps": 24,
    "run.metrics_interval": 8,
    "world_model.latent_gradient": "reinmax",
    "world_model.window_length": 16,
    "world_model.free_nats": 0.05,  # of networks this small every KL would lie below 1
    "env.options": {"max_cycles": 9},
}
RECORDINGS: dict[str, dict[str, Any]] = {
    "golden.json": CHANGES,
    "golden_ordinal.json": {
        **CHANGES,
        "world_model.latent_code": "ordinal",
        "world_model.reward_input": "arrival",
        "world_model.reward_learning_rate": 3e-3,
    },
}
"""File -> what it is of: the paper's latents and rewards, and those of cpu-small."""
COMPARED = {*LossWeights.model_fields, "total", "kl", "gradient_norm", "actor_loss", "critic_loss", "entropy", "value", "return"}
"""What training minimises and what it leads to; how else it is described may change freely."""
HOW = "python -m pytest tests/matwm/test_golden.py --record-golden"


def train(params):
    trainer = build_trainer(parse_config(params))
    for _ in range(STEPS):
        trainer.step()
    curves = sorted(trainer.history.metrics.items())
    return {key: [[step, value] for step, value in points] for key, points in curves if key.rpartition("/")[2] in COMPARED}


def differences(found, expected):
    if found.keys() != expected.keys():
        return [f"curves {sorted(found.keys() ^ expected.keys())} are in one of the two only"]
    return [
        f"{key} at step {step}: {value:.6g}, recorded {recorded:.6g}"
        for key in expected
        for (step, value), (_, recorded) in zip(found[key], expected[key], strict=True)
        if value != pytest.approx(recorded, rel=1e-3, abs=1e-5)
    ]


@pytest.mark.parametrize("name", RECORDINGS)
def test_the_same_parameters_train_to_the_recorded_numbers(name):
    recording = json.loads((HERE / name).read_text(encoding="utf-8"))
    if recording["numerics"] != NUMERICS:
        pytest.fail(f"NUMERICS is {NUMERICS}, but the recording belongs to {recording['numerics']}: record anew with {HOW}")
    wrong = differences(train(recording["params"]), recording["metrics"])
    if wrong:
        lines = "\n  ".join(sorted(wrong, key=lambda line: int(line.split(" at step ")[1].split(":")[0]) if " at step " in line else 0)[:5])
        pytest.fail(
            f"the same parameters train to other numbers ({len(wrong)} points differ), first:\n  {lines}\n"
            f"If that is meant, raise NUMERICS in matwm/version.py, say so in CHANGELOG.md, and record anew with {HOW}. "
            "If not, something changed the arithmetic of training."
        )


def test_the_recording_notices_a_change_in_the_seventh_step():
    """The comparison is worth something: another learning rate is another run."""
    recording = json.loads((HERE / "golden.json").read_text(encoding="utf-8"))
    params = recording["params"]
    params["world_model"]["learning_rate"] *= 1.05
    assert differences(train(params), recording["metrics"])


def record() -> None:
    """Write the recordings anew; refuse if numbers moved and NUMERICS did not."""
    for name, changes in RECORDINGS.items():
        params = tiny_config(changes).resolved()
        metrics, recording = train(params), HERE / name
        if recording.exists():
            before = json.loads(recording.read_text(encoding="utf-8"))
            if before["numerics"] == NUMERICS and before["params"] == params and differences(metrics, before["metrics"]):
                raise SystemExit(
                    f"the numbers of {name} have changed, but NUMERICS is still {NUMERICS}: raise it in matwm/version.py first "
                    "(or remove the file, if no checkpoint of it was ever published)"
                )
        head = {"numerics": NUMERICS, "params": params}
        lines = ",\n".join(f"    {json.dumps(key)}: {json.dumps(points)}" for key, points in metrics.items())
        recording.write_text(json.dumps(head, indent=1)[:-2] + ',\n "metrics": {\n' + lines + "\n }\n}\n", encoding="utf-8")
