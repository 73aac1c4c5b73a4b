"""A resume that is not exact is found out: by name and step, loudly, and for good."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from matwm.checkpoint import Checkpoint
from matwm.learner import Learner
from matwm.step_names import step_name
from matwm.store import LocalStore
from matwm.trainer import Trainer
from pipeline import cli, runs
from pipeline.metrics.mismatches import Mismatch, Mismatches
from pipeline.process import Interruption
from pipeline.tracking import lines
from pipeline.train import train
from tests.pipeline.lineages import Matwm
from tests.pipeline.projects import HOLDING, SOURCE, Project, tiny_params, until


class PowerCutError(Exception):
    """The process ends here."""


def test_mismatches_outlive_the_process_once_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = Mismatch("loss", 3, 0.1, float("nan"))
    Mismatches(tmp_path / "m").report([found, found])
    again = Mismatches(tmp_path / "m")
    again.report([found, Mismatch("loss", 4, 1.0, 2.0)])
    with (tmp_path / "m").open("ab") as file:
        file.write(b'["loss", 5, "1')
    assert [str(one) for one in Mismatches(tmp_path / "m").all()] == [
        "loss at step 3 was 0.1 and is nan when computed again",
        "loss at step 4 was 1.0 and is 2.0 when computed again",
    ]
    assert caplog.text.count("NOT REPRODUCED") == 2


def test_one_weight_that_differs_after_a_resume_is_reported_by_name_and_step(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(SOURCE / "checkpoints/root", root / "checkpoints/root")
    (root / "params.yaml").write_text(yaml.safe_dump(tiny_params()), encoding="utf-8")
    step, resume = Trainer.step, Trainer.resume

    def dying(self: Trainer) -> None:
        if self.env_step == 75:
            raise PowerCutError
        step(self)

    def perturbing(self: Trainer, checkpoint: Checkpoint) -> None:
        resume(self, checkpoint)
        assert isinstance(self.learner, Learner)
        with torch.no_grad():
            next(iter(self.learner.world_model.parameters())).view(-1)[0] += 1e-3

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", dying)
        with pytest.raises(PowerCutError):
            train(root, "s00", Interruption())
    assert "NOT REPRODUCED" not in caplog.text
    monkeypatch.setattr(Trainer, "resume", perturbing)
    assert train(root, "s00", Interruption()) == 0, "it is a training, though not the promised one"
    said = capsys.readouterr().err.splitlines()[-1]
    facts = json.loads((root / "metrics/s00/run.json").read_text(encoding="utf-8"))
    first, count = facts["not_reproduced"]["first"], facts["not_reproduced"]["points"]
    assert f"{count} metric points of segment s00 came out otherwise" in said
    assert first in said
    assert " at step 50 was " in first, "the first point after the checkpoint of step 40"
    assert f"NOT REPRODUCED: {first}" in caplog.text
    tags = runs.client(runs.configured_uri()).get_run(facts["run_id"]).data.tags
    assert (tags["matwm.not_reproduced"], tags["matwm.not_reproduced_points"]) == (first, str(count))
    monkeypatch.chdir(root)
    assert cli.main(["runs", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["not_reproduced"] == {"points": count, "first": first}


def test_a_checkpoint_that_was_tampered_with_is_found_out_when_training_goes_on(
    tmp_path: Path, store_template: Path, matwm_in: Matwm, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    project = Project.create(tmp_path / "p", tiny_params(segments={"s00": {"from": "checkpoints/root", "until": 160}}), store_template)
    process = project.start(str(HOLDING), "-m", "pipeline.train", "s00", **project.hold(105))
    until(lambda: project.has_saved(80) and any(step >= 100 for step in recorded_steps(project)))
    process.send_signal(signal.SIGKILL)
    process.wait()
    tamper(next((project.path / ".matwm/work").glob("s00-*/checkpoints")), 80)
    assert train(project.path, "s00", Interruption()) == 0
    assert "NOT REPRODUCED: " in caplog.text
    said = capsys.readouterr().err.splitlines()[-1]
    assert " at step 90 was " in said
    assert "came out otherwise when steps were computed again after an interruption" in said
    assert project.json("metrics/s00/run.json")["not_reproduced"]["points"] > 0
    code, table, _ = matwm_in(project, "runs")
    assert code == 0
    assert "FINISHED !" in table
    assert "is not reproduced: " in table.splitlines()[-1]


def recorded_steps(project: Project) -> list[int]:
    rows = [row for path in (project.path / ".matwm/work").glob("*/tail.jsonl") for row, _ in lines.read(path).rows]
    return [row["step"] for row in rows if "step" in row]


def tamper(checkpoints: Path, step: int) -> None:
    """Replace a checkpoint by one that differs in one weight and is sound to all appearance; later ones are gone."""
    for folder in checkpoints.glob("step_*"):
        if folder.name > step_name(step):
            shutil.rmtree(folder)
    checkpoint = LocalStore(checkpoints).open(step)
    parts: dict[str, Any] = checkpoint.load()
    name = next(name for name, value in parts["world_model"].items() if isinstance(value, torch.Tensor) and value.is_floating_point())
    parts["world_model"][name].view(-1)[0] += 1e-3
    policies = {agent: checkpoint.policy(agent) for agent in checkpoint.spec.agents}
    made = LocalStore(checkpoints.parent / "tampered").save(
        step, parts, parent=checkpoint.parent, config=checkpoint.config, spec=checkpoint.spec, policies=policies
    )
    shutil.rmtree(checkpoint.path)
    shutil.move(made.path, checkpoint.path)
