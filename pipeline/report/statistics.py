"""Sums up scores over seeds: median, quartiles, interquartile mean, and bootstrap intervals (after Agarwal et al., 2021)."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:  # matplotlib
    from pipeline.drawing.figures import Curve

RESAMPLES = 2000
LEVEL = 0.95
Statistic = Callable[[Float[np.ndarray, "R S"]], Float[np.ndarray, " R"]]
"""Rows of scores -> a number for each row."""


def interquartile_mean(scores: Float[np.ndarray, "R S"]) -> Float[np.ndarray, " R"]:
    """Return the mean of the middle half of each row: a quarter of the scores, rounded down, is left out at either end."""
    cut = scores.shape[1] // 4
    return np.sort(scores, axis=1)[:, cut : scores.shape[1] - cut].mean(1)


def median(scores: Float[np.ndarray, "R S"]) -> Float[np.ndarray, " R"]:
    """Return the median of each row."""
    return np.median(scores, axis=1)


def interval(strata: Sequence[Float[np.ndarray, " S"]], statistic: Statistic) -> tuple[float, float] | None:
    """Return the 95 % percentile interval over resamples of the seeds of each stratum (a scenario's objective); None with one seed.

    The draws are always the same: a report of the same numbers is the same report.
    """
    from matwm.rng import generator_for  # torch

    if max(map(len, strata), default=0) < 2:
        return None
    rng = generator_for(0, "report", 0)
    drawn = [scores[rng.integers(len(scores), size=(RESAMPLES, len(scores)))] for scores in strata]
    found = statistic(np.concatenate(drawn, axis=1))
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def band(curves: Sequence["Curve"], points: int = 60) -> tuple[Float[np.ndarray, " P"], Float[np.ndarray, "3 P"]]:
    """Return steps and the quartiles of curves there: each curve is its mean over equal stretches of steps, where all have one."""
    last = min(curve[0][-1] for curve in curves)
    fewest = min(int((steps <= last).sum()) for steps, _ in curves)
    edges = np.linspace(0, last, max(1, min(points, fewest // 2)) + 1)
    rows = np.array([_stretches(curve, edges) for curve in curves])
    there = ~np.isnan(rows).any(0)
    return edges[1:][there], np.quantile(rows[:, there], [0.25, 0.5, 0.75], axis=0)


def aligned(curves: Sequence["Curve"]) -> tuple[Float[np.ndarray, " P"], Float[np.ndarray, "3 P"]]:
    """Return the steps that all curves have, and their quartiles there."""
    steps = sorted(set.intersection(*(set(steps.tolist()) for steps, _ in curves)))
    rows = np.array([[dict(zip(*curve, strict=True))[step] for step in steps] for curve in curves])
    return np.array(steps), np.quantile(rows, [0.25, 0.5, 0.75], axis=0) if steps else np.zeros((3, 0))


def _stretches(curve: "Curve", edges: Float[np.ndarray, " E"]) -> Float[np.ndarray, " P"]:
    steps, values = curve
    within = np.digitize(steps, edges, right=True) - 1
    return np.array([values[within == number].mean() if (within == number).any() else np.nan for number in range(len(edges) - 1)])
