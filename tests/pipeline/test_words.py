"""Where agents tell each other of goals, evaluations say what was told, and the plot shows it; nowhere else, and never in a checkpoint."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from matwm import evaluation
from matwm.policy import load_networks
from matwm.scenarios.objective import parse
from matwm.store import LocalStore
from pipeline import evaluate, plot, runs, tracking
from pipeline.drawing import figures
from pipeline.drawing import words as speaking
from pipeline.metrics import best, words
from pipeline.metrics.recorded import read_recorded
from pipeline.params.segments import resolve_all
from pipeline.process import Interruption
from pipeline.train import train
from tests.pipeline.projects import SOURCE, tiny_params

SEGMENTS = {
    "s00": {"from": "checkpoints/root", "until": 60},
    "s01": {"from": "checkpoints/s00/step_000000040", "until": 80},
}
JUDGED = {"episodes": 6, "interval": 20, "modes": ["sampled"], "gif": False}


def words_of(keys: set[str]) -> set[str]:
    return {key for key in keys if f"/{words.WORDS}/" in key}


def test_words_are_judged_over_a_lineage_and_drawn(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(SOURCE / "checkpoints/root", root / "checkpoints/root")
    env = {"name": "simple_speaker_listener_v4", "options": {"max_cycles": 9}}
    params = tiny_params({"env": env, "evaluation": JUDGED, "run": {"save_interval": 20}}, SEGMENTS)
    params["retention"]["keep_every"] = 20
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    monkeypatch.chdir(root)
    for name in SEGMENTS:
        assert train(root, name, Interruption()) == 0
        assert evaluate.main([name]) == 0

    checkpoint = LocalStore(root / "checkpoints/s01").open(80)
    assert not [key for key in checkpoint.history().metrics if "words" in key or key.startswith("evaluation")]
    networks = load_networks(checkpoint)
    (result,) = evaluation.evaluate(
        networks.world_model, networks.actors, networks.env,
        episodes=6, first_seed=10000, modes=["sampled"], acting_context=networks.acting_context,
    )  # fmt: skip
    (one,) = result.communication
    assert one.counts.sum() == 6 * 9

    judged = json.loads((root / "metrics/s01/evaluation.json").read_text(encoding="utf-8"))
    assert judged["words"]["sampled"]["self_play"] == words.for_people([one], 4)
    assert judged["words"]["references"]["say_and_go"]["speaker_0"]["information_share"] == 1.0
    assert judged["words"]["references"]["wait_between"]["speaker_0"]["information"] == 0.0
    (found,) = best.of_record(judged, [parse("self_play/listener")])
    assert (found.step, found.mode, found.mean) == (80, "sampled", judged["sampled"]["self_play"]["listener_0"]["mean"])

    told = {point.key: point.value for point in words.points(80, "sampled", "self_play", result.communication)}
    rows = {point.key: point.value for point in read_recorded(root / "metrics/s01")}
    assert {key: rows[key] for key in words_of(set(rows))} == told
    run_id = json.loads((root / "metrics/s01/run.json").read_text(encoding="utf-8"))["run_id"]
    logged = runs.client(runs.configured_uri()).get_run(run_id).data.metrics
    assert {key: logged[key] for key in words_of(set(logged))} == pytest.approx(told)
    steps = {point.step for point in tracking.metric_history(run_id, keys=["evaluation/sampled/self_play/words/speaker_0/information"])}
    assert steps == {20, 40, 60, 80}, "the first two are those of the run that it began from"

    assert plot.main() == 0
    assert (root / "plots/lineage/s01/words.png").is_file()
    paths = {path[-1].name: path for path in plot.paths(resolve_all(params, root))}
    (speaker,) = plot.read_words(root / "metrics", paths["s01"])
    assert [moment.step for moment in speaker.moments] == [20, 40, 60, 80]
    (own,) = plot.read_words(root / "metrics", paths["s00"])
    assert [moment.step for moment in own.moments] == [20, 40, 60]
    assert own.moments[1].information == speaker.moments[1].information
    last = speaker.moments[-1]
    assert np.array_equal(last.shares, one.shares, equal_nan=True)
    assert (last.reached, last.followed, last.held) == (one.reached, one.swapped_followed, one.swapped_reached)

    shutil.rmtree(root / "metrics/s00")  # A lineage whose beginning was trained elsewhere.
    (alone,) = plot.read_words(root / "metrics", paths["s01"])
    assert [moment.step for moment in alone.moments][-2:] == [60, 80]


def test_where_nobody_speaks_nothing_is_said_of_words(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(SOURCE / "checkpoints/root", root / "checkpoints/root")
    params = tiny_params({"evaluation": JUDGED}, {"s00": {"from": "checkpoints/root", "until": 40}})
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    monkeypatch.chdir(root)
    with caplog.at_level(logging.WARNING):
        assert train(root, "s00", Interruption()) == 0
        assert evaluate.main(["s00"]) == 0
        assert plot.main() == 0
    assert (root / "plots/lineage/s00/evaluation.png").is_file()
    assert not (root / "plots/lineage/s00/words.png").exists()
    assert words.WORDS not in json.loads((root / "metrics/s00/evaluation.json").read_text(encoding="utf-8"))
    keys = {point.key for point in read_recorded(root / "metrics/s00")}
    assert any(key.startswith("evaluation/sampled/self_play") for key in keys) and not words_of(keys)


def moment(step: int, shares: list[list[float]], share: float = 0.5) -> speaking.Moment:
    return speaking.Moment(step, np.array(shares), 0.4, share, 0.9, 0.8, 0.1)


def test_a_figure_names_steps_goals_and_words_and_says_where_there_was_no_episode() -> None:
    shares = [[0.7, 0.2, 0.1], [np.nan] * 3, [0.0, 0.0, 1.0]]
    speakers = [
        speaking.Speaker("speaker_0", ("red", "green", "blue"), [moment(step, shares) for step in range(10, 110, 10)]),
        speaking.Speaker("speaker_1", ("red", "green", "blue"), [moment(10, shares, np.nan)]),
    ]
    with figures.drawing():
        figure = speaking.words("a title", speakers, [40])
        picture = figures.png(figure)
        assert picture == figures.png(speaking.words("a title", speakers, [40]))
    titles = [axes.get_title("left") for axes in figure.axes if axes.images and axes.get_visible()]
    assert titles == [*(f"step {step}: 0.40 nats, 50 %" for step in (10, 30, 50, 60, 80, 100)), "step 10: 0.40 nats"]
    first = figure.axes[0]
    assert [label.get_text() for label in first.get_yticklabels()] == ["red", "green", "blue"]
    assert [text.get_text() for text in first.texts] == ["70", "20", "10", "0", "0", "100", "no episode"]
    information, ends = (axes for axes in figure.axes if axes.get_xlabel() == "environment steps")
    assert [line.get_xdata()[-1] for line in information.lines[:2]] == [100, 10]
    assert [line.get_ydata()[0] for line in ends.lines[:3]] == [0.9, 0.8, 0.1]
