"""`matwm verify` on a real lineage, and on copies of it in which somebody has changed something."""

import dataclasses
import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from matwm.checkpoint import Checkpoint, open_checkpoint
from matwm.stateful import decode_tensors
from matwm.step_names import step_name
from matwm.version import NUMERICS
from pipeline import runs
from pipeline.project import ProjectError
from pipeline.stores.folder_hash import md5s_of, tree_of
from tests.pipeline.lineages import Matwm, forge, replace
from tests.pipeline.projects import Project

AGENTS = "agents.safetensors"


def published(project: Project, segment: str, step: int) -> Path:
    return project.path / "checkpoints" / segment / step_name(step)


def weight(folder: Path) -> tuple[str, str]:
    """Return the file and name of a tensor that a forger would like to change."""
    (name, *_) = sorted(decode_tensors((folder / AGENTS).read_bytes()))
    return AGENTS, name


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    replace(path, (json.dumps(data, indent=2) + "\n").encode())


def edit_lock(project: Project, change: Callable[[dict[str, Any]], object]) -> None:
    path = project.path / "dvc.lock"
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(data["stages"])
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")


def relock(project: Project, segment: str) -> None:
    """Make dvc.lock say what is there now: what an attacker does who can write everything."""

    def change(stages: dict[str, Any]) -> None:
        for out in stages[f"train@{segment}"]["outs"]:
            path = project.path / out["path"]
            out["md5"] = tree_of(md5s_of(path))[0] if path.is_dir() else hashlib.md5(path.read_bytes()).hexdigest()

    edit_lock(project, change)


def without_mlflow(project: Project) -> None:
    (project.path / "mlflow.db").unlink()


# What somebody did to the lineage of s01 (60 <- s00 40, 20 <- root), without MLflow, and what is wrong then.


def flip_a_byte(project: Project) -> None:
    path = published(project, "s01", 60) / AGENTS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    replace(path, bytes(data))


def truncate_an_ancestors_file(project: Project) -> None:
    path = published(project, "s00", 40) / "world_model.safetensors"
    replace(path, path.read_bytes()[:-10])


def remove_a_file_of_an_earlier_step(project: Project) -> None:
    (published(project, "s00", 20) / "policies/agent_0.safetensors").unlink()


def add_a_pickle(project: Project) -> None:
    (published(project, "s00", 40) / "agents.pkl").write_bytes(b"cos\nsystem\n(S'touch stolen'\ntR.")


def replace_a_file_by_a_pickle(project: Project) -> None:
    data = b"cos\nsystem\n(S'touch stolen'\ntR."
    folder = published(project, "s00", 40)
    replace(folder / AGENTS, data)
    facts = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    forge(folder, lambda manifest: manifest["files"].update({AGENTS: facts}))


def name_an_absolute_path(project: Project) -> None:
    forge(published(project, "s01", 60), lambda manifest: manifest["files"].update({"/etc/passwd": manifest["files"].pop(AGENTS)}))


def name_a_path_above(project: Project) -> None:
    forge(published(project, "s01", 60), lambda manifest: manifest["files"].update({"../../x": manifest["files"].pop(AGENTS)}))


def put_a_link(project: Project) -> None:
    path = published(project, "s01", 60) / AGENTS
    path.unlink()
    path.symlink_to(published(project, "s02", 60) / AGENTS)


def forge_the_checkpoint(project: Project) -> None:
    folder = published(project, "s01", 60)
    forge(folder, lambda manifest: None, weight(folder))


def forge_its_parent(project: Project) -> None:
    folder = published(project, "s00", 40)
    forge(folder, lambda manifest: None, weight(folder))
    relock(project, "s00")


def forge_an_earlier_step(project: Project) -> None:
    folder = published(project, "s00", 20)
    forge(folder, lambda manifest: None, weight(folder))


def forge_it_without_dvcs_cache(project: Project) -> None:
    shutil.rmtree(project.path / ".dvc/cache")
    forge_the_checkpoint(project)


def forge_the_configuration(project: Project) -> None:
    forge(published(project, "s01", 60), lambda manifest: manifest["config"].update(seed=9))
    relock(project, "s01")


def forge_the_numerics(project: Project) -> None:
    forge(published(project, "s01", 60), lambda manifest: manifest.update(numerics=NUMERICS + 1))


def claim_another_parent(project: Project) -> None:
    forge(published(project, "s00", 20), lambda manifest: manifest.update(parent={"step": 10, "digest": "a" * 64}))


def rename_a_step(project: Project) -> None:
    shutil.rmtree(published(project, "s01", 60))
    shutil.copytree(published(project, "s00", 40), published(project, "s01", 60))


def change_the_record_of_the_parent(project: Project) -> None:
    edit_json(project.path / "metrics/s01/run.json", lambda facts: facts["parent"].update(digest="b" * 64))


def change_the_record_of_the_key(project: Project) -> None:
    edit_json(project.path / "metrics/s01/run.json", lambda facts: facts.update(key="c" * 64))


def change_the_record_of_the_key_and_the_lock(project: Project) -> None:
    change_the_record_of_the_key(project)
    relock(project, "s01")


def change_the_commit(project: Project) -> None:
    edit_json(project.path / "metrics/s00/run.json", lambda facts: facts["git"].update(commit="d" * 40))


def name_an_option_for_a_commit(project: Project) -> None:
    edit_json(project.path / "metrics/s00/run.json", lambda facts: facts["git"].update(commit="--help"))


def remove_the_record(project: Project) -> None:
    (project.path / "metrics/s00/run.json").unlink()


def garble_the_record(project: Project) -> None:
    (project.path / "metrics/s01/run.json").write_text(
        '{"key": "x", "run_id": 7, "parent": 3, "git": "a", "started": {}}', encoding="utf-8"
    )


def garble_the_lock(project: Project) -> None:
    (project.path / "dvc.lock").write_text("stages: 7\n", encoding="utf-8")


def garble_an_entry_of_the_lock(project: Project) -> None:
    edit_lock(project, lambda stages: stages["train@s01"].update(outs=3))


def change_a_curve(project: Project) -> None:
    path = project.path / "metrics/s01/training.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("1", "2", 1), encoding="utf-8")


def change_an_evaluation(project: Project) -> None:
    edit_json(project.path / "metrics/s01/evaluation.json", lambda found: found.update(step=61))


def remove_a_curve(project: Project) -> None:
    (project.path / "metrics/s00/episodes.csv").unlink()


def add_a_step(project: Project) -> None:
    shutil.copytree(published(project, "s00", 40), published(project, "s01", 60).with_name("notes"))


def change_params(project: Project) -> None:
    project.edit("actor_critic.discount", 0.9)


def change_the_locks_params(project: Project) -> None:
    edit_lock(project, lambda stages: stages["train@s00"]["params"]["params.yaml"].update(seed=4))


def change_the_locks_dependency(project: Project) -> None:
    def change(stages: dict[str, Any]) -> None:
        next(dep for dep in stages["train@s01"]["deps"] if dep["path"].startswith("checkpoints/")).update(md5=f"{'e' * 32}.dir")

    edit_lock(project, change)


def change_the_root(project: Project) -> None:
    (project.path / "checkpoints/root/notes.txt").write_text("x", encoding="utf-8")


def lose_the_parent(project: Project) -> None:
    shutil.rmtree(project.path / "checkpoints/s00")
    shutil.rmtree(next((project.path / ".matwm/work").glob("s00-*")))


TAMPERINGS: list[tuple[Callable[[Project], None], str]] = [
    (flip_a_byte, f"checkpoints/s01/step_000000060/{AGENTS} is damaged: it has sha256"),
    (truncate_an_ancestors_file, "checkpoints/s00/step_000000040/world_model.safetensors is damaged: it has"),
    (remove_a_file_of_an_earlier_step, "checkpoints/s00/step_000000020/policies/agent_0.safetensors is missing"),
    (add_a_pickle, "checkpoints/s00/step_000000040/agents.pkl is not listed in manifest.json"),
    (replace_a_file_by_a_pickle, "checkpoints/s00/step_000000040 is not the checkpoint that s01"),
    (name_an_absolute_path, "manifest.json is damaged: files lists or lacks '/etc/passwd'"),
    (name_a_path_above, "manifest.json is damaged: files lists or lacks '../../x'"),
    (put_a_link, f"{AGENTS} is a link or no file"),
    (forge_the_checkpoint, f"checkpoints/s01/step_000000060/{AGENTS} has the md5"),
    (forge_its_parent, "checkpoints/s00/step_000000040 is not the checkpoint that s01"),
    (forge_an_earlier_step, f"checkpoints/s00/step_000000020/{AGENTS} has the md5"),
    (forge_it_without_dvcs_cache, "checkpoints/s01 has the md5"),
    (forge_the_configuration, "checkpoints/s01/step_000000060 is not of s01"),
    (forge_the_numerics, "checkpoints/s01/step_000000060 is not of s01"),
    (claim_another_parent, "checkpoints/s00/step_000000020 is not of s00"),
    (rename_a_step, "checkpoints/s01/step_000000060 holds a checkpoint of step 40: it was renamed or replaced"),
    (change_the_record_of_the_parent, "metrics/s01/run.json says that s01"),
    (change_the_record_of_the_key, "metrics/s01/run.json says that s01"),
    (change_the_record_of_the_key_and_the_lock, "metrics/s01/run.json says that s01"),
    (change_the_commit, "was trained on the commit dddddddddddd, which this repository does not have"),
    (name_an_option_for_a_commit, "was trained on the commit '--help', which is none"),
    (remove_the_record, "metrics/s00/run.json is missing or is of another training, though dvc.lock has s00"),
    (garble_the_record, "metrics/s01/run.json is missing or is of another training, though dvc.lock has s01"),
    (garble_the_lock, 'dvc.lock cannot be read: "git checkout dvc.lock" brings it back'),
    (garble_an_entry_of_the_lock, "dvc.lock: train@s01 has no checkpoints/s01"),
    (change_a_curve, "metrics/s01/training.csv has the md5"),
    (change_an_evaluation, "metrics/s01/evaluation.json has the md5"),
    (remove_a_curve, "metrics/s00/episodes.csv is missing, though dvc.lock has it"),
    (add_a_step, "checkpoints/s01/notes/agents.safetensors is not among what DVC has recorded"),
    (change_params, "params.yaml: actor_critic.discount is 0.9, but dvc.lock says that s01 was trained with"),
    (change_the_locks_params, "params.yaml: seed is 0, but dvc.lock says that s00 was trained with 4"),
    (change_the_locks_dependency, "checkpoints/s00/step_000000040 has the md5"),
    (change_the_root, "checkpoints/root is a root that holds more than a root does"),
    (lose_the_parent, ', with which s01 ({s01}) began, is not here: run "dvc pull"'),
]


def run_id(project: Project, segment: str) -> str:
    return project.json(f"metrics/{segment}/run.json")["run_id"]


def test_what_was_trained_is_right_back_to_the_root(made: Project, matwm_in: Matwm) -> None:
    code, output, errors = matwm_in(made, "verify", "s01")
    lines = [line.split() for line in output.splitlines()]
    assert (code, errors) == (0, "")
    shown = [(line[1], line[line.index("step") + 1], line[-1]) for line in lines[:-1]]
    assert shown == [
        ("s01", "60", "checkpoints/s01/step_000000060"),
        ("s00", "40", "checkpoints/s00/step_000000040"),
        ("s00", "20", "checkpoints/s00/step_000000020"),
        ("root", "0", "checkpoints/root"),
    ]
    assert output.splitlines()[-1].startswith("4 checkpoints, ")


def test_every_way_to_name_a_checkpoint_gives_the_same_document(made: Project, matwm_in: Matwm) -> None:
    run, folder = run_id(made, "s02"), published(made, "s02", 60)
    documents = [json.loads(matwm_in(made, "verify", name, "--json")[1]) for name in (f"{run[:7]}@60", "s02@final", "s02@latest", run)]
    assert all(document == documents[0] for document in documents)
    document = documents[0]
    checkpoint = open_checkpoint(folder)
    assert (document["ok"], document["wrong"], document["warnings"], document["deep"]) == (True, None, [], None)
    assert document["checkpoints"][0] == {
        "segment": "s02",
        "run_id": run,
        "step": 60,
        "digest": checkpoint.digest,
        "fingerprint": checkpoint.fingerprint,
        "bytes": checkpoint.total_bytes,
        "place": "checkpoints/s02/step_000000060",
        "kind": "published",
    }
    assert [(one["segment"], one["step"]) for one in document["checkpoints"]] == [("s02", 60), ("s02", 40), ("s00", 20), (None, 0)]
    for path in (folder, made.path / "metrics/../checkpoints/s02" / f"{step_name(60)}/"):
        named = json.loads(matwm_in(made, "verify", str(path), "--json")[1])
        assert (named["ok"], named["warnings"]) == (True, [])
        assert [(one["segment"], one["step"]) for one in named["checkpoints"]] == [("s02", 60), ("s00", 20), (None, 0)]


@pytest.mark.parametrize(("tamper", "sentence"), TAMPERINGS, ids=[tamper.__name__ for tamper, _ in TAMPERINGS])
def test_the_first_thing_that_is_wrong_is_named(copied: Project, matwm_in: Matwm, tamper: Callable[[Project], None], sentence: str) -> None:
    run = run_id(copied, "s01")
    without_mlflow(copied)
    tamper(copied)
    code, output, errors = matwm_in(copied, "verify", "s01")
    assert code == 1, output
    (wrong,) = [line for line in errors.splitlines() if line.startswith("wrong: ")]
    assert sentence.format(s01=run[:12]) in wrong
    assert "all as recorded" not in output
    assert not list(copied.path.rglob("stolen"))


def test_nothing_is_wrong_without_tampering(copied: Project, matwm_in: Matwm) -> None:
    without_mlflow(copied)
    assert matwm_in(copied, "verify", "s01")[0] == 0


def test_mlflows_copy_gives_away_who_could_write_everything_else(copied: Project, matwm_in: Matwm) -> None:
    forge_the_checkpoint(copied)
    shutil.rmtree(copied.path / ".dvc/cache")
    relock(copied, "s01")
    edit_lock(copied, lambda stages: stages.pop("evaluate@s01"))
    code, _, errors = matwm_in(copied, "verify", "s01")
    assert code == 1
    assert "wrong: checkpoints/s01/step_000000060 is not the checkpoint that MLflow has" in errors


def test_a_commit_in_git_must_be_the_one_that_mlflow_has(copied: Project, matwm_in: Matwm) -> None:
    with sqlite3.connect(copied.path / "mlflow.db") as database:
        database.execute("delete from tags where key = 'matwm.git_commit'")
        database.execute("insert into tags values ('matwm.git_commit', ?, ?)", ("c" * 40, run_id(copied, "s00")))
    change_the_commit(copied)
    code, _, errors = matwm_in(copied, "verify", "s01")
    assert (code, f"was trained on the commit {'d' * 40}, MLflow's tags say {'c' * 40}" in errors) == (1, True)


def test_mlflows_tags_must_agree(copied: Project, matwm_in: Matwm) -> None:
    with sqlite3.connect(copied.path / "mlflow.db") as database:
        database.execute("update tags set value = ? where key = 'matwm.parent_digest' and run_uuid = ?", ("f" * 64, run_id(copied, "s01")))
    code, _, errors = matwm_in(copied, "verify", "s01")
    assert (code, "wrong: MLflow's tags say that s01" in errors) == (1, True)


def test_every_metric_point_is_compared_with_mlflow(copied: Project, matwm_in: Matwm) -> None:
    run, uri = run_id(copied, "s01"), f"sqlite:///{copied.path / 'mlflow.db'}"
    first = runs.metric_history(run, uri)[0]
    runs.client(uri).log_metric(run, first.key, first.value, first.timestamp_ms + 1, first.step)
    code, out, _ = matwm_in(copied, "verify", "s01", "--json")
    (warning,) = json.loads(out)["warnings"]
    assert (code, warning) == (
        0,
        f"metric points of run {run[:12]} in MLflow are there more than once: 1, first {first.key} at step {first.step}",
    )


def test_an_interrupted_run_is_verified_where_it_lies(made: Project, copied: Project, matwm_in: Matwm) -> None:
    code, output, errors = matwm_in(made, "verify", "s03")
    assert code == 0
    assert [line.split()[1] for line in output.splitlines()[:-1]] == ["s03", "s01", "s00", "s00", "root"]
    assert "says that it is what was trained: neither dvc.lock" in errors, "MLflow's copy is the same file"
    assert matwm_in(made, "verify", "s03", "--strict")[0] == 1
    assert matwm_in(made, "verify", "s03@final")[2].endswith("is KILLED, so it has no final step; it has 70\n")
    assert matwm_in(copied, "verify", "s03")[2] == ""
    (folder,) = (copied.path / ".matwm/work").glob("s03-*/checkpoints/step_000000070")
    forge(folder, lambda manifest: None, weight(folder))
    code, _, errors = matwm_in(copied, "verify", "s03")
    assert (code, "is not the checkpoint that MLflow has" in errors) == (1, True)


def test_an_ancestor_that_is_not_here_is_found_in_mlflow(copied: Project, matwm_in: Matwm) -> None:
    lose_the_parent(copied)
    document = json.loads(matwm_in(copied, "verify", "s01", "--json")[1])
    assert (document["ok"], [one["kind"] for one in document["checkpoints"]]) == (True, ["published", "mlflow", "mlflow", "root"])


def test_a_clone_is_told_to_pull(made: Project, tmp_path: Path, matwm_in: Matwm) -> None:
    clone = Project(tmp_path / "clone")
    made.git("clone", "-q", str(made.path), str(clone.path))
    code, output, errors = matwm_in(clone, "verify", "s01")
    assert (code, output) == (1, "")
    assert errors == f'wrong: the checkpoint of step 60 of s01 ({run_id(made, "s01")[:12]}) is not here: run "dvc pull"\n'
    assert "s03 has no checkpoint: it is not trained yet" in matwm_in(clone, "verify", "s03")[2]


def test_uncertain_code_is_a_warning(copied: Project, matwm_in: Matwm) -> None:
    without_mlflow(copied)

    def spoil(facts: dict[str, Any]) -> None:
        facts["git"]["dirty"] = True
        facts["libraries"]["torch"] = "1.0"

    edit_json(copied.path / "metrics/s00/run.json", spoil)
    relock(copied, "s00")
    code, _, errors = matwm_in(copied, "verify", "s01")
    lines = errors.splitlines()
    assert code == 0
    assert len(lines) == 2
    assert "was not trained as its parent s00" in lines[0]
    assert "torch 1.0, now" in lines[0]
    assert "with changes that are not in it" in lines[1]
    assert matwm_in(copied, "verify", "s01", "--strict", "--json")[0] == 1


def test_an_import_must_be_what_its_dvc_file_says(copied: Project, matwm_in: Matwm) -> None:
    run = run_id(copied, "s02")
    folder = copied.path / "imports" / run / step_name(40)
    shutil.copytree(published(copied, "s02", 40), folder)
    copied.dvc("add", str(folder.relative_to(copied.path)))
    for place in ("checkpoints/s02", "metrics/s02"):
        shutil.rmtree(copied.path / place)
    edit_lock(copied, lambda stages: stages.pop("train@s02"))
    without_mlflow(copied)
    code, output, errors = matwm_in(copied, "verify", str(folder))
    assert (code, errors) == (0, f"warning: no record here says on which code s02 ({run[:12]}) was trained\n")
    assert [line.split()[1] for line in output.splitlines()[:-1]] == ["s02", "s00", "root"]
    forge(folder, lambda manifest: None, weight(folder))
    assert f"wrong: imports/{run}/{step_name(40)}/{AGENTS} has the md5" in matwm_in(copied, "verify", str(folder))[2]
    folder.with_name(f"{folder.name}.dvc").unlink()
    assert "is missing or damaged" in matwm_in(copied, "verify", str(folder))[2]


def test_training_again_gives_the_same(made: Project, matwm_in: Matwm) -> None:
    for name, from_step in (("s02@60", 40), ("s02@40", 20), ("s01", 40), ("s00@20", 0), ("s03", 60)):
        document = json.loads(matwm_in(made, "verify", name, "--deep", "--json")[1])
        assert (document["ok"], document["deep"]["is_equal"], document["deep"]["from_step"]) == (True, True, from_step)


def test_what_no_training_can_repeat_is_said_and_not_tried(made: Project, matwm_in: Matwm, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = dataclasses.replace(open_checkpoint(published(made, "s00", 20)).spec, resume="episode")
    monkeypatch.setattr(Checkpoint, "spec", spec)
    code, output, _ = matwm_in(made, "verify", "s00@20", "--deep", "--json")
    document = json.loads(output)
    assert (code, document["ok"], document["deep"]) == (0, True, None)
    assert "what is interrupted or branched is continued, not reproduced bit for bit" in document["warnings"][-1]
    code, output, errors = matwm_in(made, "verify", "s00@20", "--deep", "--strict")
    assert (code, "trained again" in output) == (1, False)
    assert "warning: the last interval was not trained again" in errors


def test_what_cannot_be_trained_again_is_in_the_document(made: Project, matwm_in: Matwm, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ProjectError("cannot be trained again here: no memory")

    monkeypatch.setattr("pipeline.catalog.retrain.retrain", refuse)
    code, output, _ = matwm_in(made, "verify", "s02", "--deep", "--json")
    document = json.loads(output)
    assert (code, document["ok"], document["wrong"]) == (1, False, "cannot be trained again here: no memory")
    assert document["checkpoints"][-1]["kind"] == "root"


def test_training_again_gives_away_a_forgery_that_nothing_else_shows(copied: Project, matwm_in: Matwm) -> None:
    without_mlflow(copied)
    folder = published(copied, "s01", 60)
    name = weight(folder)
    shutil.rmtree(copied.path / ".dvc/cache")
    forge(folder, lambda manifest: None, name)
    relock(copied, "s01")
    edit_lock(copied, lambda stages: stages.pop("evaluate@s01"))
    edit_json(copied.path / "metrics/s01/run.json", lambda facts: facts["libraries"].update(torch="1.0"))
    relock(copied, "s01")
    assert matwm_in(copied, "verify", "s01")[0] == 0
    code, _, errors = matwm_in(copied, "verify", "s01", "--deep")
    assert code == 1
    assert f"agents/{name[1]} differs: " in errors
    assert "it was trained with torch 1.0, now " in errors
