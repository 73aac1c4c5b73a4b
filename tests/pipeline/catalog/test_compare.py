"""`matwm show` and `matwm diff`: what a checkpoint is, and in what two of them differ."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from matwm.checkpoint import open_checkpoint
from matwm.step_names import step_name
from tests.pipeline.lineages import Matwm, forge
from tests.pipeline.projects import Project
from tests.pipeline.terminal import on_terminal, plain


def test_a_checkpoint_is_shown_with_all_that_is_known(made: Project, matwm_in: Matwm) -> None:
    folder = made.path / "checkpoints/s02" / step_name(40)
    checkpoint, facts = open_checkpoint(folder), made.json("metrics/s02/run.json")
    document = json.loads(matwm_in(made, "show", "s02@40", "--json")[1])
    assert (document["step"], document["digest"], document["fingerprint"]) == (40, checkpoint.digest, checkpoint.fingerprint)
    parent = facts["parent"]
    assert document["parent"] == {"step": 20, "digest": parent["digest"], "run_id": parent["run_id"], "segment": "s00"}
    assert (document["config"], document["bytes"]) == (checkpoint.config, checkpoint.total_bytes)
    assert [(place["kind"], place["is_same"]) for place in document["places"]] == [("published", True), ("work", True), ("mlflow", True)]
    run = document["run"]
    assert (run["state"], run["git"], run["libraries"], run["threads"]) == ("FINISHED", facts["git"], facts["libraries"], 1)
    assert json.loads(matwm_in(made, "show", str(folder), "--json")[1])["run_id"] == facts["run_id"]
    facts_of_both = (checkpoint.digest, facts["git"]["commit"], "simple_tag_v3: adversary_0", str(folder))
    facts_of_all = ("actor_critic.learning_rate: 0.0001", "policies/agent_0.safetensors", f"mpe2 {facts['libraries']['mpe2']}")
    code, output, errors = matwm_in(made, "show", f"{facts['run_id'][:9]}@40", "--all")
    assert (code, errors) == (0, "")
    assert all(text in output for text in (*facts_of_both, *facts_of_all))
    code, output, errors = matwm_in(made, "show", f"{facts['run_id'][:9]}@40")
    assert (code, errors, len(output.splitlines()) <= 24) == (0, "", True)
    assert all(text in output for text in (*facts_of_both, "actor_critic.learning_rate 0.001 → 0.0001"))
    assert not any(text in output for text in facts_of_all)


def test_another_checkpoint_under_the_same_name_is_pointed_out(copied: Project, matwm_in: Matwm) -> None:
    forge(copied.path / "checkpoints/s01" / step_name(60), lambda manifest: manifest["config"].update(seed=8))
    (folder,) = (copied.path / ".matwm/work").glob("s01-*/checkpoints/step_000000060/manifest.json")
    folder.write_text("{", encoding="utf-8")
    output = matwm_in(copied, "show", "s01")[1]
    assert output.count("(ANOTHER checkpoint of that step)") == 1
    assert output.count("(cannot be read)") == 1


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("s01@40", "has no checkpoint of step 40; it has 60"),
        ("s01@soon", "'soon' is no step: use a number, latest or final"),
        ("s01@", "s01@ has no step behind the @"),
        ("s01@٦٠", "is no step"),
        ("s01@-1", "is no step"),
        ("", "no run begins with ''; there are"),
        ("@60", "no run begins with ''; there are"),
        ("s0", "no run begins with 's0', did you mean s0"),
        ("checkpoints/s01", "checkpoints/s01 is not a checkpoint: manifest.json cannot be read"),
        ("checkpoints/root", "checkpoints/root is the root of all lineages, which holds no state"),
        ("../..", "is not a checkpoint"),
        ("s03@final", "is KILLED, so it has no final step; it has 70"),
    ],
)
def test_a_wrong_reference_is_one_sentence(made: Project, matwm_in: Matwm, reference: str, sentence: str) -> None:
    code, _, errors = matwm_in(made, "show", reference)
    assert code == 1
    assert sentence in errors
    assert len(errors.splitlines()) == 1


def test_a_clone_is_told_to_pull(made: Project, tmp_path: Path, matwm_in: Matwm) -> None:
    clone = Project(tmp_path / "clone")
    made.git("clone", "-q", str(made.path), str(clone.path))
    for command in (["show", "s01"], ["diff", "s01", "s02"]):
        code, _, errors = matwm_in(clone, *command)
        assert code == 1
        assert errors.endswith('is not here: run "dvc pull"\n')


def test_a_branch_differs_in_what_was_changed(made: Project, matwm_in: Matwm) -> None:
    document = json.loads(matwm_in(made, "diff", "s01", "s02@60", "--json")[1])
    run = made.json("metrics/s00/run.json")["run_id"]
    assert document["parameters"] == {"actor_critic.learning_rate": {"a": 0.001, "b": 0.0001}}
    assert document["ancestor"] == {"segment": "s00", "run_id": run, "step": 20}
    assert (document["code"], document["code_stat"]) == ({}, "")
    first, second = (open_checkpoint(made.path / f"checkpoints/{name}" / step_name(60)) for name in ("s01", "s02"))
    assert (document["a"]["fingerprint"], document["b"]["fingerprint"]) == (first.fingerprint, second.fingerprint)
    metrics = document["metrics"]
    losses = made.json("metrics/s01/train.json")
    assert metrics["world_model/total"]["a"] == losses["world_model"]["total"]
    returns = {name.split("/")[-1]: pair["a"] for name, pair in metrics.items() if name.startswith("return of 20 episodes/")}
    assert returns == losses["return_of_20_episodes"]
    judged = made.json("metrics/s01/evaluation.json")["sampled"]["self_play"]["agent_0"]["mean"]
    assert metrics["evaluation/sampled/self_play/agent_0"] == {"a": pytest.approx(judged, abs=1e-4), "b": None}


def test_lineages_part_where_they_part(made: Project, matwm_in: Matwm) -> None:
    def ancestor(first: str, second: str) -> tuple[str | None, int]:
        found = json.loads(matwm_in(made, "diff", first, second, "--json")[1])["ancestor"]
        return found["segment"], found["step"]

    assert ancestor("s03", "s02") == ("s00", 20)
    assert ancestor("s03", "s00@40") == ("s00", 40)
    assert ancestor("s00@20", "s03") == ("s00", 20)
    assert ancestor("s02@40", "s02@60") == ("s02", 40)
    assert ancestor("s01", "s01") == ("s01", 60)


def test_the_difference_is_drawn_for_people(made: Project, matwm_in: Matwm) -> None:
    code, output, errors = matwm_in(made, "diff", "s01", f"checkpoints/s02/{step_name(60)}")
    assert (code, errors) == (0, "")
    assert "different training states; common ancestor: s00@20\n" in output
    assert [line.split() for line in output.splitlines() if line.startswith("actor_critic.")] == [
        ["actor_critic.learning_rate", "0.001", "0.0001", "-0.0009", "(-90.0%)"]
    ]
    assert "code: no difference" in output


def test_metrics_are_grouped_by_role_what_changed_most_first(made: Project, matwm_in: Matwm) -> None:
    pairs = json.loads(matwm_in(made, "diff", "s01", "s02", "--json")[1])["metrics"]
    found: dict[str, list[str]] = {}
    for block in matwm_in(made, "diff", "s01", "s02")[1].split("\nmetrics: ")[1:]:
        found[block.split()[0].rstrip(":")] = [line.rsplit("  ")[0].strip() for line in block.splitlines()[1:] if "/" in line]
    assert list(found) == ["adversary", "agent", "replay", "world_model"]
    for group, names in found.items():
        both = [pairs[name] for name in names if None not in pairs[name].values()]
        changes = [abs(pair["b"] - pair["a"]) / max(abs(pair["a"]), abs(pair["b"])) for pair in both]
        assert changes == sorted(changes, reverse=True), group
        assert all(f"/{group}_" in name or name.startswith(f"{group}/") for name in names)
    differing = {name for name, pair in pairs.items() if pair["a"] != pair["b"] and not name.endswith("/stderr")}
    assert {name for names in found.values() for name in names} == differing


def test_only_what_is_asked_for_is_compared(made: Project, matwm_in: Matwm) -> None:
    def names(pattern: str) -> set[str]:
        document = json.loads(matwm_in(made, "diff", "s01", "s02", "--only", pattern, "--json")[1])
        return {*document["parameters"], *document["metrics"]}

    assert names("learning_rate") == {"actor_critic.learning_rate"}
    assert names("world_model/rec*") == {"world_model/reconstruction", "world_model/reconstruction_rmse"}
    assert names("nothing") == set()
    output = matwm_in(made, "diff", "s01", "s02", "--only", "nothing")[1]
    assert output.endswith("\nparameters: no difference\n\ncode: no difference\n\nmetrics: no difference\n")


@pytest.mark.parametrize("command", [["runs"], ["tree"], ["show", "s02"], ["diff", "s01", "s02"]], ids=" ".join)
def test_on_a_terminal_every_line_fits(made: Project, command: list[str]) -> None:
    run_id = made.json("metrics/s02/run.json")["run_id"]
    arguments = [sys.executable, "-m", "pipeline.cli", *command]
    code, seen = on_terminal(arguments, made.path, made.environment())
    lines = plain(seen).splitlines()
    assert (code, max(map(len, lines)) <= 80) == (0, True), seen
    assert run_id[:8] in plain(seen)
    assert len(lines) <= 24 or command[0] == "diff"


def test_code_that_moved_on_is_compared(copied: Project, matwm_in: Matwm) -> None:
    (copied.path / "mlflow.db").unlink()
    (copied.path / "matwm/new.py").write_text("x = 1\n", encoding="utf-8")
    copied.commit("new")
    path = copied.path / "metrics/s02/run.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    facts["git"]["commit"] = copied.git("rev-parse", "HEAD").strip()
    facts["libraries"]["torch"] = "9.9"
    path.write_text(json.dumps(facts), encoding="utf-8")
    output = matwm_in(copied, "diff", "s01", "s02")[1]
    assert " matwm/new.py | 1 +" in output
    assert "torch " in output
    shutil.rmtree(copied.path / ".git")
    assert json.loads(matwm_in(copied, "diff", "s01", "s02", "--json")[1])["code_stat"] is None
