"""Raises NUMERICS over finished training: `matwm repro` and `dvc repro` train nothing again unasked, and a branch keeps the work."""

import re
from pathlib import Path

import pytest

from matwm.params_yaml import read_params
from matwm.step_names import step_name
from matwm.version import NUMERICS
from pipeline.catalog.numerics import of_other_numerics
from pipeline.params.segments import resolve_all
from tests.pipeline.lineages import Matwm
from tests.pipeline.projects import Project, tiny_params

ROOT = "checkpoints/root"


def contents(project: Project) -> dict[str, bytes]:
    """Return what DVC, git and a person would miss: no logs, no marker of a stage, no cache of sizes."""
    skipped = (".params.ok", "mlflow.db.lock", ".matwm/sizes")
    files = [name for name in project.files() if not name.startswith(skipped)]
    return {name: (project.path / name).read_bytes() for name in files}


def raise_numerics(project: Project) -> None:
    """Change the version file as whoever changes the arithmetic does."""
    version = project.path / "matwm/version.py"
    text, count = re.subn(r"^NUMERICS = \d+$", f"NUMERICS = {NUMERICS + 1}", version.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert count == 1
    version.write_text(text, encoding="utf-8")
    project.commit("train, then raise NUMERICS")


def test_another_numerics_trains_nothing_again_unasked_and_branches_off_what_is_there(tmp_path: Path, store_template: Path) -> None:
    first = {"s00": {"from": ROOT, "until": 40}}
    project = Project.create(tmp_path / "p", tiny_params(segments=first), store_template)
    project.dvc("repro", "train@s00")
    raise_numerics(project)
    old = project.json("metrics/s00/run.json")
    before = contents(project)
    refusal = project.matwm("repro", code=1)
    assert refusal.count("\n") == 1
    assert f"segment s00 (to step 40) is trained by NUMERICS {NUMERICS}, and this code has {NUMERICS + 1} (matwm/version.py)" in refusal
    assert all(
        way in refusal for way in ("matwm continue s00 --until N", "matwm repro --retrain", f"git checkout {old['git']['commit'][:12]}")
    )
    assert refusal.strip() in project.dvc("repro", "train@s00", code=255), "DVC removes a stage's outputs before it calls the stage"
    assert contents(project) == before

    said = project.matwm("continue", "s00", "--until", "60")
    assert f"is trained by NUMERICS {NUMERICS}, segment s01 will be by {NUMERICS + 1}" in said
    branch = project.params()["segments"]["s01"]
    assert branch == {"from": f"imports/{old['run_id']}/{step_name(40)}", "until": 60}
    project.write(tiny_params(segments={"s01": branch}))
    project.matwm("repro", "train@s01")
    facts = project.json("metrics/s01/run.json")
    assert (facts["parent"]["run_id"], facts["parent"]["step"]) == (old["run_id"], 40)
    assert (facts["numerics"], facts["tags"]["matwm.numerics"]) == (NUMERICS + 1, str(NUMERICS + 1))
    assert project.json(f"{branch['from']}/manifest.json")["numerics"] == NUMERICS
    kept = {name: data for name, data in before.items() if name.startswith(("checkpoints/s00", "metrics/s00", "mlruns/"))}
    assert {name: (project.path / name).read_bytes() for name in kept} == kept
    said = project.matwm("verify", "s01")
    assert f"s00 ({old['run_id'][:12]}) was trained by NUMERICS {NUMERICS}, this code has {NUMERICS + 1}" in said
    assert "all as recorded, back to the root" in said

    project.write(tiny_params(segments=first))
    project.matwm("repro", "--retrain", "train@s00")
    new = project.json("metrics/s00/run.json")
    assert (new["numerics"], new["key"] == old["key"], new["run_id"] == old["run_id"]) == (NUMERICS + 1, False, False)
    assert {name: (project.path / name).read_bytes() for name in kept if name.startswith("mlruns/")}, "MLflow keeps the old checkpoints"
    assert "Data and pipelines are up to date." in project.matwm("repro", "train@s00"), "it is asked for once"


def found(project: Project) -> dict[str, int]:
    graph = resolve_all(read_params(project.path / "params.yaml"), project.path)
    return {name: run.step for name, run in of_other_numerics(project.path, graph).items()}


def test_what_is_of_another_numerics(copied: Project, monkeypatch: pytest.MonkeyPatch, matwm_in: Matwm) -> None:
    assert not found(copied)
    monkeypatch.setattr("pipeline.catalog.numerics.NUMERICS", NUMERICS + 1)
    whole = {"s00": 40, "s01": 60, "s02": 60, "s03": 70}
    assert found(copied) == whole, "s03 was interrupted: its work directory has it"
    for change in ({"until": 80}, {"keep": [20]}):
        copied.edit("segments.s00", {"from": ROOT, "until": 40, **change})
        assert found(copied) == whole, "no part of a key"
    copied.edit("segments.s02.override.actor_critic.learning_rate", 2e-4)
    assert found(copied) == {"s00": 40, "s01": 60, "s03": 70}, "s02 is another training now"
    copied.edit("seed", 5)
    assert not found(copied), "all are"

    copied.edit("seed", 0)
    clone = Project(copied.path.with_name("clone"))
    copied.run("git", "clone", "-q", str(copied.path), str(clone.path))
    assert found(clone) == {"s00": 40, "s01": 60, "s02": 60}, "git has it, though no checkpoint is here"
    code, _, errors = matwm_in(clone, "repro")
    assert (code, errors.count("\n")) == (1, 1)
    assert "are trained by NUMERICS" in errors


def test_the_last_interval_of_another_numerics_is_not_trained_again(
    made: Project, monkeypatch: pytest.MonkeyPatch, matwm_in: Matwm
) -> None:
    for module in ("pipeline.catalog.verify", "pipeline.commands.verify"):
        monkeypatch.setattr(f"{module}.NUMERICS", NUMERICS + 1)
    code, output, errors = matwm_in(made, "verify", "--deep", "s01")
    assert (code, "trained again" in output) == (0, False)
    assert f"the last interval was not trained again: NUMERICS {NUMERICS} has made it, and {NUMERICS + 1} makes other numbers" in errors
