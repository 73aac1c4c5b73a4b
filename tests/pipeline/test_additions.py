"""What is added in one place is found everywhere: a family of environments and a loss from outside go through the stages."""

import csv
import json
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from matplotlib.figure import Figure
from PIL import Image

from matwm import config, scenarios
from matwm.config import ConfigError, LossWeights, WorldModelConfig, field
from matwm.params_yaml import parse_config, read_params
from matwm.world_model import losses
from matwm.world_model.losses import ForwardPass, Term
from pipeline import cli, plot
from pipeline import project as places
from pipeline.evaluate import evaluate
from pipeline.params.segments import resolve_all
from pipeline.process import Interruption
from pipeline.train import train
from tests.pipeline.projects import SOURCE, tiny_params

SEGMENTS = {"s00": {"from": "checkpoints/root", "until": 40}}
ENV: dict[str, Any] = {"family": "beacon", "name": "beacon", "options": {}}


def hidden_size(done: ForwardPass) -> Term:
    """A loss: how large hidden states are."""
    return done.hidden.square().mean(-1), done.windows.is_valid


@pytest.fixture
def additions(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The family, and the loss with its weight, as the lines in the three tables would add them."""
    monkeypatch.setitem(scenarios.FAMILIES, "beacon", "tests.pipeline.beacon")
    monkeypatch.setitem(losses.TERMS, "hidden_size", hidden_size)
    weight = field("weight of the hidden states' size", branch="free", ge=0, default=0.25)
    weight.annotation = float
    LossWeights.model_fields["hidden_size"] = weight
    models = (LossWeights, WorldModelConfig, config.Config)
    for model in models:
        model.model_rebuild(force=True)
    yield
    del LossWeights.model_fields["hidden_size"]
    for model in models:
        model.model_rebuild(force=True)


@pytest.fixture
def trained(root: Path, additions: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that has gone through the stages train and evaluate."""
    shutil.copytree(SOURCE / "checkpoints/root", root / "checkpoints/root")
    (root / "params.yaml").write_text(yaml.safe_dump(tiny_params({"env": ENV}, SEGMENTS)), encoding="utf-8")
    monkeypatch.chdir(root)
    assert train(root, "s00", Interruption()) == 0
    evaluate(root, "s00")
    return root


def test_a_family_and_a_loss_from_outside_are_in_figures_and_summaries(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = places.metrics_folder(trained, "s00")
    with (metrics / "training.csv").open(encoding="utf-8") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    weights = parse_config(tiny_params({"env": ENV})).world_model.loss_weights.model_dump()
    assert weights["hidden_size"] == 0.25
    points = [row for row in rows if "world_model/total" in row]
    assert points
    for row in points:
        added = sum(weight * row.get(f"world_model/{name}", 0.0) for name, weight in weights.items())
        assert row["world_model/hidden_size"] > 0
        assert row["world_model/total"] == pytest.approx(added, rel=1e-4), "the loss is part of what is minimised"

    summary = json.loads((metrics / "train.json").read_text(encoding="utf-8"))
    assert summary["world_model"]["hidden_size"] == points[-1]["world_model/hidden_size"]
    assert set(summary["return_of_20_episodes"]) == {"walker_0", "walker_1"}
    assert summary["length_of_20_episodes"] == 6
    facts = json.loads((metrics / "run.json").read_text(encoding="utf-8"))
    assert facts["libraries"]["pytest"] == version("pytest"), "what the family's numbers depend on"

    judged = json.loads((metrics / "evaluation.json").read_text(encoding="utf-8"))
    assert set(judged["references"]) == {"random", "approach"}
    drawn: dict[str, Figure] = plot.draw(metrics, [resolve_all(read_params(trained / "params.yaml"), trained)["s00"]])
    assert "hidden size" in [axes.get_title(loc="left") for axes in drawn["losses"].axes]
    assert set(drawn) == {"returns", "losses", "rewards", "teammates", "evaluation"}
    assert [axes.get_title(loc="left") for axes in drawn["evaluation"].axes] == ["walker, mean of 2 agents"]


def test_a_figure_is_one_function_and_one_line(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw_lengths(numbers: plot.Numbers) -> Figure:
        figure = Figure(figsize=(2, 1), dpi=100)
        figure.subplots().plot(*numbers.episodes["length"])
        return figure

    monkeypatch.setitem(plot.FIGURES, "lengths", draw_lengths)
    assert plot.main() == 0
    with Image.open(trained / "plots/lineage/s00/lengths.png") as picture:
        assert picture.size == (300, 150)


def test_options_of_a_family_from_outside_are_checked_and_completed(additions: None, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"goal": "lihgt", "lenght": 7, "max_cycles": 0, "length": "5"}
    with pytest.raises(ConfigError) as caught:
        parse_config(tiny_params({"env": {**ENV, "options": options}}))
    assert [problem.partition("env.options.")[2] for problem in caught.value.problems] == [
        "goal is 'lihgt', expected one of light, dark (whether to be at the beacon or away from it)",
        "lenght is unknown, did you mean length? beacon has: max_cycles, length, goal",
        "max_cycles is 0, expected a whole number from 1 to 100 (environment steps an episode)",
        "length is '5', expected a whole number (cells of the line)",
    ]
    complete = parse_config(tiny_params({"env": {**ENV, "options": {"length": 9}}})).env
    assert list(complete.options.items()) == [("max_cycles", 6), ("length", 9), ("goal", "light")]
    assert complete.num_agents == 2
    assert cli.main(["envs", "--json", "beacon"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["meaning"], listed["installed"]) == ("walkers on a line", True)
    assert [(one["name"], one["num_agents"], one["max_steps"]) for one in listed["scenarios"]] == [("beacon", 2, 6)]


def test_what_was_added_is_gone_afterwards() -> None:
    with pytest.raises(ConfigError, match="env.family is 'beacon', but should be 'mpe', 'butterfly'"):
        parse_config(tiny_params({"env": ENV}))
    assert "hidden_size" not in parse_config(tiny_params()).world_model.loss_weights.model_dump()
