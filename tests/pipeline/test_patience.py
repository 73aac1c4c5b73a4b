"""A training with `patience` ends at a checkpoint when evaluations do not get better, and every resume ends it there again."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from matwm.checkpoint import open_checkpoint
from matwm.config import ConfigError
from matwm.params_yaml import read_params
from matwm.scenarios import objective
from matwm.step_names import step_name, steps_in
from pipeline import finished_trials, tracking
from pipeline.evaluate import evaluate
from pipeline.job import Job, open_start
from pipeline.metrics import best
from pipeline.metrics.recorded import TIMES, read_recorded
from pipeline.params.segments import ResolvedSegment, resolve_all
from pipeline.process import Interruption
from pipeline.train import train
from pipeline.trial import run_trial
from tests.pipeline.projects import SOURCE, StopAfter, tiny_params

ROOT = "checkpoints/root"
WHERE = "params.yaml: segments.s00"
EVALUATED = {"evaluation": {"interval": 40, "objective": "self_play/agent"}}


def test_evaluations_are_counted_since_the_best() -> None:
    judged = {10: 1.0, 20: 3.0, 30: 3.0, 40: 2.0, 50: 4.0, 60: 1.0}
    most, least = objective.parse("win"), objective.parse("min win")
    assert best.stalled(most, judged, 2, [10, 20, 30, 40, 50, 60]) == 40
    assert best.stalled(most, judged, 1, [10, 20, 30, 40, 50, 60]) == 30
    assert best.stalled(most, judged, 1, [20, 40]) == 40, "at a checkpoint alone"
    assert best.stalled(most, judged, 3, [10, 20, 30, 40, 50, 60]) is None
    assert best.stalled(least, judged, 4, [10, 20, 30, 40, 50, 60]) == 50
    assert best.stalled(most, {}, 1, [10]) is None


def write(project: Path, segments: dict[str, Any], changes: dict[str, Any] = EVALUATED, **more: Any) -> dict[str, ResolvedSegment]:
    params = {**tiny_params(changes, segments), **more}
    (project / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    return resolve_all(read_params(project / "params.yaml"), project)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, f"{WHERE}.patience is 1, but no step before the last is both evaluated (evaluation.interval is 0) and saved"),
        ({"evaluation": {"interval": 60}}, f"{WHERE}.patience is 1, but no step before the last is both evaluated"),
    ],
)
def test_a_rule_that_could_never_hold_is_refused(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve_all(tiny_params(changes, {"s00": {"from": ROOT, "until": 100, "patience": 1}}), tmp_path)
    assert refused.value.problems[0].startswith(sentence)


def test_patience_shapes_no_training(tmp_path: Path) -> None:
    plain, patient = (
        resolve_all(tiny_params(EVALUATED, {"s00": {"from": ROOT, "until": 100, **more}}), tmp_path)["s00"]
        for more in ({}, {"patience": 1})
    )
    assert plain.key("a" * 64) == patient.key("a" * 64) and plain.saves == patient.saves


def test_a_training_stops_early_and_every_resume_stops_it_there(root: Path) -> None:
    shutil.copytree(SOURCE / ROOT, root / ROOT)
    whole = {"from": ROOT, "until": 160}
    write(root, {"whole": whole})
    assert train(root, "whole", Interruption()) == 0
    points = read_recorded(root / "metrics/whole", [TIMES])
    curve = best.curve(objective.parse("self_play/agent"), "sampled", points, 0)
    assert [*curve] == [40, 80, 120, 160]
    direction = "" if curve[80] <= curve[40] else "min "  # of whichever the second evaluation is not better
    changes = {"evaluation": {"interval": 40, "objective": f"{direction}self_play/agent"}}

    graph = write(root, {"whole": whole, "s00": {**whole, "patience": 1}}, changes)
    assert graph["s00"].until == 160
    assert train(root, "s00", StopAfter(60)) != 0
    assert not (root / "checkpoints/s00").exists()
    assert train(root, "s00", Interruption()) == 0
    assert steps_in(root / "checkpoints/s00", "manifest.json") == [40, 80]
    record = json.loads((root / "metrics/s00/train.json").read_text(encoding="utf-8"))
    assert (record["step"], record["stopped_at"], record["patience"]) == (80, 80, 1)
    ends = [open_checkpoint(root / "checkpoints" / name / step_name(80)).fingerprint for name in ("whole", "s00")]
    assert ends[0] == ends[1]
    evaluate(root, "s00")
    assert json.loads((root / "metrics/s00/evaluation.json").read_text(encoding="utf-8"))["step"] == 80
    run = next(run for run in tracking.list_runs() if run.segment == "s00")
    assert (run.tags["matwm.stopped_at"], run.until, run.state) == ("80", 80, "FINISHED")

    graph = write(root, {"s00": {**whole, "patience": 1}}, changes)
    assert (graph["s00"].until, graph["s00"].saves) == (80, (40, 80))
    assert graph["s00"].planned is not None and graph["s00"].planned.until == 160
    with pytest.raises(ConfigError) as refused:
        write(root, {"s00": {**whole, "patience": 1}, "s01": {"from": f"checkpoints/s00/{step_name(120)}", "until": 200}}, changes)
    assert refused.value.problems == [
        f"params.yaml: segments.s01.from is 'checkpoints/s00/{step_name(120)}', but segments.s00 was stopped early at step 80 "
        "(patience is 1): start from a step up to that, or add keep: [120] to it"
    ]

    (root / "metrics/s00/train.json").unlink()  # as DVC does before it calls the stage
    write(root, {"s00": {**whole, "patience": 1}}, changes)
    assert train(root, "s00", Interruption()) == 0
    assert json.loads((root / "metrics/s00/train.json").read_text(encoding="utf-8")) == record
    assert write(root, {"s00": {**whole, "patience": 4}}, changes)["s00"].until == 160
    assert train(root, "s00", Interruption()) == 0
    assert steps_in(root / "checkpoints/s00", "manifest.json") == [40, 80, 120, 160]
    ends = [open_checkpoint(root / "checkpoints" / name / step_name(160)).fingerprint for name in ("whole", "s00")]
    assert ends[0] == ends[1]


def test_a_trial_that_has_stopped_early_is_put_back(root: Path) -> None:
    shutil.copytree(SOURCE / ROOT, root / ROOT)
    sweep = {"from": ROOT, "until": 160, "seeds": [0], "patience": 1}
    segments = {"s00": {"from": ROOT, "until": 40}}
    changes = {"evaluation": {"interval": 40, "objective": "self_play/agent"}}
    sweep["override"] = {"world_model": {"learning_rate": 1.0e-12}, "actor_critic": {"learning_rate": 1.0e-12}}  # nothing is learnt
    write(root, segments, changes, sweeps={"x": sweep})
    assert run_trial(root, "x/seed=0", Interruption()) == 0
    step = json.loads((root / "metrics/x/seed=0/train.json").read_text(encoding="utf-8"))["stopped_at"]
    assert step in (80, 120)
    for folder in ("checkpoints", "metrics", "plots"):  # as DVC does before it calls the stage
        shutil.rmtree(root / folder / "x")
    graph = resolve_all(read_params(root / "params.yaml"), root)
    trial = graph["x/seed=0"]
    assert trial.until == 160
    assert finished_trials.restore(Job(root, trial, open_start(root, trial, graph), None))
    assert steps_in(root / "checkpoints/x/seed=0", "manifest.json")[-1] == step
