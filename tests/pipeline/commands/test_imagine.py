"""`matwm imagine`: errors by step, and what agents see beside what is imagined."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from matwm.open_loop import open_loop
from matwm.policy import load_networks
from matwm.store import LocalStore
from pipeline.drawing import figures, imagination
from tests.pipeline.lineages import Matwm
from tests.pipeline.projects import Project
from tests.pipeline.untrained import untrained


def test_errors_become_a_table_a_picture_and_a_film(made: Project, matwm_in: Matwm, tmp_path: Path) -> None:
    name = tmp_path / "new folder" / "some"
    command = ("imagine", "s00@20", "--steps", "4", "--start", "3", "--episodes", "3", "--output", str(name))
    code, output, errors = matwm_in(made, *command, "--gif", "--json")
    assert (code, errors) == (0, "")
    document = json.loads(output)
    assert document["files"] == [f"{name}.png", f"{name}.gif"]
    networks = load_networks(LocalStore(made.path / "checkpoints/s00").open(20))
    found = open_loop(networks, episodes=3, first_seed=10000, start=3, horizon=4)
    for number, agent in enumerate(found.spec.agents):
        assert document["errors"]["imagined"][agent] == found.errors()[:, number].tolist()
        assert document["errors"]["held"][agent][0] == 0
    with Image.open(f"{name}.gif") as gif:
        assert (getattr(gif, "n_frames", 1), gif.height) == (5, 720)
    with Image.open(f"{name}.png") as picture:
        assert picture.width > 1000
    code, output, _ = matwm_in(made, *command)
    lines = output.splitlines()
    assert (code, lines[0]) == (0, "step 20, imagined from step 3 of 3 episodes from seed 10000")
    assert lines[1].split() == ["error", "after", "0", "1", "2", "3", "4"]
    first = found.spec.agents[0]
    assert lines[2].split() == [first, *(f"{value:.3f}" for value in document["errors"]["imagined"][first])]
    assert lines[-1] == f"{name}.png"


def test_it_imagines_as_far_as_it_was_trained_to(made: Project, matwm_in: Matwm, tmp_path: Path) -> None:
    output = matwm_in(made, "imagine", "s00@20", "--episodes", "1", "--output", str(tmp_path / "x"), "--json")[1]
    assert {len(values) for values in json.loads(output)["errors"]["imagined"].values()} == {3}


@pytest.mark.parametrize(
    ("name", "options", "family"),
    [
        ("tests.matwm.arena:Arena", {"see": "image", "max_cycles": 12}, "pettingzoo"),
        ("simple_crypto_v3", {"max_cycles": 6}, "mpe"),
        ("simple_adversary_v3", {"max_cycles": 6}, "mpe"),
    ],
    ids=["pictures", "entries", "positions"],
)
def test_a_frame_changes_with_what_is_imagined(tmp_path: Path, name: str, options: dict[str, Any], family: str) -> None:
    networks = load_networks(untrained(tmp_path / "made", name, options, family))
    found = open_loop(networks, episodes=1, first_seed=7, start=1, horizon=2)
    with figures.drawing():
        frames = [np.asarray(frame) for frame in imagination.frames(found, networks.env, 0, "a title")]
    assert len(frames) == 3 and {frame.shape[0] for frame in frames} == {720}
    middle = 720 // 2 + 40
    assert (frames[0] != frames[2])[middle:].any(), "what is imagined"
    assert (frames[0] != frames[2])[80:middle].any(), "what is real"


def test_what_cannot_be_imagined_is_said(made: Project, matwm_in: Matwm, tmp_path: Path) -> None:
    for arguments, sentence in (
        (["--start", "12"], "no episode of simple_tag_v3 goes on beyond step 12: begin to imagine earlier"),
        (["--start", "-1"], "--start is -1: the first step of an episode is 0"),
        (
            ["--steps", "600"],
            "600 steps behind a context of 4 rows exceed world_model.max_positions = 32: imagine 28 steps at most",
        ),
    ):
        code, output, errors = matwm_in(made, "imagine", "s00@20", "--episodes", "1", "--output", str(tmp_path / "x"), *arguments)
        assert (code, output, errors) == (1, "", f"{sentence}\n")
    assert not list(tmp_path.glob("x*"))
