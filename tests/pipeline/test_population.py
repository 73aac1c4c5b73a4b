"""Members of a population copy the best by recorded branches, decided once."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from matwm.checkpoint import open_checkpoint
from matwm.config import ConfigError, PopulationConfig
from matwm.params_yaml import parse_config, parse_sweeps, read_params
from matwm.step_names import step_name
from pipeline import population, tracking
from pipeline import sweep as stage
from pipeline.params import decisions
from pipeline.params.segments import resolve_all
from pipeline.process import Interruption
from pipeline.trial import run_trial
from tests.pipeline.projects import SOURCE, StopAfter, tiny_params

ROOT = "checkpoints/root"
RATE, EPOCHS = "actor_critic.learning_rate", "actor_critic.epochs"
MUTATE = {RATE: [0.5, 2.0]}
START = "0" * 64


def with_population(until: int = 120, **changes: Any) -> dict[str, Any]:
    entry = {"size": 4, "interval": 40, "mutate": MUTATE, **changes}
    sweep = {"from": ROOT, "until": until, "override": {"evaluation": {"objective": "self_play/agent"}}, "population": entry}
    return {**tiny_params(segments={"s00": {"from": ROOT, "until": 40}}), "sweeps": {"pop": sweep}}


def write(project: Path, params: dict[str, Any]) -> None:
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


@pytest.fixture
def project(root: Path) -> Path:
    shutil.copytree(SOURCE / ROOT, root / ROOT)
    write(root, with_population())
    return root


def log_of(project: Path) -> decisions.Log:
    params = read_params(project / "params.yaml")
    return decisions.read(project, params, "pop", parse_sweeps(params)["pop"])


def opened(project: Path) -> decisions.Log:
    params = read_params(project / "params.yaml")
    return decisions.open_log(project, params, "pop", parse_sweeps(params)["pop"], START)


def judge(project: Path, trial: str, step: int, value: float) -> None:
    folder = project / "metrics/pop" / trial
    folder.mkdir(parents=True, exist_ok=True)
    judged = {"step": step, "sampled": {"self_play": {"agent_0": {"mean": value, "stderr": 0.0}}}}
    (folder / "evaluation.json").write_text(json.dumps(judged), encoding="utf-8")


def decided(project: Path) -> list[str]:
    """Let members be finished, as good as their rate is low, until nothing is left to decide; return the log's lines."""
    before: list[str] | None = None
    while True:
        population.decide(project, "pop", lambda _: True) if before is not None else population.decide(project, "pop", lambda _: False)
        lines = log_of(project).path.read_text(encoding="utf-8").splitlines(keepends=True)
        if lines == before:
            return lines
        before = lines
        for trial, facts in log_of(project).trials.items():
            judge(project, trial, facts["until"], -facts["values"][RATE])


def test_the_worst_quarter_goes_on_as_a_copy_of_the_best(project: Path) -> None:
    opened(project)
    population.decide(project, "pop", lambda _: False)
    first = log_of(project).trials
    assert [facts["values"]["seed"] for facts in first.values()] == [0, 1, 2, 3]
    assert next(iter(first.values()))["values"][RATE] == 0.001
    assert {facts["values"][RATE] for facts in first.values()} <= {0.001, 0.0005, 0.002}
    assert {facts["until"] for facts in first.values()} == {40}

    names = [*first]
    for trial, value in zip(names, (-3.0, -1.0, -4.0, -2.0), strict=True):
        judge(project, trial, 40, value)
    population.decide(project, "pop", lambda trial: trial != f"pop/{names[3]}")
    assert len(log_of(project).trials) == 4, "a boundary waits for all"
    population.decide(project, "pop", lambda _: True)
    found = log_of(project).trials
    (copy,) = [trial for trial in found if trial not in names]
    assert found[copy]["instead_of"] == names[2]
    assert found[copy]["from"] == f"checkpoints/pop/{names[1]}/{step_name(40)}"
    assert found[copy]["values"][RATE] in (found[names[1]]["values"][RATE] * factor for factor in MUTATE[RATE])
    assert found[copy]["values"]["seed"] == 4
    assert {trial: facts["until"] for trial, facts in found.items()} == dict(zip([*names, copy], (80, 80, 40, 80, 80), strict=True))

    graph = resolve_all(read_params(project / "params.yaml"), project)
    assert graph[f"pop/{copy}"].origin.segment == f"pop/{names[1]}"
    assert {change.path for change in graph[f"pop/{copy}"].changed} == {RATE, "seed"}
    assert graph[f"pop/{names[1]}"].needed == (40, 80), "what a copy starts from stays"


def test_a_population_cut_off_after_any_line_is_decided_to_the_same_log(project: Path) -> None:
    path = opened(project).path
    whole = decided(project)
    assert [json.loads(line).get("boundary") for line in whole if "boundary" in line] == [0, 40, 80]
    assert len(log_of(project).trials) == 6
    for count in range(1, len(whole)):
        (project / "metrics/pop/trials.jsonl").unlink()
        path.write_text("".join(whole[:count]) + whole[count][: len(whole[count]) // 2], encoding="utf-8")
        assert decided(project) == whole


def test_a_population_goes_on_when_until_is_raised(project: Path) -> None:
    opened(project)
    whole = decided(project)
    write(project, with_population(until=160))
    assert decided(project)[: len(whole)] == whole
    assert len(log_of(project).trials) == 7


def test_who_diverged_gives_way_and_is_known_as_it_last_was(project: Path) -> None:
    path = opened(project).path
    decided(project)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[: [json.loads(line).get("boundary") for line in lines].index(40) + 1]), encoding="utf-8")
    (project / "metrics/pop/trials.jsonl").unlink()
    best, *others = population.alive(log_of(project).trials)
    decisions.append(path, [{"trial": best, "diverged": True}])
    for trial in others:
        judge(project, trial, 80, -1.0)
    population.decide(project, "pop", lambda _: True)
    replaced = {facts["instead_of"] for facts in log_of(project).trials.values() if facts.get("until") == 120 and "instead_of" in facts}
    assert best in replaced and len(replaced) == 2
    assert resolve_all(read_params(project / "params.yaml"), project)[f"pop/{best}"].until == 40


def test_a_value_that_is_not_allowed_stays_and_whole_numbers_stay_whole() -> None:
    config = parse_config(tiny_params())
    paths = {"actor_critic.discount": [2.0], EPOCHS: [2.4], RATE: [1 / 3]}
    found = population.mutated(
        PopulationConfig(size=2, interval=1, mutate=paths), config, {"actor_critic.discount": 0.95, EPOCHS: 5, RATE: 0.001}, 1
    )
    assert found == {"actor_critic.discount": 0.95, EPOCHS: 12, RATE: 0.000333}


@pytest.mark.parametrize(
    ("mutate", "sentence"),
    [
        ({"world_model.layers": [2.0]}, "world_model.layers cannot change in a copy, which goes on from another member's state"),
        ({"actor_critic.lerning_rate": [2.0]}, "actor_critic.lerning_rate is no parameter, did you mean actor_critic.learning_rate?"),
        ({"actor_critic.return_debias": [2.0]}, "actor_critic.return_debias is False, which no factor makes another value"),
        ({"seed": [2.0]}, "seed is 0, which no factor makes another value"),
    ],
)
def test_what_cannot_be_mutated_is_said_first(mutate: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve_all(with_population(mutate=mutate), tmp_path)
    assert refused.value.problems[0].startswith(f"params.yaml: sweeps.pop.population.mutate.{sentence}")


# ---- what is trained


def trained(project: Path, interrupted: str | None = None) -> dict[str, str]:
    """Train a population in this process, as the stage does in several; return the fingerprints of the last checkpoints."""
    with stage._opened_search(project, "pop"):
        queue = stage._Queue(project, "pop", is_decided=True)
        queue.refresh()
        while queue.waiting:
            trial = next(name for name, one in queue.waiting.items() if queue.can_begin(one))
            queue.waiting.pop(trial)
            if trial[4:7] == interrupted:
                assert run_trial(project, trial, StopAfter(30)) != 0
                break
            assert run_trial(project, trial, Interruption()) == 0
            queue.finished.add(trial)
            queue.refresh()
    found = {name: project / "checkpoints" / name / step_name(one.until) for name, one in queue.trials.items()}
    return {name: open_checkpoint(path).fingerprint for name, path in found.items() if path.is_dir()}


def test_a_population_interrupted_in_a_copy_ends_as_another(project: Path) -> None:
    write(project, with_population(until=80, size=2))
    trained(project, interrupted="002")
    assert log_of(project).trials.keys() - population.alive(log_of(project).trials).keys()
    for folder in ("checkpoints", "metrics", "plots"):  # as DVC does before it calls the stage
        shutil.rmtree(project / folder / "pop")
    ends, log = trained(project), log_of(project)
    assert len(ends) == 3

    for folder in ("checkpoints/pop", "metrics/pop", "plots/pop", ".matwm"):
        shutil.rmtree(project / folder)
    assert trained(project) == ends
    assert log_of(project).rows == log.rows

    (copy,) = [trial for trial, facts in log.trials.items() if "instead_of" in facts]
    start = open_checkpoint(project / log.trials[copy]["from"])
    end = open_checkpoint(project / "checkpoints/pop" / copy / step_name(80))
    assert (end.parent.step, end.parent.digest) == (40, start.digest)
    found = {run.segment: run for run in tracking.list_runs()}
    assert found[f"pop/{copy}"].parent_step == 40
