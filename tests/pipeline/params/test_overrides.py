"""What a branch may change: by the marks of every field of the schema, and by the schema itself."""

from pathlib import Path
from typing import Any

import pytest

from matwm.config import ConfigError, leaves, merge
from matwm.params_yaml import parse_config
from pipeline.params.overrides import apply
from pipeline.params.segments import ResolvedSegment, resolve_all
from tests.matwm.test_config import MOVES
from tests.matwm.tiny import tiny_data

DATA = tiny_data({"world_model.free_nats": 0.0})
PARENT = parse_config(DATA)
MARKS = {path: marks for path, _, marks in leaves(PARENT)}
WHERE = "params.yaml: segments.s01.override."
VALUES: dict[str, Any] = {
    **MOVES,
    "run.threads": 2,
    "run.device": "cuda",
    "run.cuda_graphs": True,
    "env.family": "other",
}
"""Another value of every field; what trains otherwise with it is shown in tests/matwm/test_settings.py."""
OPTIONS = PARENT.env.options
TOGETHER = {
    "run.cuda_graphs": {"run.device": "cuda"},
    "actor_critic.team_reward": {"actor_critic.imagination.mates": "imagined"},
    "actor_critic.imagination.opponents_predicted": {"actor_critic.imagination.mates": "imagined"},
}
"""What else a value asks for."""


def nested(path: str, value: Any) -> dict[str, Any]:
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def problems(override: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        apply(PARENT, override, WHERE)
    return caught.value.problems


def segments(tmp_path: Path, override: dict[str, Any]) -> dict[str, ResolvedSegment]:
    start = "checkpoints/s00/step_000000040"
    entries = {
        "s00": {"from": "checkpoints/root", "until": 80},
        "s01": {"from": start, "until": 160, "override": override},
        "plain": {"from": start, "until": 160},
        "child": {"from": "checkpoints/s01/step_000000160", "until": 200},
    }
    return resolve_all({**DATA, "segments": entries}, tmp_path)


def test_every_field_has_a_value_here() -> None:
    assert MARKS.keys() == VALUES.keys()


@pytest.mark.parametrize("path", [path for path, marks in MARKS.items() if marks["branch"] != "fixed"])
def test_what_is_free_or_adapts_changes_the_branch_and_its_children(tmp_path: Path, path: str) -> None:
    also = TOGETHER.get(path, {})
    override = nested(path, VALUES[path])
    for other, value in also.items():
        override = merge(override, nested(other, value))
    found = segments(tmp_path, override)
    for name in ("s01", "child"):
        assert {other: new for other, new, _ in leaves(found[name].config)}[path] == VALUES[path]
    assert found["child"].changed == ()
    assert {change.path for change in found["s01"].changed} == {path, *also}
    assert (found["s01"].key("d") == found["plain"].key("d")) is not MARKS[path]["shapes"]


def test_saving_more_often_saves_more_and_is_the_same_training(tmp_path: Path) -> None:
    found = segments(tmp_path, {"run": {"save_interval": 30}})
    assert (found["plain"].saves, found["s01"].saves) == ((*range(50, 160, 10), 160), (60, 90, 120, 150, 160))
    assert found["s01"].key("d") == found["plain"].key("d")


@pytest.mark.parametrize("path", [path for path, marks in MARKS.items() if marks["branch"] == "fixed"])
def test_what_is_fixed_is_refused_in_one_sentence(path: str) -> None:
    value = {**OPTIONS, "max_cycles": 13} if path == "env.options" else VALUES[path]
    (problem,) = problems(nested(path, value))
    path, value = ("env.options.max_cycles", 13) if path == "env.options" else (path, value)
    assert problem.startswith(f"{WHERE}{path} is {value!r}, but the checkpoint it starts from has ")
    assert problem.endswith(", which a continued segment cannot change: start a segment from checkpoints/root for that")


def test_saying_what_the_checkpoint_has_is_no_change(tmp_path: Path) -> None:
    found = segments(tmp_path, PARENT.resolved())
    assert (found["s01"].config, found["s01"].changed) == (PARENT, ())


@pytest.mark.parametrize(
    ("override", "begins"),
    [
        ({"env": {"name": "simple_spread_v3"}}, ["env.name is 'simple_spread_v3'"]),
        ({"env": {"name": "simple_spread_v3", "options": {"N": 2}}}, ["env.name is 'simple_spread_v3'"]),
        ({"env": {"name": "nonsense"}}, ["env.name is 'nonsense'"]),
        (
            {"env": {"options": {**OPTIONS, "max_cycles": 13, "num_good": 2}}},
            ["env.options.num_good is 2, but the checkpoint it starts from has 1", "env.options.max_cycles is 13"],
        ),
        ({"env": {"options": {"num_good": 1}}}, ["env.options.max_cycles is 25"]),
        ({"env": {"options": {**OPTIONS, "num_goood": 1}}}, ["env.options.num_goood is unknown"]),
        ({"env": {"options": 3}}, ["env.options is 3"]),
        ({"env": 3}, ["env is 3"]),
        ({"segments": {}}, ["segments is unknown"]),
        (
            {"world_model": {"hidden_size": 32, "heads": 3, "learning_rate": -1.0, "dropot": 0.1}, "seed": "x"},
            ["world_model.hidden_size is 32", "world_model.heads is 3", "seed is 'x'", "world_model.learning_rate is -1.0",
             "world_model.dropot is unknown, did you mean dropout?"],
        ),
    ],
)  # fmt: skip
def test_every_leaf_that_is_wrong_gets_one_plain_sentence(override: dict[str, Any], begins: list[str]) -> None:
    found = problems(override)
    assert len(found) == len(begins)
    for problem, begin in zip(found, begins, strict=True):
        assert problem.startswith(f"{WHERE}{begin}")
        assert "{" not in problem


def test_what_does_not_fit_together_is_said_of_the_override() -> None:
    assert problems({"world_model": {"windows": 40}, "replay": {"capacity": 15}}) == [
        "params.yaml: segments.s01.override.world_model.windows = 40 of world_model.window_length = 8 rows need 80 rows an agent, "
        "more than replay.capacity = 15 can hold: lower them or raise the capacity"
    ]
    (problem,) = problems({"world_model": {"window_length": 33}, "schedule": {"warmup_steps": 40}})
    assert problem.startswith(f"{WHERE}world_model.window_length is 33, more than world_model.max_positions = 32")
    (problem,) = problems({"world_model": {"window_length": 13}})
    assert problem.startswith("params.yaml: segments.s01.override: schedule.warmup_steps is 12, less than world_model.window_length = 13")
