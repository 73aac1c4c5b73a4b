"""What notebooks get of a project, and that the tour in examples/ runs."""

import ast
import csv
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient

from matwm.policy import load_policies
from pipeline import notebook, runs
from pipeline.metrics.recorded import read_recorded
from pipeline.project import ProjectError
from tests.pipeline.lineages import Matwm
from tests.pipeline.projects import SOURCE, Project

TOUR = SOURCE / "examples/tour.ipynb"


def numbers(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def test_runs_are_those_of_the_command(made: Project) -> None:
    frame = notebook.runs(made.path).set_index("segment")
    assert list(frame.index) == ["s03", "s02", "s01", "s00"]
    assert frame.status.to_dict() == {"s00": "FINISHED", "s01": "FINISHED", "s02": "FINISHED", "s03": "KILLED"}
    assert (frame.loc["s02", "parent_run_id"], frame.loc["s02", "parent_step"]) == (frame.loc["s00", "run_id"], 20)
    assert frame.loc["s02", "changed"] == {"actor_critic.learning_rate": "0.001 -> 0.0001"}
    assert (frame.loc["s01", "best_step"], frame.best.notna().sum()) == (60, 1)


def test_curves_are_those_of_the_checkpoint(made: Project) -> None:
    frame = notebook.curves("s01", made.path)
    rows = numbers(made.path / "metrics/s01/training.csv")
    assert rows
    for row in rows:
        step = row.pop("step")
        assert frame.loc[step, list(row)].to_dict() == row
    for row in numbers(made.path / "metrics/s01/episodes.csv"):
        assert frame.loc[row["step"], "episode/return/agent_0"] == row["return/agent_0"]
    assert notebook.curves("s01@60", made.path).equals(frame)
    assert frame[frame.index <= 20].dropna(axis="columns", how="all").equals(notebook.curves("s00@20", made.path))


def test_evaluations_are_those_of_pipeline_and_command(copied: Project, matwm_in: Matwm, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = notebook.evaluations("s01", copied.path)
    recorded = {point.key: point.value for point in read_recorded(copied.path / "metrics/s01") if point.key.startswith("evaluation/")}
    assert len(frame) == len(recorded) / 2 and set(frame.by) == {"pipeline"}
    for row in frame.itertuples():
        key = f"evaluation/{row.mode}/{row.matchup}/{row.who}"
        assert (row.step, row.mean, row.stderr) == (60, recorded[key], recorded[f"{key}/stderr"])
    assert matwm_in(copied, "eval", "s01@60", "--episodes", "3", "--seed", "7", "--against", "random")[0] == 0
    asked = notebook.evaluations("s01", copied.path).query("by == 'matwm eval'")
    assert asked[["matchup", "who", "episodes", "seed"]].to_numpy().tolist() == [
        ["learned_v_random", "adversary", 3, 7],
        ["random_v_learned", "agent", 3, 7],
    ]
    assert asked[["mean", "stderr"]].notna().all(axis=None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copied.path / 'another.db'}")
    assert notebook.evaluations("s01", copied.path)[["who", "mean"]].equals(frame[["who", "mean"]]), "git has those of the pipeline"
    with pytest.raises(ProjectError, match="names a step"):
        notebook.evaluations("s01@60", copied.path)


def test_policies_are_those_of_the_checkpoint(made: Project) -> None:
    policies = notebook.load_policies("s00@20", made.path, seed=3)
    seen = {agent: np.ones((2, size), np.float32) for agent, size in zip(policies.agents, policies.spec.obs_sizes, strict=True)}
    direct = load_policies(made.path / "checkpoints/s00/step_000000020", seed=3).act(seen)
    for agent, logits in policies.act(seen).logits.items():
        assert np.array_equal(logits, direct.logits[agent])


def test_nothing_there_are_empty_frames(root: Path) -> None:
    assert runs.configured_uri()
    frame = notebook.runs(root)
    assert isinstance(frame, pd.DataFrame) and frame.empty and "segment" in frame


def test_the_tour_runs(copied: Project) -> None:
    tour = nbformat.read(TOUR, as_version=4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in tour.cells), "clear the outputs"
    folder = copied.path / "examples"
    folder.mkdir()
    shutil.copy(TOUR, folder)
    NotebookClient(tour, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    *_, curves, evaluations, episode = [cell.outputs[-1] for cell in tour.cells if cell.cell_type == "code"]
    assert "image/png" in curves.data
    assert "learned_v_random" in evaluations.data["text/plain"]
    assert set(ast.literal_eval(episode.data["text/plain"])) == {"adversary_0", "adversary_1", "agent_0"}
