"""What `validate` says of disks and memory before anything is trained."""

import shutil
from argparse import Namespace
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import yaml

from matwm.config import ConfigError
from pipeline import validate as stage
from pipeline.commands import validate as command
from pipeline.estimates import forecast
from tests.pipeline.projects import SOURCE, StopAfter
from tests.pipeline.test_train import project, run, write

__all__ = ["project"]
Usage = namedtuple("Usage", "total used free")
HUGE = {"world_model": {"hidden_size": 16384, "heads": 2, "layers": 64}}
S00 = {"s00": {"from": "checkpoints/root", "until": 200}}


def warnings(project: Path, changes: dict[str, Any] | None = None) -> list[str]:
    write(project, S00, changes)
    of_git, *others = stage.foresee(project, stage.validate(project)).warnings
    assert of_git.startswith("runs are recorded without a commit: ")
    return others


def test_what_fits_is_not_warned_of_and_told(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert warnings(project) == []
    monkeypatch.chdir(project)
    assert command.run(Namespace(json=False)) == 0
    out = capsys.readouterr().out
    assert out.startswith("s00: from checkpoints/root to step 200: 5 checkpoints to make, ")
    run(project, interruption=StopAfter(130))
    command.run(Namespace(json=False))
    assert "to step 200: 2 checkpoints to make, " in capsys.readouterr().out


def test_a_full_disk_is_told_before_it_is_full(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1, 1, 50_000))
    (found,) = warnings(project)
    assert found.startswith("params.yaml: the checkpoints still to be made need about ")
    assert " MB, and 50.0 kB are free at " in found
    assert found.endswith('raise run.save_interval (now 40), prune while it trains ("matwm prune" with a retention), or use another disk')


def test_more_memory_than_there_is_is_refused_by_its_largest_part(project: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        warnings(project, HUGE)
    (problem,) = caught.value.problems
    assert problem.startswith("params.yaml: segment s00 needs at least ")
    assert "the largest part is the world model (" in problem
    assert "with gradients and Adam's moments; world_model), " in problem
    with pytest.raises(ConfigError, match=r"the largest part is the replay \([\d,]+ rows; replay.capacity\)"):
        write(
            project,
            {"s00": {"from": "checkpoints/root", "until": 999_999_999}},
            {"replay": {"capacity": 10**12}, "run": {"save_interval": 10**6}},
        )
        stage.foresee(project, stage.validate(project))


def test_what_only_might_not_fit_is_a_warning(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "available_memory", lambda: 100_000_000)
    (found,) = warnings(project)
    assert found.startswith("params.yaml: segment s00 needs roughly ")


def test_the_stage_refuses_and_makes_nothing(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write(project, S00, HUGE)
    monkeypatch.chdir(project)
    assert stage.main() == 1
    assert not (project / ".params.ok").exists()
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_rule_that_changes_nothing_is_told(project: Path) -> None:
    (found,) = warnings(project, {"retention": {"keep_every": 80}})
    assert found == (
        "params.yaml: retention.keep_every changes nothing in segment s00 as long as retention.keep_last is null, "
        "which keeps every checkpoint: set keep_last to a number"
    )


def test_the_committed_parameters_fit() -> None:
    graph = stage.validate(SOURCE)
    assert forecast.forecast(SOURCE, graph, yaml.safe_load((SOURCE / "params.yaml").read_text(encoding="utf-8"))).warnings == []
