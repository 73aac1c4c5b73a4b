"""`matwm continue RUN@STEP --set`: what it checks, prints and writes; and that what it refuses leaves nothing behind."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from ruamel.yaml import YAML

from matwm.step_names import step_name
from pipeline import cli, tracking
from tests.pipeline.test_cli import Trained

Matwm = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Iterator[Trained]:
    """One project with a trained segment: each test leaves it as it was."""
    yield Trained(tmp_path_factory.mktemp("continue") / "my project", store_template)


@pytest.fixture
def trained(shared: Trained) -> Iterator[Trained]:
    """The project, whose files are the same afterwards, but for params.yaml, which is put back."""
    params = shared.path / "params.yaml"
    before, text = shared.project.files(), params.read_bytes()
    tracking.configure(shared.path)
    yield shared
    params.write_bytes(text)
    assert shared.project.files() == before


@pytest.fixture
def matwm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trained: Trained) -> Matwm:
    """A function that runs `matwm continue` on the trained run, and returns exit code, output and errors."""

    def call(step: int | str, *arguments: str) -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            patch.chdir(trained.path)
            capsys.readouterr()
            code = cli.main(["continue", f"{trained.run_id[:8]}@{step}", *arguments])
            return code, *capsys.readouterr()

    return call


def test_changed_values_are_shown_against_the_parents_and_written(trained: Trained, matwm: Matwm) -> None:
    before = (trained.path / "params.yaml").read_text(encoding="utf-8")
    words = ["seed=4", "actor_critic.learning_rate=1.0e-4", "actor_critic.entropy=2e-05", "replay.capacity=30", "run.save_interval=20"]
    code, output, errors = matwm(40, "--until", "120", *(f"--set={word}" for word in words))
    assert (code, errors) == (0, "")
    said, *rows, last = output.splitlines()
    assert said == f"segment s01 goes on from run {trained.run_id[:12]} (s00) at step 40 and trains to step 120"
    assert [row.split(maxsplit=4) for row in rows] == [
        ["changed", "parent", "new", "kind", "what becomes of the state"],
        ["seed", "0", "4", "free", "draws from the next step on; a running episode ends as it began"],
        ["actor_critic.entropy", "0.0003", "2.0e-05", "free"],
        ["actor_critic.learning_rate", "0.001", "0.0001", "free"],
        ["replay.capacity", "500", "30", "adapt", "the newest 30 of 43 rows are kept"],
        ["run.save_interval", "40", "20", "free", "training stays the same"],
    ]
    assert last == 'next: "matwm repro" (or "make repro", "dvc repro"); for git: git add params.yaml'
    after = (trained.path / "params.yaml").read_text(encoding="utf-8")
    assert after.startswith(before), "every byte stays"
    assert yaml.safe_load(after)["segments"]["s01"] == {
        "from": f"checkpoints/s00/{step_name(40)}",
        "until": 120,
        "override": {
            "seed": 4, "actor_critic": {"entropy": 2e-5, "learning_rate": 1e-4}, "replay": {"capacity": 30}, "run": {"save_interval": 20},
        },
    }  # fmt: skip


def test_a_dry_run_shows_the_same_and_writes_nothing(trained: Trained, matwm: Matwm) -> None:
    before = (trained.path / "params.yaml").read_bytes()
    code, output, errors = matwm("latest", "--until", "120", "--set", "actor_critic.learning_rate=1.0e-4", "--dry-run")
    assert (code, errors) == (0, "")
    assert output.splitlines()[-2:] == [
        "nothing is written: params.yaml would get",
        f"  s01: {{from: checkpoints/s00/{step_name(80)}, until: 120, override: {{actor_critic: {{learning_rate: 0.0001}}}}}}",
    ]
    assert (trained.path / "params.yaml").read_bytes() == before


def test_json_says_the_same_and_nothing_else(trained: Trained, matwm: Matwm) -> None:
    words = ["40", "--until", "120", "--set", "seed=4", "--set", "actor_critic.learning_rate=0.001", "--json"]
    code, output, errors = matwm(*words, "--dry-run")
    told = json.loads(output)
    assert (code, errors, told.pop("is_written")) == (0, "", False)
    effect = "draws from the next step on; a running episode ends as it began"
    assert told == {
        "segment": "s01",
        "entry": {"from": f"checkpoints/s00/{step_name(40)}", "until": 120, "override": {"seed": 4}},
        "is_imported": False,
        "run_id": trained.run_id,
        "parent_segment": "s00",
        "step": 40,
        "changed": {"seed": {"before": 0, "after": 4, "kind": "free", "effect": effect}},
        "unchanged": ["actor_critic.learning_rate"],
        "files": ["params.yaml"],
    }
    assert "s01" not in trained.project.params()["segments"]
    assert json.loads(matwm(*words)[1]) == {**told, "is_written": True}
    assert trained.project.params()["segments"]["s01"] == told["entry"]


def test_a_dry_run_of_an_import_leaves_nothing(trained: Trained, matwm: Matwm) -> None:
    trained.project.edit("actor_critic.learning_rate", 0.5)
    before = (trained.path / "params.yaml").read_bytes()
    code, output, _ = matwm(80, "--until", "120", "--set", "actor_critic.entropy=0.25", "--dry-run")
    assert code == 0
    assert [line.split()[0] for line in output.splitlines()[1:3]] == ["changed", "actor_critic.entropy"], "the parent, not the base"
    assert output.endswith("    override:\n      actor_critic: {entropy: 0.25, learning_rate: 0.001}\n"), "and what the base contradicts"
    assert (trained.path / "params.yaml").read_bytes() == before


def test_edits_that_shape_no_training_leave_the_checkpoint_in_this_graph(trained: Trained, matwm: Matwm) -> None:
    trained.project.edit("retention.keep_last", 1)
    trained.project.edit("tracking.upload_seconds", 3.0)
    trained.project.edit("run.save_interval", 20)
    trained.project.edit("segments.s00.until", 160)
    code, output, _ = matwm(80, "--until", "120", "--dry-run")
    assert (code, "imported" in output) == (0, False)
    assert output.endswith(f"  s01: {{from: checkpoints/s00/{step_name(80)}, until: 120}}\n")
    trained.project.edit("segments.s00.until", 60)
    assert f"would be imported from checkpoints/: imports/{trained.run_id}/{step_name(80)}\n" in matwm(80, "--until", "120", "--dry-run")[1]
    trained.project.edit("segments.s00.until", 80)
    trained.project.edit("actor_critic.entropy", 0.5)
    assert f"would be imported from checkpoints/: imports/{trained.run_id}/{step_name(80)}\n" in matwm(80, "--until", "120", "--dry-run")[1]


def test_a_value_that_the_parent_has_is_left_out(trained: Trained, matwm: Matwm) -> None:
    code, output, _ = matwm(80, "--until", "120", "--set", "actor_critic.learning_rate=0.001", "--set", "seed=1")
    assert code == 0
    assert output.splitlines()[1] == "actor_critic.learning_rate is 0.001 in the parent already: nothing to change"
    assert trained.project.params()["segments"]["s01"]["override"] == {"seed": 1}
    code, output, _ = matwm(80, "--until", "120", "--set", "seed=0")
    assert code == 0
    assert "override" not in trained.project.params()["segments"]["s02"]


@pytest.mark.parametrize("name", ["1e3", "010", "no", "1", "63573e75", "1_000", "0o17"])
def test_a_name_that_some_readers_take_for_no_text_is_quoted(trained: Trained, matwm: Matwm, name: str) -> None:
    assert matwm(80, "--until", "120", "--name", name)[0] == 0
    text = (trained.path / "params.yaml").read_text(encoding="utf-8")
    for read in (yaml.safe_load, YAML(typ="safe").load):
        assert list(read(text)["segments"]) == ["s00", name]
    assert matwm(80, "--until", "120", "--name", "more")[0] == 0, "and it is taken afterwards"


def test_everything_wrong_is_told_at_once_and_nothing_changes(trained: Trained, matwm: Matwm) -> None:
    before = {name: (trained.path / name).read_bytes() for name in trained.project.files()}
    words = ["sed=1", "world_model.hidden_size=32", "actor_critic.learning_rate=3e-5", "env.name=simple_spread_v3", "seed="]
    code, output, errors = matwm(40, "--until", "40", *(part for word in words for part in ("--set", word)))
    assert (code, output) == (1, "")
    assert [line.split(" is ")[0] for line in errors.splitlines()] == [
        "--until 40",
        "--set sed",
        "--set actor_critic.learning_rate",
        "--set seed= has no value: write one behind the =, or null where that",
        "--set env.name",
        "--set world_model.hidden_size",
    ]
    assert "put it in quotes, or write 3.0e-05" in errors
    assert {name: (trained.path / name).read_bytes() for name in trained.project.files()} == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["world_model.window_length=33", "schedule.warmup_steps=50"], "--set world_model.window_length is 33, more than world_model.max"),
        (["schedule.acting_context=33"], "--set schedule.acting_context is 33, more than world_model.max_positions = 32"),
        (["run.device=cuda"], "params.yaml: run.device is cuda (segment s01), but torch "),
    ],
)
def test_what_does_not_fit_together_or_here_is_refused(
    matwm: Matwm, words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, output, errors = matwm(80, "--until", "120", *(part for word in words for part in ("--set", word)))
    assert (code, output, len(errors.splitlines())) == (1, "", 1)
    assert errors.startswith(sentence)


def test_a_reference_without_a_step_behind_the_at_is_refused(matwm: Matwm, trained: Trained) -> None:
    code, _, errors = matwm("", "--until", "120")
    short = trained.run_id[:8]
    assert (code, errors) == (
        1,
        f"{short}@ has no step behind the @: write a number, latest or final, or {short} alone for the latest\n",
    )


@pytest.mark.parametrize("step", ["\u00b2", "9" * 5000, "4.0", "-40", "40@50"])
def test_a_step_that_is_no_number_is_refused(matwm: Matwm, step: str) -> None:
    code, _, errors = matwm(step, "--until", "120")
    assert (code, len(errors.splitlines())) == (1, 1)
    assert errors.startswith(f"{step!r} is no step: use a number, latest or final; ")


def test_line_ends_stay_as_they_are(trained: Trained, matwm: Matwm) -> None:
    params = trained.path / "params.yaml"
    params.write_bytes(params.read_bytes().replace(b"\n", b"\r\n"))
    before = params.read_bytes()
    code, _, _ = matwm(80, "--until", "120", "--set", "seed=1")
    assert code == 0
    line = f"  s01: {{from: checkpoints/s00/{step_name(80)}, until: 120, override: {{seed: 1}}}}\r\n"
    assert params.read_bytes() == before + line.encode()


def test_a_long_segment_is_a_block(trained: Trained, matwm: Matwm) -> None:
    words = ["actor_critic.imagination.regimes.0.horizon=3", "actor_critic.adam_betas=[0.5, 0.9]", "world_model.dropout=0.0"]
    code, _, _ = matwm(80, "--until", "120", *(part for word in words for part in ("--set", word)))
    assert code == 0
    lines = (trained.path / "params.yaml").read_text(encoding="utf-8").split("  s01:\n")[1].splitlines()
    assert lines == [
        f"    from: checkpoints/s00/{step_name(80)}",
        "    until: 120",
        "    override:",
        "      world_model: {dropout: 0.0}",
        "      actor_critic:",
        "        adam_betas: [0.5, 0.9]",
        "        imagination:",
        "          regimes:",
        "          - {max_agents: null, starts: 8, horizon: 3}",
    ]


def test_a_branch_is_a_run_of_its_own_that_says_what_it_changed(tmp_path: Path, store_template: Path) -> None:
    """Here the whole way: continue, train, the manifest, the tags; and the branch of a branch inherits."""
    one = Trained(tmp_path / "p", store_template)
    here = Path.cwd()
    os.chdir(one.path)
    try:
        assert cli.main(["continue", f"{one.run_id}@40", "--until", "60", "--set", "actor_critic.learning_rate=1.0e-4"]) == 0
        one.train("s01")
        second = one.project.json("metrics/s01/run.json")["run_id"]
        assert cli.main(["continue", f"{second}@60", "--until", "80", "--set", "replay.capacity=30"]) == 0
    finally:
        os.chdir(here)
    one.train("s02")
    third = one.project.json("metrics/s02/run.json")["run_id"]
    tags = {run.run_id: {k: v for k, v in run.tags.items() if k.startswith("matwm.changed.")} for run in tracking.list_runs()}
    assert tags == {
        one.run_id: {},
        second: {"matwm.changed.actor_critic.learning_rate": "0.001 -> 0.0001"},
        third: {"matwm.changed.replay.capacity": "500 -> 30"},
    }
    manifest = one.project.json(f"checkpoints/s02/{step_name(80)}/manifest.json")
    assert (manifest["config"]["actor_critic"]["learning_rate"], manifest["config"]["replay"]["capacity"]) == (1e-4, 30)
    parent = one.project.json(f"checkpoints/s01/{step_name(60)}/manifest.json")
    assert parent["config"]["actor_critic"]["learning_rate"] == 1e-4
