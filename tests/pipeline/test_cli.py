"""The `matwm` command: what it prints and writes, and that what it refuses leaves nothing behind."""

import json
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from matwm.checkpoint import open_checkpoint
from matwm.params_yaml import PRESETS, parse_config, read_params
from matwm.scenarios import complete_options
from matwm.step_names import step_name
from matwm.version import NUMERICS
from pipeline import cli, runs, tracking
from pipeline.commands import repro
from pipeline.params import params_file
from pipeline.process import Interruption
from pipeline.project import ProjectError
from pipeline.train import train
from tests.pipeline.projects import SOURCE, Project, tiny_params

ROOT = "checkpoints/root"


class Terminal:
    """A standard input at which somebody sits."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return self.answer


@pytest.fixture
def matwm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A function that runs the command in a folder and returns exit code, output and errors."""

    def call(folder: Path, *arguments: str) -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(runs, "_configured", {})  # as in a process of its own
            capsys.readouterr()
            code = cli.main(arguments)
            return code, *capsys.readouterr()

    return call


Matwm = Callable[..., tuple[int, str, str]]


def test_outside_a_project_it_says_so(tmp_path: Path, matwm: Matwm) -> None:
    code, _, errors = matwm(tmp_path, "validate")
    assert (code, errors) == (
        1,
        f'{tmp_path} is not inside a MATWM project: no folder at or above it has a dvc.yaml; "matwm init DIR" makes one\n',
    )


def test_in_a_folder_that_is_deleted_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert cli.main(["runs"]) == 1
    assert capsys.readouterr().err == "the folder that this command was typed in is deleted: change to one that is there (cd)\n"


def test_a_preset_replaces_a_preset_but_no_work(tmp_path: Path, matwm: Matwm, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dvc.yaml").touch()
    params = tmp_path / "params.yaml"
    below = tmp_path / "notes"
    below.mkdir()
    assert matwm(below, "preset", "ci-tiny")[0] == 0
    assert matwm(tmp_path, "preset", "paper")[0] == 0
    assert params.read_bytes() == (PRESETS / "paper.yaml").read_bytes()
    params.write_text("seed: 1\n", encoding="utf-8")
    code, _, errors = matwm(tmp_path, "preset", "ci-tiny")
    assert (code, errors) == (1, "params.yaml has been changed and would be overwritten: add --force, or keep a copy of it first\n")
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert matwm(tmp_path, "preset", "ci-tiny")[0] == 1
    assert params.read_text(encoding="utf-8") == "seed: 1\n"
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert matwm(tmp_path, "preset", "ci-tiny")[0] == 0
    params.write_text("seed: 1\n", encoding="utf-8")
    assert matwm(tmp_path, "preset", "cpu-small", "--force")[0] == 0
    assert params.read_bytes() == (PRESETS / "cpu-small.yaml").read_bytes()
    code, _, errors = matwm(tmp_path, "preset", "cpu-smal")
    assert (code, errors) == (1, "there is no preset 'cpu-smal', did you mean cpu-small?\n")


def test_a_preset_for_a_scenario_has_options_that_fit_it(tmp_path: Path, matwm: Matwm) -> None:
    (tmp_path / "dvc.yaml").touch()
    assert matwm(tmp_path, "preset", "ci-tiny", "--env", "simple_spread_v3")[0] == 0
    tag, spread = (read_params(path) for path in (PRESETS / "ci-tiny.yaml", tmp_path / "params.yaml"))
    assert (spread["env"]["family"], spread["env"]["name"]) == ("mpe", "simple_spread_v3")
    assert set(spread["env"]["options"]) == set(complete_options("mpe", "simple_spread_v3", {}))
    assert spread["env"]["options"]["max_cycles"] == tag["env"]["options"]["max_cycles"], "as the preset has it"
    assert spread.keys() == tag.keys() and all(spread[key] == tag[key] for key in tag if key != "env")
    assert parse_config(spread).env.num_agents == 3
    before = (tmp_path / "params.yaml").read_bytes()
    code, _, errors = matwm(tmp_path, "preset", "cpu-small", "--env", "simple_spred_v3", "--force")
    assert (code, errors) == (1, "there is no scenario 'simple_spred_v3', did you mean simple_spread_v3?\n")
    assert (tmp_path / "params.yaml").read_bytes() == before
    assert matwm(tmp_path, "preset", "cpu-small", "--env", "mine.module:parallel_env", "--force")[0] == 0
    assert read_params(tmp_path / "params.yaml")["env"] | {"seconds_per_call": 0} == {
        "family": "pettingzoo", "name": "mine.module:parallel_env", "options": {}, "seconds_per_call": 0,
    }  # fmt: skip


def test_the_committed_parameters_are_the_default_preset() -> None:
    assert (SOURCE / "params.yaml").read_bytes() == (PRESETS / "cpu-small.yaml").read_bytes()


@pytest.mark.parametrize(
    ("text", "added_after"),
    [
        ("segments:\n  s00: {from: a, until: 1}\n", 2),
        ("segments:   # lineage\n    s00: {from: a, until: 1}  # first", 2),
        ("segments:\n  s00:\n    from: a\n    until: 1\n    override:\n      seed: 2 # why\n# the end\n", 6),
        ("segments:\n  s00: {from: a,\n    until: 1}\n\nseed: 0\n", 3),
        ("segments: {s00: {from: a, until: 1}}\n", None),
        ("seed: 1\n", None),
    ],
)
def test_a_segment_is_one_more_line(text: str, added_after: int | None) -> None:
    entry = {"from": "checkpoints/s00/step_000000001", "until": 2, "override": {"actor_critic": {"learning_rate": 3e-5}}}
    if added_after is None:
        with pytest.raises(ProjectError, match="append s01 by hand"):
            params_file.with_segment(text, "s01", entry)
        return
    changed = params_file.with_segment(text, "s01", entry)
    lines = changed.splitlines()
    assert "learning_rate: 3.0e-05" in lines.pop(added_after)
    assert lines == text.splitlines()
    assert yaml.safe_load(changed)["segments"]["s01"] == entry


class Trained:
    """A project with one trained segment, as DVC would leave it."""

    def __init__(self, path: Path, store: Path) -> None:
        self.project = Project.create(path, tiny_params(), store)
        self.path = path
        self.train("s00")
        run = self.project.json("metrics/s00/run.json")
        self.run_id: str = run["run_id"]
        self.lock_current()

    def train(self, name: str) -> None:
        assert train(self.path, name, Interruption()) == 0

    def lock_current(self) -> None:
        """Write the part of dvc.lock that says that the parameters are the trained ones."""
        params = self.project.params()
        recorded = {key: params[key] for key in ("seed", "env", "world_model", "actor_critic")} | {
            "segments.s00": params["segments"]["s00"]
        }
        entry = {"cmd": "train", "params": {"params.yaml": recorded, "matwm/version.py": {"NUMERICS": NUMERICS}}}
        (self.path / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {"train@s00": entry}}), encoding="utf-8")


@pytest.fixture
def trained(tmp_path: Path, store_template: Path) -> Trained:
    """A project with one trained segment."""
    return Trained(tmp_path / "project", store_template)


def test_runs_and_fingerprints_are_told(trained: Trained, matwm: Matwm) -> None:
    path, run_id = trained.path, trained.run_id
    code, output, _ = matwm(path, "runs", "--json")
    (told,) = json.loads(output)
    expected = {"run_id": run_id, "segment": "s00", "parent_run_id": None, "parent_step": None, "status": "FINISHED", "step": 80}
    expected |= {"until": 80, "published": [40, 80], "changed": {}, "not_reproduced": None, "best": [], "is_in_mlflow": True}
    assert (code, {key: told[key] for key in expected}) == (0, expected)
    assert told["started"] <= told["ended"]
    assert matwm(path, "runs")[1].splitlines()[1].split()[:6] == [run_id[:8], "s00", "FINISHED", "80", "-", "-"]
    assert matwm(path, "runs", "--segment", "other")[1] == matwm(path, "runs", "--status", "running")[1] == "no such run\n"
    assert matwm(path, "runs", "--segment", "s0")[1] == "no such run, did you mean --segment s00?\n"
    for command in ("show", "import", "push", "tree"):
        code, _, errors = matwm(path, command, "s0O")
        assert (code, "'s0O', did you mean s00?" in errors, len(errors.splitlines())) == (1, True, 1)
    assert len(json.loads(matwm(path, "runs", "--status", "finished", "--segment", "s00", "--last", "1", "--json")[1])) == 1
    code, _, errors = matwm(path, "runs", "--close", run_id[:6])
    assert (code, errors) == (1, f"run {run_id[:12]} (s00) is FINISHED, not RUNNING: there is nothing to close\n")
    wanted = open_checkpoint(path / "checkpoints/s00" / step_name(40)).fingerprint + "\n"
    assert matwm(path, "fingerprint", f"checkpoints/s00/{step_name(40)}")[1] == wanted
    assert matwm(path, "fingerprint", f"{run_id[:6]}@40")[1] == wanted
    shutil.rmtree(path / "checkpoints/s00")
    assert matwm(path, "fingerprint", f"{run_id}@40")[1] == wanted, "MLflow has it too"
    assert matwm(path, "fingerprint", f"{run_id}@latest")[1] == matwm(path, "fingerprint", f"{run_id}@final")[1] != wanted
    assert not list((path / ".matwm").glob("tmp*"))


def test_the_runs_of_another_clone_show_what_git_says_of_them(trained: Trained, matwm: Matwm) -> None:
    (trained.path / "mlflow.db").unlink()
    shutil.rmtree(trained.path / "checkpoints/s00")
    shutil.rmtree(trained.path / ".matwm")
    (run,) = json.loads(matwm(trained.path, "runs", "--json")[1])
    assert (run["run_id"], run["step"], run["status"]) == (trained.run_id, 80, "FINISHED")


def test_a_run_of_this_graph_is_continued_in_this_graph(trained: Trained, matwm: Matwm) -> None:
    before = (trained.path / "params.yaml").read_text(encoding="utf-8")
    code, output, errors = matwm(trained.path, "continue", f"{trained.run_id[:8]}@40", "--until", "120")
    assert (code, errors) == (0, "")
    assert output.startswith(f"segment s01 goes on from run {trained.run_id[:12]} (s00) at step 40 and trains to step 120\n")
    after = (trained.path / "params.yaml").read_text(encoding="utf-8")
    assert after == before + f"  s01: {{from: checkpoints/s00/{step_name(40)}, until: 120}}\n"
    assert not (trained.path / "imports").exists()


def test_a_run_that_the_graph_has_left_is_imported_with_its_values(trained: Trained, matwm: Matwm) -> None:
    trained.project.edit("actor_critic.learning_rate", 0.5)
    code, output, errors = matwm(trained.path, "continue", trained.run_id, "--until", "120", "--name", "again")
    assert (code, errors) == (0, "")
    folder = f"imports/{trained.run_id}/{step_name(80)}"
    assert trained.project.params()["segments"]["again"] == {
        "from": folder,
        "until": 120,
        "override": {"actor_critic": {"learning_rate": 0.001}},
    }
    assert f"\nimported from checkpoints/: {folder}\n" in output
    assert output.endswith(f"git add params.yaml {folder}.dvc {folder}.json imports/{trained.run_id}/.gitignore\n")
    seen = trained.project.git("status", "--porcelain", "-uall", "imports").split()
    assert seen == ["??", f"imports/{trained.run_id}/.gitignore", "??", f"{folder}.dvc", "??", f"{folder}.json"]
    assert (trained.path / f"{folder}.json").read_bytes() == (trained.path / folder / "manifest.json").read_bytes()
    trained.train("again")
    facts = trained.project.json("metrics/again/run.json")
    assert (facts["parent"]["run_id"], facts["parent"]["step"]) == (trained.run_id, 80)


WRONG_NAME = (
    "params.yaml: segments.a b: a segment's name is made of letters, digits, '-' and '_', with a letter or digit first and 64 characters "
    "at most"
)
WRONG: list[tuple[str, list[str], str]] = [
    ("zzz@40", ["--until", "120"], "no run begins with 'zzz'; there is {run} (s00, step 80, FINISHED)"),
    ("{run}@41", ["--until", "120"], "s00 ({run}) has no checkpoint of step 41; it has 40, 80"),
    ("{run}@soon", ["--until", "120"], "'soon' is no step: use a number, latest or final; s00 ({run}): it has 40, 80"),
    ("{run}@40", ["--until", "40"], "--until 40 is not beyond step 40 of run {run}"),
    ("{run}@40", ["--until", "120", "--name", "s00"], "there is a segment s00 already: choose another --name than s00"),
    (
        "{run}@40",
        ["--until", "120", "--name", "a b"],
        WRONG_NAME,
    ),
]


def test_a_wrong_continuation_is_one_sentence_and_changes_nothing(trained: Trained, matwm: Matwm) -> None:
    before = {name: (trained.path / name).read_bytes() for name in trained.project.files()}
    for reference, options, sentence in WRONG:
        short = trained.run_id[:12]
        code, output, errors = matwm(trained.path, "continue", reference.format(run=short), *options)
        assert (code, output, errors) == (1, "", sentence.format(run=short) + "\n")
        assert {name: (trained.path / name).read_bytes() for name in trained.project.files()} == before


@pytest.mark.parametrize("is_in_graph", [True, False])
def test_a_damaged_checkpoint_is_not_continued(trained: Trained, matwm: Matwm, is_in_graph: bool) -> None:
    if not is_in_graph:
        trained.project.edit("seed", 5)
    damaged = trained.path / "checkpoints/s00" / step_name(80) / "world_model.safetensors"
    damaged.chmod(0o644)
    content = bytearray(damaged.read_bytes())
    content[100] ^= 255
    damaged.write_bytes(content)
    before = {name: (trained.path / name).read_bytes() for name in trained.project.files()}
    code, output, errors = matwm(trained.path, "continue", f"{trained.run_id}@80", "--until", "120")
    assert (code, output, len(errors.splitlines())) == (1, "", 1)
    assert "world_model.safetensors is damaged" in errors
    assert {name: (trained.path / name).read_bytes() for name in trained.project.files()} == before


def test_an_import_that_does_not_fit_leaves_nothing(trained: Trained, matwm: Matwm) -> None:
    trained.project.edit("world_model.hidden_size", 32)
    before = trained.project.files()
    code, _, errors = matwm(trained.path, "continue", f"{trained.run_id}@80", "--until", "120")
    assert code == 1
    assert "world_model.hidden_size (there 16, in params.yaml 32)" in errors
    assert trained.project.files() == before


def test_what_is_only_not_pulled_is_not_trained_again(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained.path)
    called: list[list[str]] = []
    monkeypatch.setattr(repro, "run_to_the_end", lambda command, environment: called.append(command) or 1)
    monkeypatch.setattr("os.dup2", lambda *arguments: None)
    shutil.rmtree(trained.path / "checkpoints/s00")
    repro.run(Namespace(rest=["train@s00"], retrain=False, max_time=None, stop_at=None))
    assert called[0][1:] == ["repro", "train@s00"]
    assert "no DVC remote is set: it trains again" in capsys.readouterr().err
    trained.project.add_remote("/nowhere")
    with pytest.raises(ProjectError, match=r'segment s00 is trained \(dvc\.lock\), but its checkpoints are not here: run "dvc pull"'):
        repro.run(Namespace(rest=[], retrain=False, max_time=None, stop_at=None))
    repro.run(Namespace(rest=["--pull"], retrain=False, max_time=None, stop_at=None))
    repro.run(Namespace(rest=[], retrain=True, max_time=None, stop_at=None))
    assert len(called) == 3


def test_a_start_folder_with_the_checkpoint_of_another_step_is_refused(trained: Trained, matwm: Matwm) -> None:
    assert matwm(trained.path, "continue", "s00@80", "--until", "120")[0] == 0
    published = trained.path / "checkpoints/s00"
    shutil.rmtree(published / step_name(80))
    shutil.copytree(published / step_name(40), published / step_name(80))
    with pytest.raises(ProjectError, match=f"checkpoints/s00/{step_name(80)} holds a checkpoint of step 40: it was renamed or replaced"):
        trained.train("s01")
    assert not (trained.path / "checkpoints/s01").exists()


def test_mlflow_that_cannot_be_used_is_one_sentence(trained: Trained, matwm: Matwm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    code, output, errors = matwm(trained.path, "runs", "--json")
    assert (code, [run["run_id"] for run in json.loads(output)]) == (0, [trained.run_id])
    assert len(errors.splitlines()) == 1
    assert matwm(trained.path, "continue", f"{trained.run_id}@40", "--until", "120")[0] == 0, "this graph has it"
    tracking.configure(trained.path)


@pytest.mark.parametrize(
    "damage", [b"\xff\xfe", b"x: " + b"9" * 5000, b"[" * 3000, b"stages: 7\n"], ids=["no UTF-8", "5,000 digits", "3,000 deep", "no stages"]
)
def test_a_lock_that_cannot_be_read_is_one_sentence(tmp_path: Path, matwm: Matwm, store_template: Path, damage: bytes) -> None:
    path = Project.create(tmp_path / "project", tiny_params(), store_template).path
    (path / "dvc.lock").write_bytes(damage)
    for command in (["validate"], ["repro"]):
        code, output, errors = matwm(path, *command)
        assert (code, output, len(errors.splitlines())) == (1, "", 1)
        assert errors.startswith(f"{path}/dvc.lock cannot be read (")
    assert (path / "dvc.lock").read_bytes() == damage
