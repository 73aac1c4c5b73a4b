"""`matwm envs` shows what there is without being asked twice, and how to get what is missing."""

import json
import re
import sys

import pytest

from matwm import envs, scenarios
from pipeline import cli
from tests.pipeline.projects import SOURCE
from tests.readme import own_environment


def told(capsys, *arguments):
    assert cli.main(["envs", *arguments]) == 0
    return capsys.readouterr().out


def test_every_family_and_scenario_is_listed_with_what_agents_see_and_do(capsys):
    families = {entry["family"]: entry for entry in json.loads(told(capsys, "--json", "mpe", "pettingzoo"))}
    assert set(families) == {"mpe", "pettingzoo"}
    assert families["mpe"]["installed"]
    listed = {scenario["name"]: scenario for scenario in families["mpe"]["scenarios"]}
    assert set(listed) == set(scenarios.names("mpe"))
    tag = listed["simple_tag_v3"]
    assert (tag["num_agents"], tag["max_steps"], tag["has_action_masks"], tag["resume"]) == (4, 25, False, "replay")
    assert tag["agents"][3] == {
        "name": "agent_0",
        "role": "agent",
        "kind": "vector",
        "obs_shape": [14],
        "num_actions": 5,
        "has_action_mask": False,
    }
    lines = told(capsys, "mpe").splitlines()
    assert "  resume: exact, by playing the episode again" in lines
    (line,) = [line.split() for line in lines if "simple_tag_v3" in line]
    assert line == ["simple_tag_v3", "3", "adversary", "+", "1", "agent", "vector", "16", "/", "vector", "14", "5", "no", "25"]


def test_what_is_not_installed_is_listed_too_with_the_command_that_installs_it(capsys, monkeypatch):
    monkeypatch.setattr(envs, "is_installed", lambda family: False)
    text = told(capsys, "smax")
    assert "NOT INSTALLED: make smax\n" in text
    assert "from a copy of the state" in text
    assert ["2s3z", "5", "?", "?", "?", "100"] in [line.split() for line in text.splitlines()]
    (family,) = json.loads(told(capsys, "--json", "smax"))
    assert (family["installed"], family["install"]) == (False, "make smax")
    assert {scenario["name"]: scenario["num_agents"] for scenario in family["scenarios"]}["27m_vs_30m"] == 27


def test_a_command_that_installs_is_a_rule_of_the_makefile_and_installs_pinned_versions():
    rules = dict(re.findall(r"^(\w+): venv\n((?:\t.*\n)+)", (SOURCE / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    commands = [known.install for known in scenarios.families().values() if known.install.startswith("make ")]
    assert {command.removeprefix("make ") for command in commands} <= {"venv", *rules}
    wanted = rules["smax"].partition("constraints.txt")[2].replace("\\", "").split()
    pinned = [line.partition("==")[0] for line in (SOURCE / "constraints.txt").read_text(encoding="utf-8").split()]
    assert "jaxmarl" in wanted
    assert set(wanted) <= set(pinned)


def test_what_needs_no_package_to_be_known_is_told_without_it(capsys, monkeypatch):
    monkeypatch.setattr(envs, "is_installed", lambda family: False)
    text = told(capsys, "smac")
    assert "  note: tested against an imitation of SMAC's interface, never with the game itself\n" in text
    assert "  resume: a fresh episode: the run is continued, not reproduced\n" in text
    assert "git+https://github.com/oxwhirl/smac.git" in text
    assert "  and: StarCraft II in $SC2PATH" in text
    assert ["2c_vs_64zg", "2", "ally", "vector", "332", "70", "yes", "400"] in [line.split() for line in text.splitlines()]
    (family,) = json.loads(told(capsys, "--json", "smac"))
    first = {scenario["name"]: scenario for scenario in family["scenarios"]}["3m"]
    assert [agent["name"] for agent in first["agents"]] == ["ally_0", "ally_1", "ally_2"]
    assert (first["has_action_masks"], first["max_steps"], first["resume"]) == (True, 60, "episode")


def test_melting_pot_is_told_with_its_pictures_and_its_limit(capsys, monkeypatch):
    monkeypatch.setattr(envs, "is_installed", lambda family: False)
    text = told(capsys, "meltingpot")
    assert "  NOT INSTALLED: make meltingpot\n" in text
    assert "1,000 steps unless told otherwise: state it with every number" in text
    (line,) = [line.split() for line in text.splitlines() if "gift_refinements" in line]
    assert line == ["gift_refinements", "6", "player", "image", "3", "x", "64", "x", "64", "9", "no", "1000"]


def test_your_own_environment_is_shown_by_its_import_path(capsys):
    text = told(capsys, "tests.matwm.arena:parallel_env")
    assert "2 knight + 1 scout  vector 5 / vector 9  6 / 5    yes    ?" in text
    assert "mpe" not in text
    assert "resume of" not in text, "it is as the family's"
    text = told(capsys, "tests.matwm.envs.mistakes:UnseededAndSaysSo")
    assert "  resume of tests.matwm.envs.mistakes:UnseededAndSaysSo: a fresh episode: the run is continued, not reproduced\n" in text


def test_the_example_of_the_readme_is_shown_as_the_readme_says(capsys, monkeypatch, tmp_path):
    code, section = own_environment()
    (tmp_path / "meeting.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    assert section["name"] == "meeting:Meeting"
    assert "2 walker  vector 5     3        no     ?" in told(capsys, section["name"])


def test_an_environment_beside_params_is_found_from_a_folder_below(capsys, monkeypatch, tmp_path):
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "beside_params.py").write_text("from tests.matwm.envs.mistakes import Plain\n", encoding="utf-8")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.setattr("sys.path", [*sys.path])
    assert "  beside_params:Plain  " in told(capsys, "beside_params:Plain")


@pytest.mark.parametrize(
    ("word", "sentence"),
    [("smaxx", "there is no family 'smaxx', did you mean smax?"), ("a:b", "env.name is a:b, but there is no module a among")]
    + [
        (path, f"env.name is {path!r}: expected an import path like package.module:parallel_env\n")
        for path in (":", "odd:", "odd:a-b", "my-env:X", "./odd.py:Plain", "odd:a:b")
    ],
)
def test_what_cannot_be_shown_is_one_sentence(capsys, word, sentence):
    assert cli.main(["envs", word]) == 1
    assert capsys.readouterr().err.startswith(sentence)
