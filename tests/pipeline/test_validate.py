"""Bad input is refused before anything is made: one sentence each, with the field's full path."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from matwm.config import ConfigError
from matwm.version import NUMERICS
from pipeline import cli
from pipeline import validate as stage
from pipeline.params.segments import resolve_all
from tests.pipeline.projects import SOURCE, Project, tiny_params

S00 = {"from": "checkpoints/root", "until": 80}


def folder_with(tmp_path: Path, text: str) -> Path:
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    return tmp_path


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


NO_HORIZON = [{"max_agents": None, "starts": 8, "horizon": 0}]
BAD: list[tuple[dict[str, Any], str]] = [
    ({"sed": 1}, "sed is unknown, did you mean seed?"),
    ({"world_model": {"lerning_rate": 1e-3}}, "world_model.lerning_rate is unknown, did you mean learning_rate?"),
    ({"world_model": {"learning_rate": "3e-5"}}, "world_model.learning_rate is 3e-5, which is the text '3e-5' to some readers of"),
    ({"world_model": {"learning_rate": -1.0}}, "world_model.learning_rate is -1.0"),
    ({"seed": "abc"}, "seed is 'abc'"),
    ({"actor_critic": {"discount": 1.5}}, "actor_critic.discount is 1.5"),
    ({"actor_critic": {"imagination": {"regimes": NO_HORIZON}}}, "actor_critic.imagination.regimes.0.horizon is 0"),
    ({"actor_critic": {"imagination": {"context_length": 31}}}, "actor_critic.imagination: context_length + horizon is 33"),
    ({"world_model": {"window_length": 33}, "schedule": {"warmup_steps": 40}}, "world_model.window_length is 33, more than"),
    ({"replay": {"capacity": 10}}, "world_model.windows = 4 of world_model.window_length = 8 rows need 16 rows an agent"),
    ({"env": {"name": "simple_tagg_v3"}}, "env.name"),
    ({"env": {"options": {"num_goood": 1}}}, "env.options.num_goood"),
    ({"env": {"options": {"continuous_actions": True}}}, "env.options.continuous_actions"),
    ({"run": {"device": "tpu"}}, "run.device is 'tpu'"),
    ({"evaluation": {"objective": "best return"}}, "evaluation: objective is 'best return': expected a role in a match-up such as"),
    ({"evaluation": {"objective": "learned_v_flea/adversary"}}, "evaluation.objective is 'learned_v_flea/adversary', but simple_tag_v3"),
    ({"evaluation": {"objective": "learned_v_random/agent"}}, "evaluation.objective is 'learned_v_random/agent', but who learns in"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "sentence"), BAD, ids=[sentence[:40] for _, sentence in BAD])
def test_bad_input_is_one_sentence_and_makes_nothing(
    tmp_path: Path, changes: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_with(tmp_path, yaml.safe_dump(tiny_params(changes)))
    monkeypatch.chdir(folder)
    assert stage.main() == 1
    assert files(folder) == {"dvc.yaml", "params.yaml"}
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"params.yaml: {sentence}")


OWN = "mine:parallel_env"
UNPLAYABLE: list[tuple[dict[str, Any], str]] = [
    ({"family": "pettingzoo", "name": "nowhere_at_all:make"}, "env.name is nowhere_at_all:make, but there is no module nowhere_at_all"),
    ({"family": "pettingzoo", "name": "mine:parallel_envs"}, "env.name is mine:parallel_envs, but mine has no parallel_envs, did you mean"),
    ({"family": "pettingzoo", "name": OWN, "options": {"size": 3}}, f"env.name is {OWN}, and making it with (size=3) fails: TypeError"),
    ({"family": "atari"}, "env.family is 'atari', but should be 'mpe',"),
]


@pytest.mark.parametrize(("env", "sentence"), UNPLAYABLE, ids=[sentence[:40] for _, sentence in UNPLAYABLE])
def test_an_environment_that_cannot_be_trained_on_is_refused_before_anything_is_made(
    tmp_path: Path, env: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params = tiny_params()
    params["env"] = {"options": {}, **params["env"], **env}
    if env["family"] == "pettingzoo":
        params["env"]["options"] = env.get("options", {})
    folder = folder_with(tmp_path, yaml.safe_dump(params))
    (folder / "mine.py").write_text("from tests.matwm.arena import parallel_env\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    assert stage.main() == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"params.yaml: {sentence}")
    assert not (folder / stage.MARKER).exists()


def test_an_environment_beside_params_is_found_from_a_folder_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params = tiny_params()
    params["env"] = {"family": "pettingzoo", "name": "its_own:parallel_env", "options": {"knights": 1}}
    folder = folder_with(tmp_path, yaml.safe_dump(params))
    (folder / "its_own.py").write_text("from tests.matwm.arena import parallel_env\n")
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    monkeypatch.setattr("sys.path", [*sys.path])
    stage.validate(folder)


def test_what_an_environment_prints_is_no_part_of_what_commands_say(tmp_path: Path) -> None:
    """In a process of its own: here, pytest holds stdout."""
    params, name = tiny_params(), "tests.matwm.envs.mistakes:Prints"
    params["env"] = {"family": "pettingzoo", "name": name, "options": {}}
    folder = folder_with(tmp_path, yaml.safe_dump(params))
    told = []
    for arguments in (["validate", "--json"], ["envs", "--json", name]):
        command = [sys.executable, "-m", "pipeline.cli", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
        ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        assert all(printed in ended.stderr for printed in ("made", "reset", "step"))
        told.append(json.loads(ended.stdout))
    (validated, [family]) = told
    assert (set(validated), family["scenarios"][0]["name"]) == ({"segments", "warnings"}, name)


def test_every_problem_gets_its_line(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, yaml.safe_dump(tiny_params({"seed": -1, "run": {"threads": 0}}, {"s00": {**S00, "until": 0}})))
    with pytest.raises(ConfigError) as caught:
        stage.validate(folder)
    assert [line.split(" is ")[0] for line in caught.value.problems] == [
        "params.yaml: seed",
        "params.yaml: run.threads",
        "params.yaml: segments.s00.until",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 0\nseed: 1\n", "key 'seed' stands twice"),
        ("a: [1\n", "is not valid YAML"),
        ("- 1\n", "holds no sections"),
        ("", "holds no sections"),
    ],
)
def test_a_file_that_is_no_parameters_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        stage.validate(folder_with(tmp_path, text))


def test_without_parameters_it_says_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'params\.yaml does not exist: write one with "matwm preset cpu-small"'):
        stage.validate(tmp_path)


def test_cuda_where_there_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"params\.yaml: run\.device is cuda \(segment s00\), but torch .* sees no CUDA device"):
        stage.validate(folder_with(tmp_path, yaml.safe_dump(tiny_params({"run": {"device": "cuda"}}))))


def test_early_pushes_to_a_remote_that_only_dvc_writes_to_are_refused(tmp_path: Path) -> None:
    project = folder_with(tmp_path, yaml.safe_dump(tiny_params({"tracking": {"push": True}})))
    (project / ".dvc").mkdir(exist_ok=True)
    (project / ".dvc/config").write_text("[core]\nremote = s\n['remote \"s\"']\nurl = gs://bucket/path\n", encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"params\.yaml: tracking\.push is true \(segment s00\): DVC remote s \(gs://bucket/path\) is neither"
    ):
        stage.validate(project)
    folder_with(tmp_path, yaml.safe_dump(tiny_params({"tracking": {"push": False}})))
    stage.validate(project)


def test_the_marker_never_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder_with(tmp_path, yaml.safe_dump(tiny_params())))
    assert stage.main() == 0
    first = (tmp_path / ".params.ok").read_bytes()
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tiny_params({"seed": 5})), encoding="utf-8")
    assert stage.main() == 0
    assert (tmp_path / ".params.ok").read_bytes() == first == (SOURCE / ".params.ok").read_bytes()


def test_json_says_what_each_segment_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    params = tiny_params({"retention": {"keep_every": 80}}, {"s00": S00})
    monkeypatch.chdir(folder_with(tmp_path, yaml.safe_dump(params)))
    assert cli.main(["validate", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (segment,) = document["segments"]
    estimate = segment.pop("estimate")
    assert segment.pop("takes").startswith("2 checkpoints to make, ")
    assert segment == {"segment": "s00", "from": "checkpoints/root", "until": 80, "is_trained": False}
    assert estimate["checkpoints"] == 2
    assert estimate["disk"] == 2 * estimate["each"] + estimate["replay"] > 0
    (of_git, of_retention) = document["warnings"]
    assert of_git.startswith("runs are recorded without a commit: ")
    assert of_retention.startswith("params.yaml: retention.keep_every changes")


def test_the_committed_parameters_are_valid() -> None:
    assert stage.validate(SOURCE)["s00"].until == 10000


def test_a_trained_parent_must_have_kept_the_step(tmp_path: Path) -> None:
    entries: dict[str, Any] = {"s00": S00, "s01": {"from": "checkpoints/s00/step_000000070", "until": 120}}

    def problems(changes: dict[str, Any] | None = None) -> list[str]:
        params = tiny_params(changes, entries)
        return stage.dropped_origins(tmp_path, resolve_all(params, tmp_path), params)

    assert not problems(), "not trained yet: it will save what is asked for"
    for number in (40, 80):
        folder = tmp_path / f"checkpoints/s00/step_{number:09d}"
        folder.mkdir(parents=True)
        (folder / "manifest.json").touch()
    params = {"params.yaml": {"seed": 0, "segments.s00": S00}, "matwm/version.py": {"NUMERICS": NUMERICS}}
    (tmp_path / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": {"train@s00": {"params": params}}}), encoding="utf-8")
    assert problems() == [
        "params.yaml: segments.s01.from is 'checkpoints/s00/step_000000070', but s00 is trained and has steps 40, 80: choose one of these, "
        "or add keep: [70] to segments.s00, which then brings that checkpoint back"
    ]
    assert not problems({"seed": 1}), "changed parameters train it again, so the step will be there"
    entries["s00"] = {**S00, "keep": [70]}
    assert not problems(), "it is called again, to keep it"
    entries["s00"] = S00
    assert problems()
    other = {**params, "matwm/version.py": {"NUMERICS": NUMERICS + 1}}
    (tmp_path / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": {"train@s00": {"params": other}}}), encoding="utf-8")
    assert not problems(), "the lock is another arithmetic's: it is trained again"


MINE = """
import os
import sys
from pathlib import Path
from tests.matwm.arena import parallel_env as make

def parallel_env(**options):
    with Path(__file__).with_name("made.txt").open("a") as file:
        file.write(f"{Path(sys.argv[0]).stem} {os.getpid()}\\n")
    return make(**options)
"""


def test_a_repro_validates_once(tmp_path: Path, store_template: Path) -> None:
    """Seen by an environment, which every validation plays in two processes of their own, called probe."""
    params = tiny_params(segments={"s00": {"from": "checkpoints/root", "until": 1}})
    params["env"] = {"family": "pettingzoo", "name": "mine:parallel_env", "options": {"knights": 1}}
    project = Project.create(tmp_path / "p", params, store_template)
    (project.path / "mine.py").write_text(MINE, encoding="utf-8")
    made = project.path / "made.txt"

    def makers() -> list[str]:
        """Return the programs of the processes that have made the environment."""
        return sorted(line.split()[0] for line in set(made.read_text(encoding="utf-8").splitlines()))

    project.matwm("repro", "train@s00", PYTHONPATH=str(SOURCE))
    assert (project.path / ".params.ok").read_text(encoding="utf-8") == stage.MARKER_TEXT
    assert makers() == ["probe", "probe", "train"]
    made.unlink()
    project.edit("evaluation.episodes", 3)
    project.dvc("repro", "train@s00", PYTHONPATH=str(SOURCE))
    assert makers() == ["probe", "probe"], "for DVC alone, the stage validates"


def test_matwm_repro_refuses_what_breaks_dvcs_own_graph(tmp_path: Path, store_template: Path) -> None:
    project = Project.create(
        tmp_path / "p", tiny_params(segments={"s00": S00, "s01": {"from": "checkpoints/s01/step_000000080", "until": 90}}), store_template
    )
    before = project.files()
    said = project.matwm("repro", code=1)
    assert said == "params.yaml: segments.s01.from is 'checkpoints/s01/step_000000080', a checkpoint of itself: " \
                   "start from checkpoints/root or from another segment\n"  # fmt: skip
    assert project.files() == before
