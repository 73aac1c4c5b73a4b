"""A report from metrics written by hand: every number is worked out beside it."""

import csv
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from matwm.params_yaml import preset_text
from matwm.scenarios.objective import parse
from pipeline.evaluate import COLUMNS
from pipeline.project import ProjectError
from pipeline.report import statistics, tables
from pipeline.report.numbers import Training, gathered
from tests.pipeline.lineages import Matwm
from tests.pipeline.projects import Project

SPREAD = {"random": -40.0, "still": -60.0, "nearest_landmark": -25.0, "assignment": -20.0}
TAG = {"random_v_random": 2.0, "chase_v_random": 22.0, "chase_v_flee": 90.0}


Scores = Mapping[tuple[str, str], float]


def write(project: Path, name: str, scores: Scores, references: Mapping[str, float], role: str, env: str, shift: float = 0.0) -> None:
    """Write what a training leaves: an evaluation, ten training episodes and two judged steps."""
    folder = project / "metrics" / name
    folder.mkdir(parents=True)
    facts = {"run_id": None, "segment": name, "key": "k" + name, "parent": {"step": 0}, "tags": {"matwm.env": env}}
    (folder / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    rows = [[100, "sampled", matchup, who, 1, score, *[0] * 6, 25] for (matchup, who), score in scores.items()]
    rows += [[100, "reference", matchup, role, 0, mean, *[0] * 6, 25] for matchup, mean in references.items()]
    with (folder / "evaluation.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])
    episodes = [[10 * number, 10, number + shift, number + shift + 2] for number in range(1, 11)]
    with (folder / "episodes.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["step", "length", f"return/{role}_0", f"return/{role}_1"], *episodes])
    (folder / "train.json").write_text(json.dumps({"step": 100}), encoding="utf-8")
    points = [[step, step, f"evaluation/sampled/self_play/{role}_{agent}", step + shift] for step in (50, 100) for agent in (0, 1)]
    with (folder / "evaluated.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["step", "timestamp_ms", "key", "value"], *points])


@pytest.fixture
def project(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a sweep of two settings, five seeds each, of which nobody keeps a checkpoint."""
    sweep = {"from": "checkpoints/root", "until": 100, "grid": {"actor_critic.entropy": [0.1, 0.2]}, "seeds": [0, 1, 2, 3, 4]}
    params = yaml.safe_load(preset_text("cpu-small"))
    (root / "params.yaml").write_text(yaml.safe_dump({**params, "sweeps": {"x": sweep}}), encoding="utf-8")
    for seed, score in enumerate([-38.0, -30.0, -28.0, -26.0, -20.0]):
        for entropy in (0.1, 0.2):
            own = {("self_play", "agent"): score - 10 * (entropy == 0.2)}
            write(root, f"x/entropy={entropy}-seed={seed}", own, SPREAD, "agent", "simple_spread_v3", shift=float(seed))
    monkeypatch.chdir(root)
    return root


def test_scores_are_summed_up_over_seeds_and_normalised_by_random_and_the_best_script(project: Path) -> None:
    settings = gathered(project, [f"x/entropy=0.1-seed={seed}" for seed in range(5)])
    assert {setting: len(group) for setting, group in settings.items()} == {"entropy=0.1": 5}
    (row,) = tables.rows(settings)
    found = dict(zip(tables.COLUMNS, row, strict=True))
    low, high = map(float, found.pop("95 %").split(" to "))
    assert -38 <= low < -28 < high <= -20
    assert found.pop("its 95 %") == f"{(low + 40) / 20:.2f} to {(high + 40) / 20:.2f}"
    assert found == {
        "scenario": "simple_spread_v3", "objective": "self_play/agent", "setting": "entropy=0.1", "seeds": "5", "median": "-28.00",
        "quartiles": "-30.00 to -26.00", "IQM": "-28.00", "random": "-40.00", "script": "-20.00", "normalised": "0.60",
    }  # fmt: skip


def test_a_side_of_a_game_is_held_against_scripts_in_its_own_place(tmp_path: Path) -> None:
    write(tmp_path, "s00", {("learned_v_random", "adversary"): 12.0}, TAG, "adversary", "simple_tag_v3")
    training = Training("s00", tmp_path / "metrics/s00", "s00")
    objective = parse("learned_v_random/adversary")
    reference = training.reference(objective)
    assert (reference.random, dict(reference.scripts)) == (2.0, {"chase": 22.0})
    assert reference.normalised(objective, 12.0) == 0.5
    assert training.score(parse("random_v_learned/agent")) is None
    assert reference.normalised(parse("min learned_v_random/adversary"), 12.0) is None, "no script is better than random at that"


def test_one_seed_has_no_interval_and_no_script_no_normalised_score(tmp_path: Path) -> None:
    write(tmp_path, "s00", {("self_play", "agent"): 12.0}, {"random": 2.0}, "agent", "simple_line_v1")
    (row,) = tables.rows(gathered(tmp_path, ["s00"]))
    assert row[3:] == ("1", "12.00", "12.00 to 12.00", "12.00", "-", "2.00", "-", "-", "-")


def test_a_setting_is_summed_up_over_scenarios_and_two_sweeps_of_one_are_told_apart(project: Path) -> None:
    for seed in (0, 1):
        write(project, f"y/entropy=0.1-seed={seed}", {("learned_v_random", "adversary"): 12.0}, TAG, "adversary", "simple_tag_v3")
        write(project, f"z/entropy=0.1-seed={seed}", {("learned_v_random", "adversary"): 22.0}, TAG, "adversary", "simple_tag_v3")
    of_x, of_y, of_z = ([f"{sweep}/entropy=0.1-seed={seed}" for seed in (0, 1)] for sweep in "xyz")
    rows = tables.rows(gathered(project, [*of_x, *of_y]))  # normalised 0.1 and 0.5; 0.5 and 0.5
    assert [(row[0], row[2], row[3], row[10]) for row in rows] == [
        ("simple_spread_v3", "entropy=0.1", "2", "0.30"),
        ("simple_tag_v3", "entropy=0.1", "2", "0.50"),
        (tables.ALL, "entropy=0.1", "2", "0.50"),
    ]
    assert rows[-1][1] == "2 objectives"
    assert [row[2] for row in tables.rows(gathered(project, [*of_y, *of_z]))][:2] == ["y/entropy=0.1", "z/entropy=0.1"]


def test_the_interquartile_mean_leaves_out_a_quarter_at_either_end() -> None:
    scores = np.array([[9.0, 1.0, 2.0, 3.0, 100.0, -50.0, 4.0, 5.0], [0.0] * 8])
    assert statistics.interquartile_mean(scores).tolist() == [3.5, 0.0]
    assert statistics.interquartile_mean(np.array([[1.0, 2.0, 30.0]])).tolist() == [11.0], "of three nobody is left out"


def test_an_interval_is_the_same_each_time_and_holds_what_it_says() -> None:
    scores = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    found = statistics.interval([scores], statistics.median)
    assert found == statistics.interval([scores], statistics.median)
    assert found == (0.0, 4.0)
    assert statistics.interval([np.array([5.0, 5.0, 5.0])], statistics.median) == (5.0, 5.0)
    assert statistics.interval([np.array([5.0])], statistics.median) is None
    low, high = statistics.interval([np.zeros(4), np.ones(4)], statistics.interquartile_mean) or (0, 0)
    assert (low, high) == (0.5, 0.5), "each scenario is drawn from by itself"


def test_a_band_is_the_quartiles_over_seeds_of_the_means_of_stretches() -> None:
    curves = [(np.array([5.0, 10.0, 15.0, 20.0]), np.array([0.0, 2.0, 4.0, 6.0]) + seed) for seed in (0.0, 4.0, 8.0)]
    steps, quartiles = statistics.band(curves)
    assert steps.tolist() == [10.0, 20.0]
    assert quartiles.tolist() == [[3.0, 7.0], [5.0, 9.0], [7.0, 11.0]]
    steps, quartiles = statistics.aligned([curves[0], (np.array([10.0, 20.0]), np.array([4.0, 10.0]))])
    assert (steps.tolist(), quartiles[1].tolist()) == ([10.0, 20.0], [3.0, 8.0])


def test_the_report_is_written_and_the_page_needs_no_other_file(project: Path, matwm_in: Matwm, capsys: pytest.CaptureFixture[str]) -> None:
    gif = project / "plots/x/entropy=0.1-seed=4/episode.gif"
    gif.parent.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(gif)
    code, output, errors = matwm_in(Project(project), "report", "x", "--html")
    assert (code, errors) == (0, "")
    folder = project / "reports/x"
    assert {path.name for path in folder.iterdir()} == {
        *(f"{name}.{kind}" for name in ("training_returns", "evaluations", "scores") for kind in ("png", "svg")),
        *(f"scores.{kind}" for kind in ("md", "csv", "tex")), "report.html",
    }  # fmt: skip
    assert output == f"{(folder / 'scores.md').read_text(encoding='utf-8')}\nwritten to reports/x\n"
    rows = list(csv.DictReader((folder / "scores.csv").open(encoding="utf-8")))
    assert [(row["setting"], row["IQM"]) for row in rows] == [("entropy=0.1", "-28.00"), ("entropy=0.2", "-38.00")]
    assert r"self\_play/agent & entropy=0.1 & 5 & -28.00" in (folder / "scores.tex").read_text(encoding="utf-8")
    for path in folder.glob("*.svg"):
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "entropy=0.1-seed=4" in page.split("An episode of ")[1][:40], "that of the best"
    assert "<th>actor_critic.entropy</th>" in page
    assert "<th>seed</th>" in page
    assert "from the root" in page
    before = {path: path.read_bytes() for path in folder.iterdir()}
    matwm_in(Project(project), "report", "x", "--html")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_what_is_not_there_is_one_sentence(project: Path, matwm_in: Matwm) -> None:
    assert matwm_in(Project(project), "report", "nobody")[2].startswith("no run begins with 'nobody'; there are ")
    for folder in (project / "metrics/x").glob("entropy=0.1*"):
        (folder / "run.json").unlink()
    code, _, errors = matwm_in(Project(project), "report", "x")
    assert (code, errors) == (0, "5 of 10 trials of sweep x are not trained yet, and are left out\n")


@pytest.mark.parametrize("text", ["mode,matchup,role,learned,mean\nsampled,self_play,agent,1,much\n", "<<<<<<< HEAD\nmode,matchup\n"])
def test_a_damaged_evaluation_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "evaluation.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ProjectError, match=r"evaluation\.csv is empty or damaged"):
        _ = Training("s00", tmp_path, "s00").rows
