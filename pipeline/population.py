"""Decides about a population: members train side by side, and at each boundary who is among the worst goes on as a copy of the best.

A copy is a trial whose `from` is the best member's checkpoint of that boundary, so that its lineage is recorded like any other. All that
is decided at a boundary is one line of the log (see `params/decisions.py`), and a function of the population and of the lines before it:

    {"boundary": 5000, "trials": [{"trial": "000-…", "until": 10000},
                                  {"trial": "004-…", "until": 10000, "values": {…}, "from": "checkpoints/pop/000-…/step_000005000",
                                   "instead_of": "001-…"}]}
"""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matwm.config import Config, ConfigError, PopulationConfig, SweepConfig
from matwm.params_yaml import parse_sweeps, read_params
from matwm.rng import generator_for
from matwm.scenarios import Objective
from pipeline import project as places
from pipeline.metrics import best
from pipeline.params import assignments, decisions, overrides, sweeps
from pipeline.params.decisions import Row
from pipeline.params.segments import ResolvedSegment, sample_of
from pipeline.project import ProjectError


def decide(project: Path, name: str, is_finished: Callable[[str], bool]) -> None:
    """Record the scores of the members that have reached the boundary, then what follows from them if all have; the caller has the lock.

    Raises:
        ConfigError: params.yaml is wrong.
        ProjectError: an evaluation lacks the objective.
    """
    params = read_params(project / places.PARAMS)
    sweep = parse_sweeps(params)[name]
    assert sweep.population is not None
    sample, log = sample_of(params, project, name), decisions.read(project, params, name, sweep)
    objective = sample.config.objectives[0]
    if not log.trials:
        decisions.append(log.path, [_begin(sweep, sample)])
    for trial, facts in decisions.read(project, params, name, sweep).trials.items():
        if facts.get("step") != facts["until"] and not facts.get("diverged") and is_finished(f"{name}/{trial}"):
            decisions.append(log.path, [_scored(project, name, trial, int(facts["until"]), objective)])
    members = alive(decisions.read(project, params, name, sweep).trials)
    boundary = max(int(facts["until"]) for facts in members.values())
    is_reached = all(facts.get("diverged") or facts.get("step") == boundary for facts in members.values())
    if is_reached and boundary < sweep.until and not all(facts.get("diverged") for facts in members.values()):
        count = len(decisions.read(project, params, name, sweep).trials)
        decisions.append(log.path, [_boundary(name, sweep, sample, members, boundary, count)])
    decisions.copy_for_git(project, name, log)


def alive(trials: Mapping[str, Row]) -> dict[str, Row]:
    """Return the members that no copy stands in for."""
    replaced = {facts.get("instead_of") for facts in trials.values()}
    return {trial: facts for trial, facts in trials.items() if trial not in replaced}


def _begin(sweep: SweepConfig, sample: ResolvedSegment) -> Row:
    """Return the first members: one with the values of params.yaml, the others with mutated ones, each with a seed of its own."""
    assert sweep.population is not None
    paths = sweep.population.mutate
    first = {path: assignments.value_at(sample.config.resolved(), path) for path in paths}
    until = min(sweep.until, sample.origin.step + sweep.population.interval)
    rows: list[Row] = []
    for number in range(sweep.population.size):
        values = mutated(sweep.population, sample.config, first, number) if number else first
        rows.append(_member(number, {**values, "seed": sample.config.seed + number}, until))
    return {"boundary": sample.origin.step, "trials": rows}


def _boundary(name: str, sweep: SweepConfig, sample: ResolvedSegment, members: Mapping[str, Row], boundary: int, count: int) -> Row:
    """Return what becomes of the members at a boundary: the worst quarter, and who diverged, give way to copies of the best."""
    population = sweep.population
    assert population is not None
    objective, until = sample.config.objectives[0], min(sweep.until, boundary + population.interval)
    sound = [trial for trial, facts in members.items() if not facts.get("diverged")]
    ranked = sorted(sound, key=lambda trial: objective.goodness(members[trial]["value"]), reverse=True)
    worst = ranked[1:][-max(1, len(members) // 4) :]
    rows: list[Row] = [{"trial": trial, "until": until} for trial in members if trial in sound and trial not in worst]
    for number, trial in enumerate((one for one in members if one not in sound or one in worst), count):
        parent = members[ranked[0]]["values"]
        values = mutated(population, sample.config, {path: parent[path] for path in population.mutate}, number)
        start = f"checkpoints/{name}/{ranked[0]}/{places.step_folder(boundary)}"
        rows.append({**_member(number, {**values, "seed": sample.config.seed + number}, until), "from": start, "instead_of": trial})
    return {"boundary": boundary, "trials": rows}


def _member(number: int, values: Mapping[str, Any], until: int) -> Row:
    return {"trial": f"{number:03d}-{sweeps.values_name(values)}", "values": dict(values), "until": until}


def mutated(population: PopulationConfig, config: Config, values: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return values times one of their factors each, as the trial of a number has them; where that is not allowed the value stays."""
    generator = generator_for(population.seed, "population", number)
    found, override = dict(values), dict[str, Any]()
    for path, value in values.items():
        override = sweeps.merged_value(override, path, value)
    for path, value in values.items():
        factor = population.mutate[path][int(generator.integers(len(population.mutate[path])))]
        changed = round(value * factor) if isinstance(value, int) else float(f"{value * factor:.3g}")
        with contextlib.suppress(ConfigError):
            overrides.begin(config, tried := sweeps.merged_value(override, path, changed), "")
            found[path], override = changed, tried
    return found


def _scored(project: Path, name: str, trial: str, until: int, objective: Objective) -> Row:
    record = places.read_json(places.metrics_folder(project, f"{name}/{trial}") / "evaluation.json") or {}
    judged = best.of_record(record, [objective])
    if not judged or judged[0].step != until:
        raise ProjectError(f"metrics/{name}/{trial}/evaluation.json has no {objective} of step {until}: set evaluation.objective")
    return {"trial": trial, "step": until, "value": judged[0].mean}
