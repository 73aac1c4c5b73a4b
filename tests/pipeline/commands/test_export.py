"""`matwm export`: a file of a run's checkpoint that says which one it is."""

import json
from pathlib import Path

import torch

from tests.pipeline.lineages import Matwm
from tests.pipeline.projects import Project


def test_a_checkpoint_becomes_a_file(made: Project, matwm_in: Matwm, tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "some.pt2"
    command = ("export", "s00@20", "--format", "pt2", "--agents", "agent_0", "adversary_1", "--output", str(target))
    code, output, errors = matwm_in(made, *command)
    assert (code, errors) == (0, "")
    assert output == f"{target}: agent_0, adversary_1 of step 20, {target.stat().st_size:,} bytes, for torch alone\n"
    files = {"matwm": ""}
    program = torch.export.load(target, extra_files=files).module()
    about = json.loads(files["matwm"])
    (run,) = [one for one in json.loads(matwm_in(made, "runs", "--json")[1]) if one["segment"] == "s00"]
    shown = json.loads(matwm_in(made, "show", "s00@20", "--json")[1])
    assert (about["run_id"], about["step"], about["digest"]) == (run["run_id"], 20, shown["digest"])
    given = {
        name: torch.full((3, *one["shape"][1:]), one["first"], dtype=getattr(torch, one["dtype"])) for name, one in about["inputs"].items()
    }
    action, log_probs, *_ = program(**given)
    assert action.shape == (3, 2)
    assert torch.equal(log_probs.argmax(-1), action)


def test_what_cannot_be_exported_is_said(made: Project, matwm_in: Matwm) -> None:
    code, output, errors = matwm_in(made, "export", "s00@20", "--format", "onnx", "--agents", "prey")
    assert (code, output) == (1, "")
    assert errors.endswith("step_000000020 has no agent 'prey': it has adversary_0, adversary_1, agent_0\n")
