"""A segment may start from a checkpoint that its parent's retention had dropped: the parent's entry names it under `keep`."""

import shutil
from pathlib import Path

from matwm.step_names import step_name
from tests.pipeline.lineages import Matwm
from tests.pipeline.projects import Project, tiny_params

ROOT = "checkpoints/root"


def test_a_dropped_step_comes_back_from_mlflow_without_training(tmp_path: Path, store_template: Path, matwm_in: Matwm) -> None:
    parent = {"s00": {"from": ROOT, "until": 120}}
    retention = {"retention": {"keep_last": 1}}
    project = Project.create(tmp_path / "p", tiny_params(retention, parent), store_template)
    project.dvc("repro", "train@s00")
    assert [path.name for path in (project.path / "checkpoints/s00").iterdir()] == [step_name(120)]
    tail = next((project.path / ".matwm/work").glob("s00-*/tail.jsonl"))
    last = tail.read_bytes()
    listed = {path.name for path in (project.path / ".dvc/cache/files").rglob("*.dir")}
    shutil.rmtree(tail.parent / "checkpoints" / step_name(80))  # MLflow has it

    child = {"s01": {"from": f"checkpoints/s00/{step_name(80)}", "until": 100}}
    project.write(tiny_params(retention, {**parent, **child}))
    refusal = (
        "params.yaml: segments.s01.from is 'checkpoints/s00/step_000000080', but s00 is trained and has step 120: choose one of these, "
        "or add keep: [80] to segments.s00, which then brings that checkpoint back"
    )
    before = project.files()
    assert matwm_in(project, "validate") == matwm_in(project, "repro") == (1, "", f"{refusal}\n")
    assert refusal in project.dvc("repro", "train@s01", code=255)
    assert project.files() | {".params.ok"} == before, "validating neither downloads nor publishes; DVC removes its marker"

    project.write(tiny_params(retention, {"s00": {**parent["s00"], "keep": [80]}, **child}))
    said = project.dvc("repro", "train@s01")
    assert "the checkpoint of step 80 comes from MLflow" in said
    assert "s00 step" not in said, "nothing of s00 was trained"
    assert sorted(path.name for path in (project.path / "checkpoints/s00").iterdir()) == [step_name(80), step_name(120)]
    assert listed <= {path.name for path in (project.path / ".dvc/cache/files").rglob("*.dir")}, "earlier commits can be checked out"
    assert project.json("metrics/s01/run.json")["parent"]["step"] == 80
    assert "Data and pipelines are up to date." in project.dvc("repro", "train@s01")
    assert tail.read_bytes() == last
