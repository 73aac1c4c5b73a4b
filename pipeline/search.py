"""Decides about the trials of a search: which values one begins with, by what became of those before it (Optuna, ask and tell).

    params.yaml + trials.jsonl ── resolve_all ──► trials ── processes ──► metrics/<sweep>/<trial>/
              ▲                                                                     │
              └──────────── decide: values told, then values asked for ◄────────────┘

A decision is a function of the search and of the decisions before it: there is no sampler to be saved. Trial n is drawn from a study made
anew of the trials before it, with a seed of its own; with `parallel: K` it knows how the trials up to n - K have ended, no others, and
waits for these. So neither a kill nor the number of processes nor their pace changes what is drawn.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matwm.config import RangeConfig, SearchConfig
from matwm.params_yaml import parse_sweeps, read_params
from matwm.rng import seed_for
from matwm.scenarios import Objective
from pipeline import project as places
from pipeline.metrics import best
from pipeline.metrics.recorded import TIMES, read_recorded
from pipeline.params import decisions, sweeps
from pipeline.params.decisions import Row
from pipeline.params.segments import ResolvedSegment, sample_of
from pipeline.project import ProjectError
from pipeline.validate import missing_optuna

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

DIGITS = 3
"""Significant digits of a number that is drawn from a range: more would say nothing, and names would be long."""


def decide(project: Path, name: str, is_finished: Callable[[str], bool]) -> None:
    """Record the value of each trial that has come to its end by now, then let those begin that may; the caller has the lock.

    Raises:
        ConfigError: params.yaml is wrong.
        ProjectError: an evaluation lacks the objective.
    """
    params = read_params(project / places.PARAMS)
    sweep = parse_sweeps(params)[name]
    assert sweep.search is not None
    sample, log = sample_of(params, project, name), decisions.read(project, params, name, sweep)
    objective = sample.config.objectives[0]
    for trial, facts in log.trials.items():
        if "value" not in facts and not facts.get("diverged") and trial not in sweep.skip and is_finished(f"{name}/{trial}"):
            decisions.append(log.path, [_told(project, name, trial, sample, objective)])
    log = decisions.read(project, params, name, sweep)
    known = [{**facts, "is_skipped": trial in sweep.skip} for trial, facts in log.trials.items()]
    for number in range(len(known), sweep.search.trials):
        before = known[: max(0, number + 1 - sweep.search.parallel)]
        if not all(map(_is_over, before)):
            break
        values = draw(number, sweep.search, objective, known, len(before))
        row = {"trial": f"{number:03d}-{sweeps.values_name(values)}", "values": values}
        row["floors"] = floors(sweep.search, objective, before, sample.judged)
        decisions.append(log.path, [row])
        known.append(row)
    decisions.copy_for_git(project, name, log)


def draw(number: int, search: SearchConfig, objective: Objective, known: Sequence[Row], ended: int) -> dict[str, Any]:
    """Return the values of a trial; of those before it, the first so many count with what became of them, others as still running.

    Raises:
        ProjectError: Optuna is not installed.
    """
    optuna = _optuna()
    distributions = {path: _distribution(one) for path, one in search.space.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=seed_for(search.seed, "search", number) % 2**32, n_startup_trials=search.startup, constant_liar=search.parallel > 1
        )
    study = optuna.create_study(sampler=sampler, direction="minimize" if objective.is_least else "maximize")
    study.add_trials([_as_trial(row, search, distributions, is_over=index < ended) for index, row in enumerate(known)])
    drawn = study.ask(distributions).params
    return {path: _plain(drawn[path], one) for path, one in search.space.items()}


def floors(search: SearchConfig, objective: Objective, before: Sequence[Row], steps: Sequence[int]) -> dict[str, float]:
    """Return what a trial must reach by which steps: the quantile `prune` of what whole trials before it had reached there."""
    curves = [row["curve"] for row in before if "value" in row and not row.get("pruned")]
    if search.prune is None or len(before) < search.startup or not curves:
        return {}
    found: dict[str, float] = {}
    for step in map(str, steps):
        reached = [objective.goodness(curve[step]) for curve in curves if step in curve]
        if reached:
            found[step] = objective.goodness(float(np.quantile(reached, search.prune)))
    return found


def _is_over(row: Row) -> bool:
    return "value" in row or bool(row.get("diverged")) or bool(row.get("is_skipped"))


def _told(project: Path, name: str, trial: str, sample: ResolvedSegment, objective: Objective) -> Row:
    """Return how good a trial was: its evaluation at the end, and those before it."""
    folder = places.metrics_folder(project, f"{name}/{trial}")
    judged = best.of_record(places.read_json(folder / "evaluation.json") or {}, [objective])
    if not judged:
        raise ProjectError(
            f"metrics/{name}/{trial}/evaluation.json has no {objective}, by which sweep {name} searches: set evaluation.objective"
        )
    points = read_recorded(folder, [TIMES])
    curve = best.curve(objective, sample.config.evaluation.modes[0], points, sample.origin.step)
    return {"trial": trial, "value": judged[0].mean, "curve": {str(step): value for step, value in curve.items()}}


def _as_trial(row: Row, search: SearchConfig, distributions: "Mapping[str, BaseDistribution]", *, is_over: bool) -> "FrozenTrial":
    """Return a trial as Optuna has it; one that came to nothing counts as pruned before its first value, which is worse than any other."""
    optuna = _optuna()
    states = optuna.trial.TrialState
    is_whole = "value" in row and not row.get("pruned")
    drawn = {path: one.choices.index(row["values"][path]) if one.choices else row["values"][path] for path, one in search.space.items()}
    curve = {int(step): value for step, value in row.get("curve", {}).items()} if is_over else {}
    return optuna.trial.create_trial(
        state=states.RUNNING if not is_over else states.COMPLETE if is_whole else states.PRUNED,
        value=row["value"] if is_over and is_whole else None,
        params=drawn,
        distributions=dict(distributions),
        intermediate_values=curve,
    )


def _distribution(one: RangeConfig) -> "BaseDistribution":
    kinds = _optuna().distributions
    if one.choices is not None:
        return kinds.CategoricalDistribution(range(len(one.choices)))  # of their numbers: lists are choices, too
    assert one.low is not None and one.high is not None
    kind = kinds.IntDistribution if isinstance(one.low, int) and isinstance(one.high, int) else kinds.FloatDistribution
    return kind(one.low, one.high, log=one.log)


def _plain(value: Any, one: RangeConfig) -> Any:
    if one.choices is not None:
        return one.choices[value]
    if isinstance(value, float):
        assert one.low is not None and one.high is not None
        return float(min(max(float(f"{value:.{DIGITS}g}"), one.low), one.high))
    return int(value)


def _optuna() -> Any:
    if missing := missing_optuna():
        raise ProjectError(missing)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
