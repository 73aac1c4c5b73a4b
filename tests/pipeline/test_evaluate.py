"""The evaluate stage, in this process: what it opens, what it writes, and what its run in MLflow gets."""

import csv
import io
import json
import logging
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from matwm import evaluation
from matwm.envs import is_installed
from matwm.policy import load_networks
from matwm.scenarios.objective import parse
from matwm.store import LocalStore
from pipeline import evaluate, plot, runs, tracking
from pipeline.drawing.animation import animate
from pipeline.metrics import best
from pipeline.params.segments import resolve_all
from pipeline.process import Interruption
from pipeline.tracking import report
from pipeline.train import train
from tests.matwm.arena import Arena
from tests.pipeline.projects import SOURCE, tiny_params

CHANGES = {"evaluation": {"episodes": 3, "modes": ["sampled", "greedy"], "gif": True}}
WRITTEN = ["metrics/s00/evaluation.csv", "metrics/s00/evaluation.json", "plots/s00/episode.gif"]


@pytest.fixture
def project(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a trained segment, as the current folder."""
    shutil.copytree(SOURCE / "checkpoints/root", root / "checkpoints/root")
    write(root)
    assert train(root, "s00", Interruption()) == 0
    monkeypatch.chdir(root)
    return root


def write(project: Path, **evaluation: object) -> None:
    changes = {"evaluation": {**CHANGES["evaluation"], **evaluation}}
    segments = {"s00": {"from": "checkpoints/root", "until": 24}}
    (project / "params.yaml").write_text(yaml.safe_dump(tiny_params(changes, segments)), encoding="utf-8")


def contents(project: Path) -> dict[str, bytes]:
    return {name: (project / name).read_bytes() for name in WRITTEN}


def artifacts(run_id: str) -> set[str]:
    client = runs.client(runs.configured_uri())
    return {item.path for folder in ("", "plots") for item in client.list_artifacts(run_id, folder) if not item.is_dir}


def test_a_segments_last_step_is_judged_and_its_run_told(project: Path) -> None:
    assert evaluate.main(["s00"]) == 0
    first = contents(project)
    judged = json.loads(first[WRITTEN[1]])
    networks = load_networks(LocalStore(project / "checkpoints/s00").open(24))
    expected = evaluation.evaluate(
        networks.world_model, networks.actors, networks.env,
        episodes=3, first_seed=10000, modes=["sampled", "greedy"], acting_context=networks.acting_context,
    )  # fmt: skip

    assert judged["step"] == 24
    assert [(mode, matchup) for mode in ("sampled", "greedy") for matchup in judged[mode]] == [(r.mode, r.matchup) for r in expected]
    for result in expected:
        found = judged[result.mode][result.matchup]
        assert list(found) == [result.spec.agents[number] for number in result.learned]
        for agent, numbers in found.items():
            summary = result.agents[agent]
            assert numbers == {name: round(getattr(summary, name), 4) for name in ("mean", "median", "std", "stderr")}
    assert set(judged["references"]["chase_v_flee"]) == {"adversary", "agent"}
    assert len(judged["references"]) == 4 * 3

    (run,) = tracking.list_runs()
    logged = runs.client(runs.configured_uri()).get_run(run.run_id).data.metrics
    wanted = {
        f"evaluation/{r.mode}/{r.matchup}/{r.spec.agents[number]}": r.returns[:, number].mean() for r in expected for number in r.learned
    }
    errors = {
        f"evaluation/{r.mode}/{r.matchup}/{r.spec.agents[number]}/stderr": r.returns[:, number].std(ddof=1) / 3**0.5
        for r in expected
        for number in r.learned
    }
    assert {key: value for key, value in logged.items() if key.startswith("evaluation/")} == pytest.approx(wanted | errors)
    assert (run.tags["matwm.evaluation.episodes"], run.tags["matwm.evaluation.seed"]) == ("3", "10000")
    assert run.tags["matwm.evaluation.modes"] == "sampled,greedy"
    modules = (networks.world_model, networks.actors)
    assert int(run.tags["matwm.parameters"]) > sum(weight.numel() for module in modules for weight in module.parameters())
    assert run.status == "FINISHED"
    assert {"evaluation.json", "evaluation.csv", "plots/episode.gif"} <= artifacts(run.run_id)

    assert evaluate.main(["s00"]) == 0
    assert contents(project) == first


def test_the_table_has_each_role_of_each_match_up(project: Path) -> None:
    assert evaluate.main(["s00"]) == 0
    rows = list(csv.DictReader(io.StringIO(contents(project)[WRITTEN[0]].decode())))
    assert len(rows) == (2 * 7 + 12) * 2
    assert {(row["step"], row["episodes"], row["max_steps"]) for row in rows} == {("24", "3", "12")}
    against_flee = [row for row in rows if row["matchup"] == "learned_v_flee" and row["mode"] == "greedy"]
    assert [(row["role"], row["learned"]) for row in against_flee] == [("adversary", "1"), ("agent", "0")]


def test_what_an_environment_says_of_its_episodes_is_told_beside_the_returns(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An environment by import path, with masks and deaths: drawn if it can be, and a sentence if not."""
    shutil.copytree(SOURCE / "checkpoints/root", root / "checkpoints/root")
    env = {"family": "pettingzoo", "name": "tests.matwm.arena:Arena", "options": {"masks": "info"}}
    judging = {"episodes": 4, "modes": ["greedy"], "gif": True, "objective": "win"}
    params = tiny_params({"env": env, "evaluation": judging}, {"s00": {"from": "checkpoints/root", "until": 24}})
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    assert train(root, "s00", Interruption()) == 0
    monkeypatch.chdir(root)
    assert evaluate.main(["s00"]) == 0
    judged = json.loads((root / "metrics/s00/evaluation.json").read_text())
    networks = load_networks(LocalStore(root / "checkpoints/s00").open(24))
    (result,) = evaluation.evaluate(
        networks.world_model, networks.actors, networks.env,
        episodes=4, first_seed=10000, modes=["greedy"], acting_context=networks.acting_context,
    )  # fmt: skip
    wins = result.outcomes["win"]
    assert set(wins) <= {0.0, 1.0}
    assert judged["metrics"]["greedy"]["self_play"]["win"] == {
        "mean": wins.mean(), "stderr": round(wins.std(ddof=1) / 2, 4), "episodes": 4,
    }  # fmt: skip
    assert judged["metrics"]["references"]["random"]["win"]["episodes"] == 4
    (run,) = tracking.list_runs()
    logged = runs.client(runs.configured_uri()).get_run(run.run_id).data.metrics
    assert logged["evaluation/greedy/self_play/metrics/win"] == wins.mean()
    won = (best.Best(24, "greedy", wins.mean(), "win"),)
    assert best.of_tags(run.tags) == best.of_record(judged, [parse("win")]) == won
    assert run.tags[best.OBJECTIVE_TAG] == "win"
    rows = list(csv.DictReader((root / "metrics/s00/evaluation.csv").open(encoding="utf-8")))
    told = [row for row in rows if row["role"] == "metrics/win"]
    assert [(row["mode"], row["matchup"], row["learned"]) for row in told][0] == ("greedy", "self_play", "1")
    assert {(row["mode"], row["learned"]) for row in told[1:]} == {("reference", "0")}
    assert (float(told[0]["mean"]), float(told[0]["median"]), told[0]["episodes"]) == (wins.mean(), float(np.median(wins)), "4")
    (path,) = plot.paths(resolve_all(params, root))
    figure = plot.draw(root / "metrics/s00", path)["evaluation"]
    assert [axes.get_title("left") for axes in figure.axes] == ["win rate", "knight, mean of 2 agents", "scout"]
    assert figure.axes[0].get_xlabel() == "share of episodes won, mean ± standard error over 4 episodes"
    assert (root / "plots/s00/episode.gif").is_file()
    monkeypatch.setattr(Arena, "render", lambda self: None)
    (root / "plots/s00/episode.gif").unlink()
    assert evaluate.main(["s00"]) == 0
    assert "there is no episode.gif: tests.matwm.arena:Arena cannot draw itself" in capsys.readouterr().err
    assert list((root / "plots/s00").iterdir()) == []


PAIR = "pure_coordination_in_the_matrix__repeated"


@pytest.mark.parametrize(
    ("family", "name", "options", "limit"),
    [
        ("pettingzoo", "tests.matwm.envs.mistakes:UnseededAndSaysSo", {}, None),
        pytest.param("meltingpot", PAIR, {"max_cycles": 10}, 10, id="meltingpot"),
    ],
)
def test_of_an_environment_that_cannot_be_brought_back_nothing_exact_is_promised(
    family: str,
    name: str,
    options: dict[str, int],
    limit: int | None,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log, the run and the manifest say so, numbers say where episodes are cut, and no episode is drawn that nobody played."""
    if not is_installed("meltingpot"):
        monkeypatch.syspath_prepend(str(SOURCE / "tests/matwm/fakes/meltingpot"))
    shutil.copytree(SOURCE / "checkpoints/root", root / "checkpoints/root")
    env = {"family": family, "name": name, "options": options}
    judging = {"episodes": 2, "modes": ["greedy"], "gif": True}
    params = tiny_params({"env": env, "evaluation": judging}, {"s00": {"from": "checkpoints/root", "until": 24}})
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    assert train(root, "s00", Interruption()) == 0
    assert "cannot be brought back or repeated: what is interrupted or branched is continued, not reproduced bit for bit" in caplog.text
    (run,) = tracking.list_runs()
    assert runs.client(runs.configured_uri()).get_run(run.run_id).data.tags["matwm.resume"] == "episode"
    manifest = LocalStore(root / "checkpoints/s00").open(24).manifest
    assert manifest["spec"]["resume"] == "episode"
    assert manifest["reservation"].endswith("what is interrupted or branched is continued, not reproduced bit for bit")
    monkeypatch.chdir(root)
    assert evaluate.main(["s00"]) == 0
    assert f"there is no episode.gif: an episode of {name} cannot be played" in capsys.readouterr().err
    assert list((root / "plots/s00").iterdir()) == []
    assert json.loads((root / "metrics/s00/evaluation.json").read_text())["max_steps"] == limit
    (path,) = plot.paths(resolve_all(params, root))
    drawn = plot.draw(root / "metrics/s00", path)
    labels = {name: axes.get_ylabel() if name == "returns" else axes.get_xlabel() for name, axes in panels(drawn).items()}
    cut = "" if limit is None else f", truncated at {limit} steps"
    assert labels["returns"].replace("\n", " ") == f"return per episode{cut}"
    assert labels["evaluation"] == f"return per episode{cut}, mean ± standard error over 2 episodes"


def panels(drawn: dict[str, Figure]) -> dict[str, Axes]:
    """Return the last panel of each figure of returns."""
    return {name: drawn[name].axes[-1] for name in ("returns", "evaluation")}


def test_without_a_gif_there_is_an_empty_folder(project: Path) -> None:
    write(project, gif=False, episodes=2)
    assert evaluate.main(["s00"]) == 0
    assert list((project / "plots/s00").iterdir()) == []


def test_exactly_the_last_step_is_demanded_and_verified(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = project / "checkpoints/s00/step_000000024"
    weights = (folder / "world_model.safetensors").read_bytes()
    damaged = bytearray(weights)
    damaged[-1] ^= 1
    (folder / "world_model.safetensors").unlink()  # hard links share their bytes
    (folder / "world_model.safetensors").write_bytes(damaged)
    assert evaluate.main(["s00"]) == 1
    assert "world_model.safetensors is damaged" in capsys.readouterr().err
    folder.rename(project / "checkpoints/s00/step_000000023")
    assert evaluate.main(["s00"]) == 1
    assert capsys.readouterr().err.rstrip().endswith("checkpoints/s00 has no checkpoint of step 24: it has 23")
    assert evaluate.main(["s07"]) == 1
    assert "s07 is not there (known: s00)" in capsys.readouterr().err
    assert not any((project / name).exists() for name in WRITTEN)


def test_a_checkpoint_of_other_values_is_not_judged(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tiny_params({**CHANGES, "seed": 7}, {"s00": {"from": "checkpoints/root", "until": 24}})
    (project / "params.yaml").write_text(yaml.safe_dump(changed), encoding="utf-8")
    assert evaluate.main(["s00"]) == 1
    assert 'was trained with other values than params.yaml has for segment s00: run "matwm repro"' in capsys.readouterr().err
    write(project)

    def faulty(*_: object) -> None:
        raise ValueError("a mistake in the code")

    monkeypatch.setattr(evaluate, "_results", faulty)
    with pytest.raises(ValueError, match="a mistake"):
        evaluate.main(["s00"])


def test_a_store_that_does_not_answer_fails_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(project, gif=False, episodes=2, modes=["greedy"])
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setattr(report, "PATIENCE_SECONDS", 0.2)
        assert evaluate.main(["s00"]) == 0
    assert "lacks" in caplog.text
    assert json.loads((project / "metrics/s00/evaluation.json").read_text())["step"] == 24


def test_a_segment_without_facts_of_its_run_is_judged_all_the_same(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(project, gif=False, episodes=2, modes=["greedy"])
    path = project / "metrics/s00/run.json"
    before = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    with caplog.at_level(logging.WARNING):
        assert evaluate.main(["s00"]) == 0
    assert f"metrics/s00/run.json is made anew from run {before['run_id']}" in caplog.text
    after = json.loads(path.read_text(encoding="utf-8"))
    assert {**after, "tags": None} == {**before, "tags": None}

    path.unlink()
    shutil.rmtree(project / ".matwm/work")
    (project / "mlflow.db").unlink()
    with caplog.at_level(logging.WARNING):
        assert evaluate.main(["s00"]) == 0
    assert "does not say which run trained the segment" in caplog.text


def test_a_gif_has_a_frame_for_the_start_and_each_step(project: Path) -> None:
    networks = load_networks(LocalStore(project / "checkpoints/s00").open(24))
    actions = np.array([[1, 2, 3], [0, 0, 0], [4, 4, 4], [-1, -1, -1]])
    data = animate(networks.env, 5, actions, "a title")
    assert data == animate(networks.env, 5, actions, "a title")
    with Image.open(io.BytesIO(data)) as gif:
        assert gif.n_frames == 4
        assert gif.format == "GIF"
