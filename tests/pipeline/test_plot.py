"""The plot stage: which lineages there are, what is read, and that the same numbers make the same files."""

import csv
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline import plot
from pipeline.drawing import figures, scoreboard
from pipeline.drawing.scoreboard import Score
from pipeline.params.segments import resolve_all
from pipeline.project import ProjectError
from tests.pipeline.projects import tiny_params

ROOT = "checkpoints/root"
BRANCHES = {
    "s00": {"from": ROOT, "until": 80},
    "s01": {"from": "checkpoints/s00/step_000000080", "until": 120},
    "s02": {"from": "checkpoints/s00/step_000000040", "until": 120},
}


def write(project: Path, segments: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> None:
    (project / "params.yaml").write_text(yaml.safe_dump(tiny_params(changes, segments)), encoding="utf-8")


def write_metrics(project: Path, name: str, agents: list[str], *, has_mates: bool = True) -> None:
    """Write what train and evaluate leave, with curves of easy numbers."""
    folder = project / "metrics" / name
    folder.mkdir(parents=True)
    columns = ["step", *(f"agents/{agent}/reward_{kind}" for agent in agents for kind in ("imagined", "real"))]
    columns += ["world_model/reconstruction", "world_model/total"]
    columns += ["world_model/teammate_accuracy", "world_model/teammate_majority"] if has_mates else []
    rows = [[step, *(np.cos(step + column) + 2 for column in range(len(columns) - 1))] for step in range(20, 121, 10)]
    table(folder / "training.csv", columns, rows)
    episodes = [[step, 12, *(float(step % 7 + number) for number in range(len(agents)))] for step in range(12, 121, 12)]
    table(folder / "episodes.csv", ["step", "length", *(f"return/{agent}" for agent in agents)], episodes)


def table(file: Path, columns: list[str], rows: list[list[Any]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(rows)


def write_scores(project: Path, name: str, rows: list[list[Any]]) -> None:
    columns = ["step", "mode", "matchup", "role", "learned", "mean", "median", "std", "stderr", "min", "max", "episodes"]
    table(project / "metrics" / name / "evaluation.csv", columns, [[80, *row, 0, 0, 1, 0.5, -9, 9, 4] for row in rows])


def test_each_end_of_the_graph_has_its_way_from_the_root(root: Path) -> None:
    found = plot.paths(resolve_all(tiny_params(segments=BRANCHES), root))
    assert [[segment.name for segment in path] for path in found] == [["s00", "s01"], ["s00", "s02"]]
    only_a_branch = {name: BRANCHES[name] for name in ("s00", "s02")}
    found = plot.paths(resolve_all(tiny_params(segments=only_a_branch), root))
    # What s00 trained after the branch is on no way to s02.
    assert [[segment.name for segment in path] for path in found] == [["s00"], ["s00", "s02"]]


def test_curves_are_read_without_their_gaps(tmp_path: Path) -> None:
    (tmp_path / "curves.csv").write_text("step,a,b,c\n10,1.5,,\n20,,2,\n30,3,4,\n", encoding="utf-8")
    curves = plot.read_curves(tmp_path / "curves.csv")
    assert {name: (steps.tolist(), values.tolist()) for name, (steps, values) in curves.items()} == {
        "a": ([10, 30], [1.5, 3]),
        "b": ([20, 30], [2, 4]),
    }
    (tmp_path / "empty.csv").write_text("step,a\n", encoding="utf-8")
    assert plot.read_curves(tmp_path / "empty.csv") == {}


@pytest.mark.parametrize("name", ["training", "episodes", "evaluation"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("80", "eighty"),
        lambda text: text.replace("\n", "\n<<<<<<< HEAD\n", 1),
        lambda text: "<<<<<<< HEAD\n" + text,
        lambda text: text.replace("step", "steps"),
        lambda text: text + "\udcff",
    ],
    ids=["text", "conflict", "conflict in the head", "no step", "no UTF-8"],
)
def test_a_damaged_table_is_one_sentence(tmp_path: Path, name: str, damage: Callable[[str], str]) -> None:
    write_metrics(tmp_path, "s00", ["agent_0"])
    write_scores(tmp_path, "s00", [["greedy", "self_play", "agent", 1]])
    file = tmp_path / "metrics/s00" / f"{name}.csv"
    read = plot.read_scores if name == "evaluation" else plot.read_curves
    read(file)
    text = damage(file.read_text(encoding="utf-8").replace("84", "80"))
    file.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ProjectError) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file} is empty or damaged (")
    assert f'"git checkout HEAD -- {file}"' in str(caught.value)


def test_an_empty_evaluation_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "evaluation.csv").touch()
    with pytest.raises(ProjectError, match="is empty or damaged .*evaluate@SEGMENT"):
        plot.read_scores(tmp_path / "evaluation.csv")


def test_the_mean_of_the_last_values_begins_with_the_first_full_window() -> None:
    steps, values = figures._smooth(np.arange(5.0), np.array([1.0, 2.0, 6.0, 4.0, 8.0]), 3)
    assert steps.tolist() == [2, 3, 4]
    assert values.tolist() == [3, 4, 6]
    few = figures._smooth(np.arange(2.0), np.ones(2), 3)
    assert few[1].tolist() == [1, 1]


def test_agents_that_earn_the_same_are_one_line() -> None:
    steps = np.arange(2.0)
    curves = {"a_0": (steps, np.array([1.0, 2])), "a_1": (steps, np.array([1.0, 2])), "a_2": (steps, np.array([1.0, 3]))}
    assert figures._distinct(["a_0", "a_1", "a_2"], curves) == [("a_0 to 1 (all the same)", "a_0"), ("a_2", "a_2")]


def test_a_learner_stands_beside_the_scripts_that_meet_the_same_opponent() -> None:
    def reference(chaser: str, prey: str, role: str, mean: float) -> Score:
        return Score("reference", (chaser, prey), role, is_learned=False, mean=mean, stderr=0.0)

    scores = [
        Score("greedy", ("learned", "flee"), "adversary", is_learned=True, mean=9.0, stderr=1.0),
        reference("chase", "flee", "adversary", 1.0),
        reference("chase", "flee", "agent", 2.0),
        reference("chase", "still", "adversary", 3.0),
        reference("random", "flee", "adversary", 4.0),
    ]
    found = scoreboard._in_its_place("adversary", ("learned", "flee"), scores)
    assert [(tactic, score.mean) for tactic, score in found] == [("chase", 1.0), ("random", 4.0)]
    assert list(scoreboard._in_its_place("adversary", ("learned", "learned"), scores)) == []


def test_self_play_of_one_side_stands_beside_every_script(tmp_path: Path) -> None:
    (tmp_path / "metrics/s").mkdir(parents=True)
    write_scores(tmp_path, "s", [["greedy", "self_play", "agent", 1], ["reference", "random", "agent", 0]])
    step, episodes, scores = plot.read_scores(tmp_path / "metrics/s/evaluation.csv")
    assert (step, episodes) == (80, 4)
    assert scores[0].tactics == ("learned",)
    assert [tactic for tactic, _ in scoreboard._in_its_place("agent", ("learned",), scores)] == ["random"]


def test_returns_are_said_with_the_limit_of_their_episodes() -> None:
    assert figures.Lineage("pair, s00", [], {}, max_steps=1000).limit == ", truncated at 1,000 steps"
    assert figures.Lineage("pair, s00", [], {}).limit == ""


def test_every_lineage_is_drawn_and_always_the_same(root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    write(root, BRANCHES)
    agents = ["adversary_0", "adversary_1", "agent_0"]
    for name in ("s01", "s02"):
        write_metrics(root, name, agents)
    learned = [["sampled", "self_play", "adversary", 1], ["sampled", "learned_v_flee", "adversary", 1]]
    write_scores(root, "s02", [*learned, ["reference", "chase_v_flee", "adversary", 0]])
    (root / "metrics/s02/run.json").write_text('{"resumed_at": null}', encoding="utf-8")
    stale = root / "plots/lineage/s00"
    stale.mkdir(parents=True)
    monkeypatch.chdir(root)
    with caplog.at_level(logging.WARNING):
        assert plot.main() == 0
    assert "nothing is logged to MLflow" in caplog.text  # these segments were written by hand
    assert not stale.exists()
    drawn = {path.relative_to(root / "plots/lineage").as_posix(): path.read_bytes() for path in root.glob("plots/lineage/*/*")}
    curves = ["losses.png", "returns.png", "rewards.png", "teammates.png"]
    assert sorted(drawn) == [*(f"s01/{name}" for name in curves), *(f"s02/{name}" for name in ["evaluation.png", *curves])]
    assert drawn["s01/returns.png"] != drawn["s02/returns.png"]  # the resume point
    with Image.open(root / "plots/lineage/s01/returns.png") as picture:
        assert picture.width == round(figures.WIDTH * figures.DPI)
        assert not {"Software", "Creation Time", "date:create"} & set(picture.info)
    monkeypatch.setattr(plot, "paths", lambda graph: [[graph["s00"], graph["s02"]]])
    monkeypatch.setenv("MPLCONFIGDIR", str(root))
    plot.plot(root)
    again = {path.relative_to(root / "plots/lineage").as_posix(): path.read_bytes() for path in root.glob("plots/lineage/*/*")}
    assert again == {name: data for name, data in drawn.items() if name.startswith("s02")}


def test_an_agent_on_its_own_has_no_teammates_to_plot(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, {"s00": BRANCHES["s00"]}, {"env": {"name": "simple_v3", "options": {}}})
    write_metrics(root, "s00", ["agent_0"], has_mates=False)
    monkeypatch.chdir(root)
    assert plot.main() == 0
    assert sorted(path.name for path in (root / "plots/lineage/s00").iterdir()) == ["losses.png", "returns.png", "rewards.png"]


def test_an_environment_beside_params_is_found_from_a_folder_below(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"family": "pettingzoo", "name": "drawn_from_below:Plain", "options": {}}
    write(root, {"s00": BRANCHES["s00"]}, {"env": own})
    write_metrics(root, "s00", ["left", "right"])
    (root / "drawn_from_below.py").write_text("from tests.matwm.envs.mistakes import Plain\n", encoding="utf-8")
    (root / "below").mkdir()
    monkeypatch.chdir(root / "below")
    monkeypatch.setattr("sys.path", [*sys.path])
    assert plot.main() == 0
    assert (root / "plots/lineage/s00/returns.png").is_file()


def test_nothing_trained_is_one_sentence(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write(root, BRANCHES)
    monkeypatch.chdir(root)
    assert plot.main() == 1
    assert capsys.readouterr().err == 'metrics/ has no trained segment of params.yaml to plot: run "matwm repro"\n'
    assert not (root / "plots").exists()
