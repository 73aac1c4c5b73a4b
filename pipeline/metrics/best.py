"""Says how good a run was at its best, by each of its objectives, from the evaluations that MLflow or git has of it."""

import json
import math
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from matwm import scenarios
from matwm.config import Config
from matwm.history import Point
from matwm.scenarios.objective import METRICS, Objective, parse
from matwm.types import role_of
from pipeline.metrics.points import EVALUATION, TimedPoint

NOT_MODES = ("step", "max_steps", "references", "metrics", "words")
"""What `evaluation.json` says beside the returns of each mode."""
WIN = "win"
"""The metric of battles."""
MODES_TAG = "matwm.evaluation.modes"
"""The modes that a run was judged in, the one that counts first."""
OBJECTIVE_TAG = "matwm.objective"
"""What a run is judged by, as params.yaml has it; several are joined by a semicolon."""
TAG = "matwm.best"
"""The best evaluations of a run, as JSON: written with each evaluation, so that a list of runs needs no histories."""


class Best(NamedTuple):
    """The best evaluation of a run by one objective, in the first mode."""

    step: int
    mode: str
    mean: float
    """Of the role's agents, or of the metric."""
    objective: str
    """As `evaluation.objective` has it."""

    @property
    def shown(self) -> str:
        """The mean for people, with the role or metric that it is of."""
        return f"{self.mean:.2f} {parse(self.objective).name}"


def shown(judged: Sequence[Best], with_steps: bool = False) -> str:
    """Return the best of a run for people: `-12.30`, `0.75 win`, `12.30 adversary, -3.10 agent`; a dash if there is none."""
    is_plain = len(judged) == 1 and not parse(judged[0].objective).is_metric
    texts = [f"{one.mean:.2f}" if is_plain else one.shown for one in judged]
    return ", ".join(f"{text} at {one.step}" if with_steps else text for text, one in zip(texts, judged, strict=True)) or "-"


def key(mode: str, matchup: str, agent: str) -> str:
    """Return the metric that an agent's mean return in a match-up is logged as."""
    return f"{EVALUATION}{mode}/{matchup}/{agent}"


class Score(Protocol):
    """Returns over episodes, such as `matwm.evaluation.Summary`."""

    @property
    def mean(self) -> float: ...  # noqa: D102
    @property
    def stderr(self) -> float: ...  # noqa: D102


def points(step: int, mode: str, matchup: str, agents: Mapping[str, Score], metrics: Mapping[str, Score]) -> list[Point]:
    """Return what MLflow is told of a match-up: each agent's mean return and the environment's metrics, standard errors below them."""
    found: list[Point] = []
    for agent, score in {**agents, **{f"{METRICS}{name}": score for name, score in metrics.items()}}.items():
        name = key(mode, matchup, agent)
        found += [Point(name, step, score.mean), Point(f"{name}/stderr", step, score.stderr)]
    return found


def tags(config: Config) -> dict[str, str]:
    """Return what an evaluation's numbers depend on, as tags: they may change, which MLflow's parameters may not."""
    settings = config.evaluation
    return {
        MODES_TAG: ",".join(settings.modes),
        OBJECTIVE_TAG: "; ".join(map(str, config.objectives)),
        "matwm.evaluation.episodes": str(settings.episodes),
        "matwm.evaluation.seed": str(settings.seed),
    }


def objectives(tags: Mapping[str, str]) -> tuple[Objective, ...]:
    """Return what a run is judged by, from its tags; of runs older than the tag, what their scenario is judged by."""
    if OBJECTIVE_TAG not in tags:
        name = tags.get("matwm.env", "")
        return next((scenarios.objectives(family, name) for family in scenarios.FAMILIES if name in scenarios.names(family)), ())
    try:
        return tuple(parse(text) for text in tags[OBJECTIVE_TAG].split("; ") if text)
    except ValueError:  # Anybody can write tags.
        return ()


def mode_of(metrics: Collection[str], modes: str | None) -> str | None:
    """Return the first mode of all that a run has metrics of; None if it was never judged.

    `modes` is the run's tag. Without it sampled actions count, which is how agents act in training.
    """
    there = sorted({name.split("/")[1] for name in metrics if name.startswith(EVALUATION) and name.count("/") >= 3}, reverse=True)
    return next((mode for mode in [*(modes or "").split(","), *there] if mode in there), None)


def keys(metrics: Iterable[str], mode: str, objective: Objective) -> list[str]:
    """Return the metrics of a mode whose mean an objective is, of all that a run has."""
    if objective.is_metric:
        return sorted({key(mode, objective.matchup, f"{METRICS}{objective.name}")} & {*metrics})
    start = key(mode, objective.matchup, "")
    agents = {name.removeprefix(start) for name in metrics if name.startswith(start)}
    return sorted(f"{start}{agent}" for agent in agents if "/" not in agent and role_of(agent) == objective.name)


def of_history(found: Iterable[Objective], mode: str, points: Iterable[TimedPoint], after: int) -> tuple[Best, ...]:
    """Return the best step beyond `after` (what comes before is its ancestors') by each objective that was judged.

    An evaluation done again counts instead of the first. Steps at which one of the role's agents is absent do not count.
    """
    history = list(points)
    best: list[Best] = []
    for objective in found:
        means = [Best(step, mode, mean, str(objective)) for step, mean in curve(objective, mode, history, after).items()]
        best += [max(means, key=lambda one: objective.goodness(one.mean))] if means else []
    return tuple(best)


def curve(objective: Objective, mode: str, points: Iterable[TimedPoint], after: int) -> dict[int, float]:
    """Return an objective's values by step beyond `after`, ascending; the rules are those of `of_history`."""
    values: dict[str, dict[int, float]] = {}
    for point in sorted(points, key=lambda point: point.timestamp_ms):
        if point.step > after:
            values.setdefault(point.key, {})[point.step] = point.value
    curves = [values[name] for name in keys(values, mode, objective)]
    steps = sorted(set.intersection(*map(set, curves))) if curves else []
    return {step: sum(one[step] for one in curves) / len(curves) for step in steps}


def below(objective: Objective, judged: Mapping[int, float], floors: Mapping[int, float]) -> int | None:
    """Return the first step at which the best value until then is worse than its floor, None if there is none so far."""
    for step in sorted({*floors} & {*judged}):
        best_until_now = max(objective.goodness(value) for at, value in judged.items() if at <= step)
        if best_until_now < objective.goodness(floors[step]):
            return step
    return None


def stalled(objective: Objective, judged: Mapping[int, float], patience: int, steps: Container[int]) -> int | None:
    """Return the first of some steps at which so many evaluations in a row were not better than the best before them, None if none is."""
    best_until_now, since = -math.inf, 0
    for step in sorted(judged):
        good = objective.goodness(judged[step])
        best_until_now, since = (good, 0) if good > best_until_now else (best_until_now, since + 1)
        if since >= patience and step in steps:
            return step
    return None


def of_record(evaluation: Mapping[str, Any], found: Iterable[Objective]) -> tuple[Best, ...]:
    """Return what `metrics/<segment>/evaluation.json` says: a clone has it without any MLflow."""
    try:
        mode = next(name for name in evaluation if name not in NOT_MODES)
        told = {key(mode, matchup, agent): one for matchup, agents in evaluation[mode].items() for agent, one in agents.items()}
        for matchup, metrics in evaluation.get("metrics", {}).get(mode, {}).items():
            told |= {key(mode, matchup, f"{METRICS}{name}"): one for name, one in metrics.items()}
        step = int(evaluation["step"])
        return of_history(found, mode, [TimedPoint(name, step, float(one["mean"]), 0) for name, one in told.items()], -1)
    except (StopIteration, KeyError, TypeError, ValueError, AttributeError):
        return ()


def tag(judged: Iterable[Best]) -> dict[str, str]:
    """Return the tag that holds the best evaluations of a run."""
    return {TAG: json.dumps([one._asdict() for one in judged])}


def of_tags(tags: Mapping[str, str]) -> tuple[Best, ...] | None:
    """Return the best evaluations that a run's tags hold; None if they hold none that can be read."""
    try:
        found = tuple(Best(int(one["step"]), str(one["mode"]), float(one["mean"]), str(one["objective"])) for one in json.loads(tags[TAG]))
        for one in found:
            parse(one.objective)
    except (KeyError, TypeError, ValueError):
        return None
    return found
