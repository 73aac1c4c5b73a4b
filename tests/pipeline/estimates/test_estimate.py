"""Estimates against what training really makes."""

import json
from pathlib import Path
from typing import Any

import pytest

from matwm.checkpoint import open_checkpoint
from matwm.params_yaml import parse_config
from matwm.replay import Replay
from matwm.step_names import step_name
from matwm.trainer import build_trainer
from pipeline.estimates import estimate
from pipeline.params.segments import resolve
from tests.pipeline.projects import tiny_params
from tests.pipeline.test_train import project, run, work, write

__all__ = ["project"]
BIGGER = {"world_model": {"hidden_size": 64, "encoder_width": 64, "head_width": 64}, "actor_critic": {"width": 64}}


def blocks(folder: Path) -> int:
    """Return the content of all files, each inode once."""
    return sum({stat.st_ino: stat.st_size for path in folder.rglob("*") if path.is_file() for stat in [path.stat()]}.values())


@pytest.mark.parametrize("changes", [{}, BIGGER, {"replay": {"chunk_rows": 7}, "env": {"options": {"num_adversaries": 4}}}])
def test_checkpoints_take_what_was_estimated(project: Path, changes: dict[str, Any]) -> None:
    write(project, {"s00": {"from": "checkpoints/root", "until": 200}}, changes)
    segment = resolve(tiny_params(changes, {"s00": {"from": "checkpoints/root", "until": 200}}), "s00", project)
    found = estimate.disk(segment, 0, estimate.sizes(segment.config))
    run(project)
    folder = work(project) / "checkpoints"
    assert (found.checkpoints, len(list(folder.iterdir()))) == (5, 5)
    assert found.total == pytest.approx(blocks(folder), rel=0.1)
    own = [
        sum(facts["size"] for name, facts in open_checkpoint(folder / step_name(step)).manifest["files"].items() if name[:7] != "replay/")
        for step in range(40, 201, 40)
    ]
    assert found.each == pytest.approx(sum(own) / 5, rel=0.1)
    half = estimate.disk(segment, 120, estimate.sizes(segment.config))
    assert half.checkpoints == 2
    assert estimate.disk(segment, 200, estimate.sizes(segment.config)).total == 0


def test_parameters_and_rows_are_counted_exactly() -> None:
    for changes in ({}, BIGGER, {"env": {"name": "simple_world_comm_v3", "options": {"max_cycles": 12}}}):
        data = tiny_params()
        data["env"] = changes.get("env", data["env"]) if "name" in changes.get("env", {}) else data["env"]
        config = parse_config(tiny_params(changes) if "env" not in changes else {**data, "env": {"family": "mpe", **changes["env"]}})
        found, learner = estimate.sizes(config), build_trainer(config).learner
        assert found.world_model == sum(p.numel() for p in learner.world_model.parameters())
        assert found.agents + found.slow == sum(p.numel() for p in learner.agents.parameters())
        arrays = Replay(learner.spec, config.replay)._rows
        assert found.row == sum(array[0].nbytes for array in arrays.values())


def test_an_answer_is_kept_and_a_spoilt_one_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_config(tiny_params())
    first = estimate.sizes(config, tmp_path)
    kept = tmp_path / ".matwm" / "estimates.json"
    with monkeypatch.context() as patch:
        patch.setattr(estimate, "_measured", lambda _: pytest.fail("it was asked for before"))
        assert estimate.sizes(config, tmp_path) == first
    kept.write_text(json.dumps({key: {} for key in json.loads(kept.read_text(encoding="utf-8"))}), encoding="utf-8")
    assert estimate.sizes(config, tmp_path) == first
