"""Sweeps become trials: entries like those of segments, with names that do not change; and they are appended to params.yaml as text."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from matwm.config import ConfigError, SweepConfig
from matwm.params_yaml import PRESETS, preset_text
from pipeline.estimates.room import Room
from pipeline.params import assignments, params_file, sweeps
from pipeline.params.segments import resolve_all
from pipeline.project import ProjectError
from tests.pipeline.projects import tiny_params

RATE = "actor_critic.learning_rate"


def trials(**entry: Any) -> dict[str, Any]:
    config = SweepConfig.model_validate({"from": "checkpoints/root", "until": 80, **entry})
    return {name.removeprefix("x/"): one.override for name, one in sweeps.trials("x", config).items()}


def problems(params: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        resolve_all(params, Path())
    return caught.value.problems


def with_sweep(name: str = "x", **entry: Any) -> dict[str, Any]:
    return {**tiny_params(), "sweeps": {name: {"from": "checkpoints/root", "until": 80, **entry}}}


def test_a_grid_and_seeds_make_every_combination() -> None:
    assert trials(grid={RATE: [1e-3, 3e-4]}, seeds=[0, 7]) == {
        "learning_rate=0.001-seed=0": {"actor_critic": {"learning_rate": 1e-3}, "seed": 0},
        "learning_rate=0.001-seed=7": {"actor_critic": {"learning_rate": 1e-3}, "seed": 7},
        "learning_rate=0.0003-seed=0": {"actor_critic": {"learning_rate": 3e-4}, "seed": 0},
        "learning_rate=0.0003-seed=7": {"actor_critic": {"learning_rate": 3e-4}, "seed": 7},
    }


def test_sets_of_values_keep_together_and_what_all_share_stays() -> None:
    shared = {"actor_critic": {"entropy": 0.1}}
    found = trials(trials=[{RATE: 1e-3, "world_model.free_nats": 0.5}, {RATE: 3e-4, "world_model.free_nats": 1.0}], override=shared)
    assert list(found) == ["learning_rate=0.001-free_nats=0.5", "learning_rate=0.0003-free_nats=1.0"]
    assert found["learning_rate=0.001-free_nats=0.5"] == {
        "actor_critic": {"entropy": 0.1, "learning_rate": 1e-3},
        "world_model": {"free_nats": 0.5},
    }


def test_to_append_values_changes_no_name() -> None:
    before = trials(grid={RATE: [1e-3]}, seeds=[0])
    after = trials(grid={RATE: [1e-3, 3e-4]}, seeds=[0, 1])
    assert before.items() <= after.items()


def test_paths_that_end_alike_are_told_apart_and_odd_values_stay_short() -> None:
    found = trials(grid={RATE: [1e-3], "world_model.learning_rate": [1e-3]})
    assert list(found) == ["actor_critic.learning_rate=0.001-world_model.learning_rate=0.001"]
    regimes = [[{"max_agents": None, "starts": starts, "horizon": 5}] for starts in (8, 16)]
    names = list(trials(grid={"actor_critic.imagination.regimes": regimes}))
    assert len(set(names)) == 2
    assert all(len(name) <= sweeps.LONGEST_NAME and "/" not in name and " " not in name for name in names)


def test_a_trial_can_be_left_out() -> None:
    assert list(trials(seeds=[0, 1, 2], skip=["seed=1"])) == ["seed=0", "seed=2"]


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({}, "params.yaml: sweeps.x varies nothing: give it a grid, trials, seeds, a search or a population"),
        ({"seeds": [1, 1]}, "params.yaml: sweeps.x: two trials are called x/seed=1: name each value once"),
        ({"seeds": [1], "grid": {"seed": [2]}}, "params.yaml: sweeps.x has seeds twice, in seeds and in grid: leave one of them out"),
        ({"seeds": [1], "skip": ["seed=2"]}, "params.yaml: sweeps.x.skip names 'seed=2', which is no trial of it (such as seed=1)"),
        ({"grid": {RATE: []}}, f"params.yaml: sweeps.x.grid.{RATE} is [], but should not be empty"),
        ({"grid": {"env.options.N": [2]}}, "params.yaml: sweeps.x: env.options.N: the options count as one value: vary env.options, with"),
        ({"grid": {"segments.s00": [2]}}, "params.yaml: sweeps.x: segments.s00 is no parameter that a trial can change"),
        ({"grid": {"actor_critic.lerning_rate": [1.0]}}, "params.yaml: sweeps.x (trial lerning_rate=1.0).actor_critic.lerning_rate is"),
        ({"seeds": [0], "from": "checkpoints/s00/step_000000033"}, "params.yaml: sweeps.x (trial seed=0).until is 20, which is not beyond"),
        ({"seed": [0]}, "params.yaml: sweeps.x.seed is unknown, did you mean seeds?"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_sweep_is_one_sentence(entry: dict[str, Any], sentence: str) -> None:
    params = with_sweep(**{"until": 20, **entry})
    assert [problem[: len(sentence)] for problem in problems(params)] == [sentence]


def test_what_is_wrong_with_every_trial_is_said_once() -> None:
    assert len(problems(with_sweep(seeds=[0, 1, 2], grid={RATE: [-1.0]}))) == 1


def test_names_are_unique_over_segments_and_sweeps() -> None:
    assert problems(with_sweep("s00", seeds=[0])) == [
        "params.yaml: sweeps.s00: there is a segment of that name: choose another for the sweep"
    ]
    (taken,) = problems(with_sweep("root", seeds=[0]))
    assert "the name root is taken" in taken
    (no_section,) = problems({**tiny_params(), "sweeps": [1]})
    assert no_section.startswith("params.yaml: sweeps is [1]: expected a section")


def test_a_trial_has_the_key_of_the_same_settings_as_a_segment() -> None:
    params = tiny_params(segments={"s00": {"from": "checkpoints/root", "until": 80, "override": {"seed": 3}}})
    graph = resolve_all({**params, "sweeps": {"x": {"from": "checkpoints/root", "until": 80, "seeds": [3, 4]}}}, Path())
    digest = "0" * 64
    assert graph["x/seed=3"].key(digest) == graph["s00"].key(digest) != graph["x/seed=4"].key(digest)
    assert graph["x/seed=3"].saves == graph["s00"].saves


def test_a_segment_can_start_from_a_trial_which_then_keeps_the_step() -> None:
    params = tiny_params(segments={"s00": {"from": "checkpoints/x/seed=3/step_000000050", "until": 90}})
    graph = resolve_all({**params, "sweeps": {"x": {"from": "checkpoints/root", "until": 80, "seeds": [3]}}}, Path())
    assert (graph["s00"].origin.segment, graph["x/seed=3"].needed, graph["s00"].config.seed) == ("x/seed=3", (50, 80), 3)


# ---- the text of params.yaml


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.yaml")))
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_sweep_is_appended_and_every_other_byte_stays(preset: str, end: str) -> None:
    text = preset_text(preset).replace("\n", end)
    entry = {"from": "checkpoints/root", "until": 80, "grid": {RATE: [0.001, 0.0003]}, "seeds": [0, 1]}
    once = params_file.with_entry(text, "sweeps", "first", entry)
    twice = params_file.with_entry(once, "sweeps", "second", entry)
    assert list(yaml.safe_load(twice)["sweeps"]) == ["first", "second"]
    assert twice.replace(end, "").startswith(text.replace(end, "").replace("sweeps: {}", "sweeps:").rstrip())
    assert twice.count("# append only: trials") == 1
    segment = params_file.with_segment(twice, "s01", {"from": "checkpoints/s00/step_000000005", "until": 10**6})
    assert list(yaml.safe_load(segment)["segments"])[-1] == "s01"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_older_files_get_what_they_meant(end: str) -> None:
    new = preset_text("ci-tiny")
    lines = [line for line in new.split("\n") if not line.startswith(("sweeps:", "  objective:"))]
    old = end.join(lines).rstrip() + end
    text = params_file.upgraded(old)
    assert yaml.safe_load(text) == yaml.safe_load(new)
    assert params_file.upgraded(text) == text == params_file.upgraded(old.rstrip())
    assert [line for line in text.split(end) if line.strip() not in ("objective: null", "sweeps: {}", "")] == [
        line for line in old.split(end) if line.strip()
    ]


def test_several_values_are_read_as_yaml_reads_them() -> None:
    assert assignments.several("a.b=1,2.5,null") == ("a.b", [1, 2.5, None])
    assert assignments.several("a=[1, 2],[3]") == ("a", [[1, 2], [3]])
    assert assignments.several("a=x") == ("a", ["x"])
    for wrong in ("a=", "a", "=1", "a=[1", "segments=1"):
        with pytest.raises(ProjectError, match="^--set "):
            assignments.several(wrong)


# ---- how many fit


def test_trials_at_a_time_are_as_many_as_threads_and_memory_allow(tmp_path: Path) -> None:
    graph = resolve_all(with_sweep(seeds=[0, 1, 2]), Path())
    config = graph["x/seed=0"].config

    def fitting(**limits: int) -> tuple[int, str | None]:
        room = Room(tmp_path, 3, **limits)
        count = 0
        while room.has(config, 80):
            room.take(str(count), config, 80)
            count += 1
        return count, room.shortage

    assert fitting(threads=8, memory=10**12) == (3, None)
    assert fitting(threads=2, memory=10**12) == (
        2,
        "2 instead of 3 trials are trained at a time: one more would take 3 threads together (run.threads), and this machine has 2",
    )
    count, shortage = fitting(threads=8, memory=1)
    assert count == 1, "the first always has room, as it would by itself"
    assert "of memory together, and this machine has 1 B" in str(shortage)
