"""Says how good a run was at its best, from the evaluations that MLflow or git has of it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from matwm.config import EvaluationConfig
from matwm.history import Point
from pipeline.metrics.points import EVALUATION, TimedPoint

NOT_MODES = ("step", "max_steps", "references", "metrics", "words")
"""What `evaluation.json` says beside the returns of each mode."""
METRICS = "metrics/"
"""Before the name of what an environment says of its episodes, where agents or roles have theirs."""
WIN = "win"
"""The metric that counts instead of returns, where an environment has it."""
MODES_TAG = "matwm.evaluation.modes"
"""The modes that a run was judged in, the one that counts first."""


class Best(NamedTuple):
    """The best evaluation of a run: by the first mode's mean over all match-ups of the win rate, else of the learned agents' returns."""

    step: int
    mode: str
    mean: float
    measure: str = "return"
    """What `mean` is of: "return" or "win"."""

    @property
    def shown(self) -> str:
        """The mean for people: a return, or a win rate that is called one."""
        return f"{self.mean:.2f} {WIN}" if self.measure == WIN else f"{self.mean:.2f}"


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


def tags(settings: EvaluationConfig) -> dict[str, str]:
    """Return what an evaluation's numbers depend on, as tags: they may change, which MLflow's parameters may not."""
    return {
        MODES_TAG: ",".join(settings.modes),
        "matwm.evaluation.episodes": str(settings.episodes),
        "matwm.evaluation.seed": str(settings.seed),
    }


def keys(metrics: Collection[str], modes: str | None) -> tuple[str, list[str]] | None:
    """Return the first mode and the metrics that count in it, of all that a run has; None if it was never judged.

    `modes` is the run's tag. Without it sampled actions count, which is how agents act in training.
    """
    judged = sorted(name for name in metrics if name.startswith(EVALUATION) and name.count("/") == 3)
    there = sorted({name.split("/")[1] for name in judged}, reverse=True)
    order = [mode for mode in (modes or "").split(",") if mode in there] + there
    if not order:
        return None
    wins = sorted(name for name in metrics if name.startswith(f"{EVALUATION}{order[0]}/") and _is_win(name))
    return order[0], wins or [name for name in judged if name.split("/")[1] == order[0]]


def of_history(mode: str, points: Iterable[TimedPoint], after: int) -> Best | None:
    """Return the best step beyond `after` (what comes before is its ancestors'); an evaluation done again counts instead of the first.

    Steps at which some match-up or agent is absent are not comparable with the others, and do not count.
    """
    values: dict[int, dict[str, float]] = {}
    for point in sorted(points, key=lambda point: point.timestamp_ms):
        if point.step > after:
            values.setdefault(point.step, {})[point.key] = point.value
    whole = max(map(len, values.values()), default=0)
    means = [
        _best(step, mode, list(one.values()), is_win=all(map(_is_win, one))) for step, one in sorted(values.items()) if len(one) == whole
    ]
    return max(means, key=lambda best: best.mean, default=None)


def of_record(evaluation: Mapping[str, Any]) -> Best | None:
    """Return what `metrics/<segment>/evaluation.json` says: a clone has it without any MLflow."""
    try:
        mode = next(name for name in evaluation if name not in NOT_MODES)
        told = evaluation.get("metrics", {}).get(mode, {}).values()
        wins = [float(metrics[WIN]["mean"]) for metrics in told if WIN in metrics]
        means = [float(summary["mean"]) for agents in evaluation[mode].values() for summary in agents.values()]
        return _best(int(evaluation["step"]), mode, wins or means, is_win=bool(wins))
    except (StopIteration, KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError):
        return None


def _best(step: int, mode: str, values: Sequence[float], *, is_win: bool) -> Best:
    return Best(step, mode, sum(values) / len(values), WIN if is_win else "return")


def _is_win(name: str) -> bool:
    return name.endswith(f"/{METRICS}{WIN}")
