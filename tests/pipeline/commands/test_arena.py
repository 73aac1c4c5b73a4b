"""`matwm arena`: checkpoints against each other, as table, picture and CSV."""

import csv
import json
from pathlib import Path

from PIL import Image

from tests.pipeline.lineages import Matwm
from tests.pipeline.projects import Project
from tests.pipeline.untrained import untrained


def test_each_role_of_each_plays_every_other(made: Project, matwm_in: Matwm, tmp_path: Path) -> None:
    name = tmp_path / "new folder" / "all"
    command = ("arena", "s00@20", "s01", "s02@60", "--episodes", "2", "--output", str(name))
    code, output, errors = matwm_in(made, *command, "--json")
    assert (code, errors) == (0, "")
    document = json.loads(output)
    names = ["s00@20", "s01@60", "s02@60"]
    assert [one["name"] for one in document["players"]] == names
    assert [one["role"] for one in document["matrices"]] == ["adversary", "agent"]
    with Path(f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    digests = {one["name"]: one["digest"] for one in document["players"]}
    assert [(row["role"], row["player"], row["others"], float(row["mean"]), float(row["stderr"])) for row in rows] == [
        (one["role"], names[row], names[column], one["mean"][row][column], one["stderr"][row][column])
        for one in document["matrices"]
        for row in range(3)
        for column in range(3)
    ]
    assert all((digests[row["player"]], digests[row["others"]]) == (row["player_digest"], row["others_digest"]) for row in rows)
    with Image.open(f"{name}.png") as picture:
        assert picture.width > picture.height > 400
    code, output, _ = matwm_in(made, *command)
    lines = output.splitlines()
    assert (code, lines[0]) == (0, "2 episodes of each match-up from seed 10000, sampled; rows play the role, columns all others")
    assert [line.split()[0] for line in lines if line and line != lines[0]] == ["adversary", *names, "agent", *names, f"{tmp_path}/new"]
    first = document["matrices"][0]
    assert lines[3].split()[1:4] == [f"{first['mean'][0][0]:.2f}", "±", f"{first['stderr'][0][0]:.2f}"]


def test_what_cannot_meet_is_said(made: Project, matwm_in: Matwm, tmp_path: Path) -> None:
    other = untrained(tmp_path / "alone", "simple_v3", {"max_cycles": 4}, family="mpe").path
    same = made.path / "checkpoints/s00/step_000000020"
    for arguments, sentence in (
        (["s00@20"], 's00@20 is alone: name two or more checkpoints, or use "matwm eval"'),
        (["s00@20", "s02@60", str(same)], "s00@20 is the same checkpoint as s00@20: name each once"),
        (["s00@20", str(other)], "alone@0 was trained in simple_v3 with other agents, sizes or actions than s00@20"),
    ):
        code, output, errors = matwm_in(made, "arena", *arguments, "--output", str(tmp_path / "x"))
        assert (code, output, errors) == (1, "", f"{sentence}\n")
    assert not list(tmp_path.glob("x*"))
