"""`metrics/<segment>/run.json` damaged by a merge or an edit: commands that only read go on, import and prune refuse and name the field."""

import json
from typing import Any

import pytest

from pipeline import project as places
from tests.pipeline.lineages import Matwm
from tests.pipeline.projects import Project

WHOLE = {
    "run_id": "1" * 32,
    "key": "2" * 64,
    "parent": {"run_id": "3" * 32, "step": 40, "digest": "d"},
    "resumed_at": [40],
    "threads": 1,
    "tags": {"matwm.env": "simple_v3"},
    "note": ["what else stands there"],
}
WRONG: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    ({"run_id": 7}, "run_id", {}),
    ({"key": ["k"]}, "key", {}),
    ({"parent": "x"}, "parent", {}),
    ({"parent": {"step": "40", "digest": "d"}}, "parent.step", {"parent": {"digest": "d"}}),
    ({"resumed_at": [40, "80"]}, "resumed_at", {}),
    ({"threads": "many"}, "threads", {}),
    ({"threads": True}, "threads", {}),
    ({"tags": {"matwm.env": 5, "matwm.key": "k"}}, "tags.matwm.env", {"tags": {"matwm.key": "k"}}),
]


def put(project: Project, segment: str, text: str) -> None:
    path = project.path / "metrics" / segment / "run.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def changed(project: Project, segment: str, **changes: Any) -> None:
    put(project, segment, json.dumps({**project.json(f"metrics/{segment}/run.json"), **changes}))


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


@pytest.mark.parametrize(("wrong", "name", "left"), WRONG, ids=[name for _, name, _ in WRONG])
def test_a_field_of_another_type_counts_as_absent_and_is_named(
    project: Project, wrong: dict[str, Any], name: str, left: dict[str, Any]
) -> None:
    put(project, "s00", json.dumps({**WHOLE, **wrong}))
    expected = {key: value for key, value in WHOLE.items() if key not in wrong} | left
    assert places.run_record(project.path, "s00") == places.run_records(project.path)["s00"] == expected
    with pytest.raises(
        places.ProjectError, match=f'^metrics/s00/run.json has a wrong {name}: restore it with "git checkout HEAD -- metrics'
    ):
        places.check_records(project.path, ["s00"])


def test_null_is_absent_and_nothing_wrong(project: Project) -> None:
    put(project, "s00", json.dumps({**WHOLE, "run_id": None, "resumed_at": None, "parent": {**WHOLE["parent"], "run_id": None}}))
    places.check_records(project.path, ["s00"])
    found = places.run_record(project.path, "s00")
    assert {*WHOLE} - {*found} == {"run_id", "resumed_at"}
    assert found["parent"] == {"step": 40, "digest": "d"}


@pytest.mark.parametrize(("text", "why"), [("<<<<<<< HEAD\n{}\n", "is no JSON object"), ('{"run_id": "1"}', "has no key")])
def test_a_file_that_names_no_training_is_named(project: Project, text: str, why: str) -> None:
    put(project, "s00", text)
    with pytest.raises(places.ProjectError, match=f"^metrics/s00/run.json {why}"):
        places.check_records(project.path, ["s00"])


def test_commands_that_look_go_on_and_those_that_do_harm_say_which_file(copied: Project, matwm_in: Matwm) -> None:
    changed(copied, "s00", key=None)
    changed(copied, "s01", parent="x", threads="many", resumed_at=None, git=3, libraries=[], tags={"matwm.objective": 1})
    for command in ("runs", "tree", "doctor"):
        code, output, errors = matwm_in(copied, command)
        assert "s01" in output + errors
        assert code == 0 or command == "doctor"
    for command, name in ((["import", "s00"], "s00"), (["import", "s01"], "s01"), (["prune"], "s00")):
        code, output, errors = matwm_in(copied, *command)
        assert (code, output) == (1, "")
        assert errors.startswith(f"metrics/{name}/run.json has ")
        assert errors.count("\n") == 1
