"""The lineage of a project, as `matwm tree` draws it: from whatever of git, work directories and MLflow is there."""

import fcntl
import json
import re
import shutil
import sqlite3
from pathlib import Path

import pytest

from pipeline.catalog.catalog import Catalog
from tests.pipeline.lineages import Matwm
from tests.pipeline.projects import Project, tiny_params


def run_ids(project: Project) -> dict[str, str]:
    with sqlite3.connect(project.path / "mlflow.db") as database:
        rows = database.execute("select value, run_uuid from tags where key = 'matwm.segment'")
        return dict(rows.fetchall())


def words(output: str) -> list[list[str]]:
    return [line.split() for line in output.splitlines()[1:]]


def test_the_tree_shows_each_run_below_the_one_it_starts_from(made: Project, matwm_in: Matwm) -> None:
    code, output, errors = matwm_in(made, "tree")
    ids = {name: run_id[:12] for name, run_id in run_ids(made).items()}
    best = output.split("FINISHED  ")[-1].split("(sampled, step 60)")[0].split()
    assert (code, errors) == (0, "")
    assert words(output) == [
        ["└", "s00", ids["s00"], "0", "→", "40", "FINISHED", "-", "-"],
        ["├", "s02", ids["s02"], "20", "→", "60", "FINISHED", "-", "actor_critic.learning_rate", "0.001", "→", "0.0001"],
        ["└", "s01", ids["s01"], "40", "→", "60", "FINISHED", *best, "(sampled,", "step", "60)", "-"],
        ["└", "s03", ids["s03"], "60", "→", "70", "of", "100", "KILLED", "-", "-"],
    ]
    assert len({line.index(ids[name]) for line, name in zip(output.splitlines()[1:], ("s00", "s02", "s01", "s03"), strict=True)}) == 1


def test_the_tree_of_a_run_is_its_line_and_what_is_below_it(made: Project, matwm_in: Matwm) -> None:
    ids = run_ids(made)

    def names(reference: str) -> list[str]:
        return [node["segment"] for node in json.loads(matwm_in(made, "tree", reference, "--json")[1])["nodes"]]

    assert names("s01") == names(ids["s01"][:8]) == ["s00", "s01", "s03"]
    assert names("s02") == ["s00", "s02"]
    assert names("s00") == ["s00", "s02", "s01", "s03"]
    code, output, errors = matwm_in(made, "tree", "nobody")
    assert (code, output) == (1, "")
    assert errors.startswith("no run begins with 'nobody'; there are ")


def test_json_says_everything_that_is_drawn(made: Project, matwm_in: Matwm) -> None:
    ids = run_ids(made)
    document = json.loads(matwm_in(made, "tree", "--json")[1])
    nodes = {node["segment"]: node for node in document["nodes"]}
    assert document["trouble"] == []
    assert nodes["s02"] == {
        "id": ids["s02"],
        "segment": "s02",
        "run_id": ids["s02"],
        "key": made.json("metrics/s02/run.json")["key"],
        "is_current": True,
        "is_imported": False,
        "parent": ids["s00"],
        "from": 20,
        "until": 60,
        "step": 60,
        "state": "FINISHED",
        "changed": {"actor_critic.learning_rate": {"before": 0.001, "after": 0.0001}},
        "best": [],
        "depth": 1,
    }
    judged = made.json("metrics/s01/evaluation.json")["sampled"]
    chasing = [values["mean"] for agent, values in judged["learned_v_random"].items() if agent.startswith("adversary")]
    prey = judged["random_v_learned"]["agent_0"]["mean"]
    expected = {"learned_v_random/adversary": sum(chasing) / len(chasing), "random_v_learned/agent": prey}
    assert nodes["s01"]["best"] == [
        {"step": 60, "mode": "sampled", "mean": pytest.approx(mean, abs=1e-4), "objective": objective}
        for objective, mean in expected.items()
    ]
    assert (nodes["s00"]["parent"], nodes["s03"]["parent"]) == ("root", ids["s01"])


def test_without_mlflow_the_same_is_drawn_and_said(made: Project, matwm_in: Matwm, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = matwm_in(made, "tree")[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    code, output, errors = matwm_in(made, "tree")
    assert (code, output) == (0, drawn)
    assert errors.startswith("MLflow at http://127.0.0.1:9 does not answer")
    assert len(errors.splitlines()) == 1


def test_a_clone_without_stores_draws_what_git_knows(made: Project, tmp_path: Path, matwm_in: Matwm) -> None:
    clone = Project(tmp_path / "clone")
    made.git("clone", "-q", str(made.path), str(clone.path))
    nodes = json.loads(matwm_in(clone, "tree", "--json")[1])["nodes"]
    seen = [(node["segment"], node["from"], node["step"], node["state"], bool(node["best"])) for node in nodes]
    assert seen == [
        ("s00", 0, 40, "FINISHED", False),
        ("s02", 20, 60, "FINISHED", False),
        ("s01", 40, 60, "FINISHED", True),
        ("s03", 60, None, "not trained yet", False),
    ]
    assert not (clone.path / "mlflow.db").exists()


def test_changed_parameters_leave_the_old_runs_beside_what_is_not_trained(copied: Project, matwm_in: Matwm) -> None:
    copied.edit("seed", 5)
    ids = run_ids(copied)
    shown = [(node["segment"], node["is_current"], node["run_id"]) for node in json.loads(matwm_in(copied, "tree", "--json")[1])["nodes"]]
    current = [(name, True, None) for name in ("s00", "s02", "s01", "s03")]
    assert shown == [*current, *((name, False, ids[name]) for name in ("s00", "s02", "s01", "s03"))]
    assert words(matwm_in(copied, "tree")[1])[4][:2] == ["└", "(s00)"]


@pytest.mark.parametrize("text", ["seed: [", "seed: 1\n", "", "segments: {s00: 7}\n"])
def test_broken_parameters_leave_what_is_trained(copied: Project, matwm_in: Matwm, text: str) -> None:
    (copied.path / "params.yaml").write_text(text, encoding="utf-8")
    code, output, errors = matwm_in(copied, "tree")
    assert code == 0
    assert "params.yaml" in errors
    assert [line[1] for line in words(output)] == ["(s00)", "(s02)", "(s01)", "(s03)"]


def test_a_field_that_is_wrong_keeps_the_segments(copied: Project, matwm_in: Matwm) -> None:
    copied.edit("actor_critic.discount", 7.0)
    _, output, errors = matwm_in(copied, "tree")
    assert "actor_critic.discount is 7.0" in errors
    assert [(line[1], line[2] == "-") for line in words(output)] == [
        ("s00", False),
        ("s02", False),
        ("s01", False),
        ("s03", True),
        ("(s03)", False),
    ]


def test_a_raised_until_and_a_running_process_are_told(copied: Project, matwm_in: Matwm) -> None:
    copied.edit("segments.s01.until", 80)
    (lock,) = (copied.path / ".matwm/work").glob("s03-*/lock")
    with lock.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        nodes = {node["segment"]: node for node in json.loads(matwm_in(copied, "tree", "--json")[1])["nodes"]}
    assert (nodes["s01"]["step"], nodes["s01"]["until"], nodes["s01"]["state"]) == (60, 80, "FINISHED")
    assert nodes["s03"]["state"] == "RUNNING"


def test_a_run_that_only_its_child_knows_has_a_place(copied: Project, matwm_in: Matwm) -> None:
    ids = run_ids(copied)
    for place in ("metrics/s00", "mlflow.db", "checkpoints/s00"):
        path = copied.path / place
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(next((copied.path / ".matwm/work").glob("s00-*")))
    (copied.path / "params.yaml").write_text("", encoding="utf-8")
    nodes = json.loads(matwm_in(copied, "tree", "--json")[1])["nodes"]
    assert [(node["segment"], node["state"], node["depth"]) for node in nodes[:2]] == [(None, "not known here", 0), ("s02", "FINISHED", 1)]
    assert nodes[0]["id"] == ids["s00"]


def test_tags_that_lead_in_a_circle_or_command_the_terminal_do_no_harm(copied: Project, matwm_in: Matwm) -> None:
    ids = run_ids(copied)
    shutil.rmtree(copied.path / "metrics")
    shutil.rmtree(copied.path / ".matwm")
    (copied.path / "params.yaml").unlink()
    with sqlite3.connect(copied.path / "mlflow.db") as database:
        for child, parent in (("s00", "s01"), ("s01", "s00")):
            for key, value in (("parent_run", ids[parent]), ("parent_step", "20"), ("changed.seed", "'\x1b[2J' -> [1,")):
                database.execute("insert or replace into tags values (?, ?, ?)", (f"matwm.{key}", value, ids[child]))
    code, output, _ = matwm_in(copied, "tree")
    assert code == 0
    assert sorted(re.findall(r"\(s\d\d\)", output)) == ["(s00)", "(s01)", "(s02)", "(s03)"]
    assert "\x1b" not in output


def test_fifty_chained_segments_are_drawn(tmp_path: Path, store_template: Path, matwm_in: Matwm) -> None:
    segments = {"s00": {"from": "checkpoints/root", "until": 40}}
    for number in range(1, 50):
        segments[f"s{number:02d}"] = {"from": f"checkpoints/s{number - 1:02d}/step_{number * 40:09d}", "until": (number + 1) * 40}
    project = Project.create(tmp_path / "p", tiny_params(segments=segments), store_template)
    code, output, _ = matwm_in(project, "tree", "s49")
    assert code == 0
    assert [line[1] for line in words(output)] == list(segments)
    assert output.splitlines()[-1].split()[-6:] == ["1960", "→", "2000", "not", "trained", "yet", "-", "-"][-6:]
    catalog = Catalog(project.path)
    assert [run.segment for run in catalog.lineage.ancestors(catalog.find("s03"))] == ["s00", "s01", "s02", "s03"]
