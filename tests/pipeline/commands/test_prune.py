"""`matwm prune` and `matwm pin`, as typed, in a project that has trained."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from matwm.checkpoint import open_checkpoint
from matwm.step_names import step_name
from pipeline import cli, runs
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.pruning import prunable
from pipeline.project import ProjectError
from pipeline.stores import mlflow
from tests.pipeline import in_mlflow
from tests.pipeline.projects import StopAfter
from tests.pipeline.test_train import ROOT, facts, project, run, steps_counted, work, write

__all__ = ["project"]
Matwm = Callable[..., tuple[int, str, str]]
LONG = {"s00": {"from": ROOT, "until": 200}}


@pytest.fixture
def matwm(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Matwm:
    """A function that types a command in the project and returns exit code, output and errors."""
    monkeypatch.chdir(project)

    def typed(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = cli.main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return typed


def in_work(project: Path, name: str = "s00") -> list[int]:
    return [int(path.name[5:]) for path in sorted((work(project, name) / "checkpoints").glob("step_*"))]


def kept(matwm: Matwm, *arguments: str) -> dict[int, list[str]]:
    code, out, _ = matwm("prune", "--json", *arguments)
    assert code == 0
    return {row["step"]: row["kept"] for found in json.loads(out)["runs"] for row in found["checkpoints"]}


def test_the_default_is_what_params_yaml_says_and_changes_nothing(project: Path, matwm: Matwm) -> None:
    code, _, errors = matwm("prune")
    assert (code, errors[-50:]) == (1, 'does not exist: write one with "matwm preset cpu-small"\n'[-50:])
    write(project, LONG, {"retention": {"keep_last": 1, "keep_every": 80}})
    assert matwm("prune") == (0, "no run has a checkpoint\n", "")
    run(project)
    before = {path for path in project.rglob("*") if ".prune" not in str(path)}
    code, out, _ = matwm("prune")
    assert code == 0
    assert [line.split()[2] for line in out.splitlines() if line.endswith("- goes")] == ["40", "120"]
    assert "would remove 2 of 5 checkpoints, which frees" in out
    assert "Nothing has been changed: add --yes to remove them." in out
    assert {path for path in project.rglob("*") if ".prune" not in str(path)} == before
    assert json.loads(matwm("prune", "--json")[1])["removed"] is False


def test_what_goes_is_gone_from_mlflow_and_the_work_directory_and_is_not_missed(
    project: Path, matwm: Matwm, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(project, LONG, {"retention": {"keep_last": 2}})
    run(project)
    used = disk_usage(project)
    code, out, _ = matwm("prune", "--yes", "--json")
    answer: dict[str, Any] = json.loads(out)
    assert (code, answer["removed"]) == (0, True)
    assert used - disk_usage(project) == answer["freed"] > 0
    assert in_mlflow.steps(facts(project)["run_id"]) == in_work(project) == [160, 200]
    with steps_counted(monkeypatch) as taken:
        assert run(project) == 0
    assert (taken, in_mlflow.steps(facts(project)["run_id"])) == ([], [160, 200])
    write(project, {"s00": {"from": ROOT, "until": 240}}, {"retention": {"keep_last": 2}})
    with steps_counted(monkeypatch) as taken:
        assert run(project) == 0
    assert taken == list(range(201, 241))
    assert kept(matwm)[160] == []


def test_what_has_another_name_in_dvcs_cache_frees_nothing_and_says_so(project: Path, matwm: Matwm) -> None:
    write(project, LONG, {"retention": {"keep_last": 1}})
    run(project)
    shutil.copytree(work(project) / "checkpoints" / step_name(40), project / "cache", copy_function=lambda a, b: Path(b).hardlink_to(a))
    answer = json.loads(matwm("prune", "--json")[1])
    assert answer["elsewhere"] > 0
    assert "DVC's cache is DVC's business: \"dvc gc --all-commits --all-experiments\" removes" in matwm("prune")[1]


def test_a_child_keeps_its_ancestor_and_what_is_interrupted_keeps_what_it_will_publish(
    project: Path, matwm: Matwm, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = {**LONG, "s01": {"from": f"checkpoints/s00/{step_name(70)}", "until": 190}}
    write(project, chain, {"retention": {"keep_last": 1, "keep_every": 40}})
    run(project)
    run(project, "s01", StopAfter(60))
    write(project, {"s00": {**LONG["s00"], "override": {"retention": {"keep_every": None}}}}, {"retention": {"keep_last": 1}})
    run(project)
    child = next(info.run_id for info in runs.list_runs() if info.segment == "s01")
    found = kept(matwm, facts(project)["run_id"])
    assert found[70] == [f"ancestor of {child[:12]} (s01)"]
    assert (found[40], found[200][:2]) == ([], ["newest", "keep_last"])
    matwm("prune", "--keep-last", "1", "--yes")
    assert in_work(project) == in_mlflow.steps(facts(project)["run_id"]) == [70, 200]
    assert in_work(project, "s01") == [130]
    write(project, chain, {"retention": {"keep_last": 1}})
    shutil.rmtree(project / "checkpoints/s00")
    assert run(project) == 0
    with steps_counted(monkeypatch) as taken:
        assert run(project, "s01") == 0
    assert taken == list(range(131, 191))


def test_flags_do_not_take_what_a_segment_of_params_yaml_will_publish(project: Path, matwm: Matwm) -> None:
    write(project, LONG)
    run(project, interruption=StopAfter(170))
    found = kept(matwm, "--keep-last", "1")
    assert found == {40: ["to be published"], 80: ["to be published"], 120: ["to be published"], 160: ["to be published"],
                     170: ["newest", "keep_last", "newest sound"]}  # fmt: skip
    code, out, errors = matwm("prune", "--keep-last", "1")
    assert errors == (
        "4 checkpoints that the flags would let go stay, because params.yaml publishes them: lower retention.keep_last there\n"
    )
    assert [line.split()[2] for line in out.splitlines()[:2]] == ["step", "170"]
    assert out.splitlines()[2:] == [
        "4 more stay: still to be published (--json lists all)",
        "nothing goes: all 5 checkpoints stay",
    ]
    assert kept(matwm)[40] == ["all"]


def test_a_run_that_params_yaml_does_not_describe_needs_flags(project: Path, matwm: Matwm) -> None:
    write(project)
    run(project)
    first = facts(project)["run_id"]
    write(project, changes={"seed": 7})
    run(project)
    assert kept(matwm, first[:8]) == {40: ["no policy"], 80: ["no policy"]}
    assert "give --keep-last, --keep-every or --keep-best for them" in matwm("prune")[1]
    assert kept(matwm, first[:8], "--keep-best", "0") == {40: [], 80: ["newest", "newest sound"]}
    matwm("prune", first[:8], "--keep-best", "0", "--yes")
    assert (in_mlflow.steps(first), in_mlflow.steps(facts(project)["run_id"])) == ([80], [40, 80])
    assert open_checkpoint(project / "checkpoints/s00" / step_name(40)).step == 40


def test_a_pin_stays_until_it_is_taken_away(project: Path, matwm: Matwm) -> None:
    write(project, LONG, {"retention": {"keep_last": 1}})
    run(project)
    run_id = facts(project)["run_id"]
    who = f"run {run_id[:12]} (s00)"
    assert matwm("pin", f"{run_id[:8]}@80", "--note", "figure  3") == (0, f"step 80 of {who} is pinned: matwm prune keeps it\n", "")
    assert kept(matwm)[80] == ["pinned: figure 3"]
    assert "pinned: figure 3" in matwm("prune", "--yes")[1]
    assert in_mlflow.steps(run_id) == in_work(project) == [80, 200]
    assert matwm("pin", "--remove", f"{run_id[:8]}@200") == (1, "", f"step 200 of {who} is not pinned; pinned: 80\n")
    assert matwm("pin", f"{run_id[:8]}@40") == (1, "", f"s00 ({run_id[:12]}) has no checkpoint of step 40; it has 80, 200\n")
    pinned = {"run_id": run_id, "segment": "s00", "step": 200, "is_pinned": True, "note": "best"}
    assert json.loads(matwm("pin", "s00", "--note", "best", "--json")[1]) == pinned
    assert json.loads(matwm("pin", "s00@200", "--remove", "--json")[1]) == {**pinned, "is_pinned": False, "note": None}
    assert matwm("pin", "s00")[1] == f"step 200 of {who} is pinned: matwm prune keeps it\n", "as everywhere: the latest"
    for step in ("²", "9" * 5000, "4.0", "-80"):
        code, out, errors = matwm("pin", "--remove", f"{run_id[:8]}@{step}")
        assert (code, out, errors.splitlines()[1:]) == (1, "", [])
        assert errors.startswith(f"{step!r} is no step: use a number, latest or final; ")
    assert matwm("pin", "--remove", f"{run_id[:8]}@200")[0] == 0
    assert matwm("pin", "--remove", f"{run_id[:8]}@")[2].startswith(f"{run_id[:8]}@ has no step behind the @")
    assert matwm("pin", "--remove", f"{run_id[:8]}@80")[:2] == (0, f"step 80 of {who} is no longer pinned\n")
    assert kept(matwm)[80] == []


def test_a_copied_project_does_not_touch_what_the_original_keeps(
    project: Path, matwm: Matwm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(project, LONG, {"retention": {"keep_last": 1}})
    run(project)
    run_id = facts(project)["run_id"]
    copy = tmp_path / "copy"
    shutil.copytree(project, copy)
    matwm("pin", f"{run_id}@40")
    monkeypatch.chdir(copy)
    code, out, errors = matwm("prune")
    assert code == 0
    assert "Nothing has been changed: add --yes to remove them." in out
    assert f"MLflow's database here leads to {project / 'mlruns'}" in errors
    assert matwm("prune", "--yes")[:2] == (1, "")
    assert in_work(copy) == in_work(project) == [40, 80, 120, 160, 200]
    catalog = Catalog(copy)
    (one,) = catalog.all()
    (artifacts,) = [store for store in prunable(catalog).stores if store.kind == "mlflow"]
    with pytest.raises(ProjectError, match=r"not beside it.*Nothing is removed: \"matwm doctor\" says what to do"):
        artifacts.delete(one, [40], is_live=False)
    artifacts.delete(one, [], is_live=False)
    (copy / "mlflow.db").rename(copy / "mlflow.db.before")
    matwm("doctor", "--fix")
    assert matwm("prune", "--yes")[::2] == (0, "")
    (one,) = Catalog(copy).all()
    assert (one.former_id, in_mlflow.steps(one.id), in_work(copy)) == (run_id, [200], [200])
    monkeypatch.chdir(project)
    runs.configure(project)
    assert in_mlflow.steps(run_id) == in_work(project) == [40, 80, 120, 160, 200]


def test_the_doctor_misses_a_pinned_checkpoint_that_is_nowhere(project: Path, matwm: Matwm) -> None:
    write(project)
    run(project)
    run_id = facts(project)["run_id"]
    matwm("pin", "s00@40")
    assert "pinned" not in matwm("doctor")[1]
    for folder in ("work", "mlruns", "checkpoints"):
        for path in (project if folder != "work" else project / ".matwm").glob(f"{folder}/**/{step_name(40)}"):
            assert "pinned" not in matwm("doctor")[1]
            shutil.rmtree(path)
    assert f"PROBLEM {run_id[:12]}@40 is pinned, but neither MLflow" in matwm("doctor")[1]
    assert matwm("pin", "--remove", f"{run_id[:12]}@40")[0] == 0
    assert "pinned" not in matwm("doctor")[1]


def test_artifacts_behind_a_link_to_another_disk_are_the_projects_own(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "project").mkdir()
    (tmp_path / "project/mlruns").symlink_to(tmp_path / "disk")
    (tmp_path / "other way").symlink_to(tmp_path / "project")
    uri = f"sqlite:///{tmp_path / 'project'}/mlflow.db"
    assert mlflow.elsewhere(f"{tmp_path}/project/mlruns/matwm/a/artifacts", uri) is None
    assert mlflow.elsewhere(f"{tmp_path}/other way/mlruns/matwm/a/artifacts", uri) is None
    assert mlflow.elsewhere(f"{tmp_path}/project/mlruns/../../other/mlruns/matwm/a/artifacts", uri)
    assert mlflow.elsewhere(f"{tmp_path}/disk/matwm/a/artifacts", uri)
    assert mlflow.elsewhere(f"{tmp_path}/disk/matwm/a/artifacts", "http://127.0.0.1:5000") is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--keep-last", "-1"], "'-1' is no whole number from 0"),
        (["--keep-last", "x"], "'x' is no whole number from 0"),
        (["--keep-every", "0"], "'0' is no whole number from 1"),
        (["--keep-worst", "1"], "unrecognized arguments"),
        (["nobody"], "no run begins with 'nobody'"),
        (["s00@40"], "'s00@40' names a step, and this takes a run without one: write s00"),
        (["s00@"], "'s00@' names a step, and this takes a run without one: write s00"),
    ],
)
def test_what_is_mistyped_is_refused_in_a_sentence(project: Path, matwm: Matwm, arguments: list[str], words: str) -> None:
    write(project)
    code, out, errors = matwm("prune", *arguments)
    assert code
    assert not out
    assert words in errors


def disk_usage(folder: Path) -> int:
    found = {stat.st_ino: stat for path in folder.rglob("step_*/**/*") if path.is_file() for stat in [path.stat()]}
    return sum(stat.st_blocks * 512 for stat in found.values())
