"""Metric points: one value of one metric at one environment step."""

import math
from typing import NamedTuple, Protocol

from matwm.history import History

EVALUATION = "evaluation/"
"""Beginning of the keys of evaluations, which may be done again with another result."""
ON_DEMAND = "eval/"
"""Beginning of the keys of what `matwm eval` finds: mode, match-up, episodes and seed stand in the key, so that it has one value a step."""
MEASURED = ("time/", "checkpoint/")
"""Beginnings of the keys that depend on the machine: computing them again gives another value and proves nothing."""

Curves = dict[tuple[str, int], float]
"""Values by key and step."""


class Point(Protocol):
    """One value of one metric; `matwm.history.Point` is one."""

    @property
    def key(self) -> str: ...  # noqa: D102
    @property
    def step(self) -> int: ...  # noqa: D102
    @property
    def value(self) -> float: ...  # noqa: D102


class TimedPoint(NamedTuple):
    """A value of a metric with its timestamp, which makes it one and the same point in MLflow."""

    key: str
    step: int
    value: float
    timestamp_ms: int


def is_record(key: str) -> bool:
    """Return whether no checkpoint holds points of this metric: evaluations and measured times."""
    return key.startswith((EVALUATION, ON_DEMAND, *MEASURED))


def same(one: float, other: float) -> bool:
    """Return whether two values are equal; NaN equals NaN."""
    return one == other or (math.isnan(one) and math.isnan(other))


def curves_of(past: History, agents: tuple[str, ...]) -> Curves:
    """Return every point of a checkpoint's history, of its whole lineage."""
    curves = {(key, step): value for key, points in past.metrics.items() for step, value in points}
    for episode in past.episodes:
        curves["episode/length", episode.end_step] = float(episode.length)
        for agent, value in zip(agents, episode.returns, strict=True):
            curves[f"episode/return/{agent}", episode.end_step] = value
    return curves
