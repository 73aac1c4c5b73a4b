"""What people call runs and steps: the same rule for every command, whatever they type and whatever tags say."""

import json
import sqlite3
from pathlib import Path

import pytest

from pipeline import project as places
from pipeline import runs
from pipeline.catalog.catalog import Catalog
from pipeline.project import ProjectError
from pipeline.run import Run
from tests.pipeline.lineages import Matwm
from tests.pipeline.projects import Project


def ids_of(project: Project) -> dict[str, str]:
    with sqlite3.connect(project.path / "mlflow.db") as database:
        return dict(database.execute("select value, run_uuid from tags where key = 'matwm.segment'").fetchall())


def tag(project: Project, run_id: str, key: str, value: str) -> None:
    with sqlite3.connect(project.path / "mlflow.db") as database:
        database.execute("insert or replace into tags (key, value, run_uuid) values (?, ?, ?)", (key, value, run_id))


def test_many_steps_are_not_all_named() -> None:
    assert places.named([40, 80]) == "40, 80"
    assert places.named(range(40, 2681, 40)) == "40, 80, … 2680 (67 in all)"
    assert places.named([]) == ""


def test_a_run_is_found_by_the_beginning_of_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [Run(f"{number % 4}{number:031}", "s00", f"key {number}", status="FINISHED", step=10) for number in range(17)]

    def catalog(known: list[Run]) -> Catalog:
        monkeypatch.setattr(runs, "list_runs", lambda at_most=None: known)
        return Catalog(tmp_path)

    assert catalog(made[:4]).find(made[3].run_id[:2]) is made[3]
    with pytest.raises(ProjectError, match=r"^5 runs begin with '0': .* \(s00, step 10, FINISHED\), .*: give more of the ID \("):
        catalog(made).find("0")
    with pytest.raises(ProjectError, match=r"^no run begins with 'zz'; there are .*\(s00, step 10, FINISHED\).* and 9 more \("):
        catalog(made).find("zz")
    with pytest.raises(ProjectError, match=r"^no run begins with ''; there are none \(.*params.yaml does not exist"):
        catalog([]).find("")


def test_a_segments_name_is_enough_also_while_it_is_not_published(copied: Project, matwm_in: Matwm) -> None:
    ids = ids_of(copied)
    who = f"run {ids['s03'][:12]} (s03)"
    assert matwm_in(copied, "pin", "s03@60")[2] == f"s03 ({ids['s03'][:12]}) has no checkpoint of step 60; it has 70\n"
    assert matwm_in(copied, "pin", "s03@70")[1] == f"step 70 of {who} is pinned: matwm prune keeps it\n"
    (held,) = json.loads(matwm_in(copied, "prune", "s03", "--json")[1])["runs"]
    assert held["run_id"] == ids["s03"]
    code, output, _ = matwm_in(copied, "continue", "s03", "--until", "120", "--dry-run")
    assert (code, output.splitlines()[0]) == (0, f"segment s04 goes on from {who} at step 70 and trains to step 120")
    assert f"would be imported from work directory: imports/{ids['s03']}/step_000000070" in output
    copied.edit("seed", 5)
    assert matwm_in(copied, "pin", "s01")[0] == 0, "params.yaml describes it no more: the newest of that name"


def test_a_name_stands_for_what_params_yaml_describes_before_what_is_newer(copied: Project, matwm_in: Matwm) -> None:
    ids = ids_of(copied)
    tag(copied, ids["s03"], "matwm.segment", "s02")
    assert f"run {ids['s02'][:12]} (s02)" in matwm_in(copied, "pin", "s02@60")[1]


@pytest.mark.parametrize("command", [["show"], ["verify"], ["diff", "s00"], ["fingerprint"], ["pin"]])
def test_every_command_reads_a_reference_alike(copied: Project, matwm_in: Matwm, command: list[str]) -> None:
    for step in ("²", "9" * 5000, "4.0"):
        code, _, errors = matwm_in(copied, *command, f"s00@{step}")
        assert (code, len(errors.splitlines())) == (1, 1)
        assert errors.startswith(f"{step!r} is no step: use a number, latest or final; ")
    code, _, errors = matwm_in(copied, *command, "s00@")
    assert (code, errors) == (1, "s00@ has no step behind the @: write a number, latest or final, or s00 alone for the latest\n")
    assert matwm_in(copied, *command, "s00")[0] == 0
    for reference in ("s00@banana", "s00@"):
        code, _, errors = matwm_in(copied, "tree", reference)
        assert (code, errors) == (1, f"{reference!r} names a step, and this takes a run without one: write s00\n")


def test_tags_that_hold_no_number_break_no_list(copied: Project, matwm_in: Matwm) -> None:
    for run_id in ids_of(copied).values():
        for key in ("matwm.until", "matwm.step", "matwm.parent_step", "matwm.numerics", "matwm.not_reproduced_points"):
            tag(copied, run_id, key, "9" * 5000 if key == "matwm.step" else "²")
    for command in (["runs"], ["runs", "--json"], ["tree"], ["show", "s00"], ["verify", "s01"], ["prune"]):
        assert matwm_in(copied, *command)[0] == 0
