"""Names the metrics of what agents' words say of goals, writes them for people, and finds them again among a run's points.

evaluation/<mode>/<matchup>/words/<speaker>/information             mutual information of word and goal, in nats
                                            information_share       the same by the goals' entropy, from 0 to 1
                                            reached                 share of episodes that the listener ends nearest to the goal
                                            swapped/reached         the same where the speaker was shown another goal
                                            swapped/followed        share of these that it ends nearest to that other goal
                                            swapped/return          the listener's mean return there, and below it its /stderr
                                            episodes
                                            goal_0/episodes         those with this goal
                                            goal_0/word_1           share of their steps at which the speaker says word 1

What is not defined, such as shares of a goal that no episode had, is no point.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from matwm.history import Point
from pipeline.metrics import points as metric_points

if TYPE_CHECKING:
    from matwm.communication import Communication

WORDS = "words"
"""Below a match-up, where agents have their names; and the section of `evaluation.json`."""


def points(step: int, mode: str, matchup: str, communication: "Iterable[Communication]") -> list[Point]:
    """Return what MLflow is told of a match-up's words: nothing of scenarios without."""
    found: list[Point] = []
    for one in communication:
        above = _above(mode, matchup, one.channel.speaker)
        values = {**_values(one), **_cells(one)}
        found += [Point(f"{above}{name}", step, value) for name, value in values.items() if not math.isnan(value)]
    return found


def for_people(communication: "Iterable[Communication]", digits: int) -> dict[str, Any]:
    """Return the same by speaker, the shares as a matrix: a row a goal, null where no episode had it."""
    told: dict[str, Any] = {}
    for one in communication:
        values = {name: round(value, digits) for name, value in _values(one).items() if not math.isnan(value)}
        shares = [None if math.isnan(row[0]) else [round(float(share), digits) for share in row] for row in one.shares]
        told[one.channel.speaker] = {"listener": one.channel.listener, **values, "goals": list(one.channel.goals), "words": shares}
    return told


def by_step(found: Iterable[metric_points.Point], mode: str, matchup: str, speaker: str) -> dict[int, dict[str, float]]:
    """Return for each step at which words were judged the values by their names below the speaker; of a step judged twice the last."""
    above = _above(mode, matchup, speaker)
    steps: dict[int, dict[str, float]] = {}
    for point in found:
        if point.key.startswith(above):
            steps.setdefault(point.step, {})[point.key.removeprefix(above)] = point.value
    return dict(sorted(steps.items()))


def is_of_goal(key: str) -> bool:
    """Return whether a metric is of one goal alone: a number of its matrix, or how many episodes had it."""
    return f"/{WORDS}/" in key and "/goal_" in key


def matrix(values: Mapping[str, float], num_goals: int, num_words: int) -> Sequence[Sequence[float]]:
    """Return the shares of words by goal out of the values of a step; NaN in the rows of goals that no episode had."""
    return [[values.get(_cell(goal, word), math.nan) for word in range(num_words)] for goal in range(num_goals)]


def _above(mode: str, matchup: str, speaker: str) -> str:
    return f"{metric_points.EVALUATION}{mode}/{matchup}/{WORDS}/{speaker}/"


def _cell(goal: int, word: int) -> str:
    return f"goal_{goal}/word_{word}"


def _values(one: "Communication") -> dict[str, float]:
    mean, stderr = one.swapped_return
    return {
        "information": one.information,
        "information_share": math.nan if one.information_share is None else one.information_share,
        "reached": one.reached,
        "swapped/reached": one.swapped_reached,
        "swapped/followed": one.swapped_followed,
        "swapped/return": mean,
        "swapped/return/stderr": stderr,
        "episodes": float(len(one.goals)),
    }


def _cells(one: "Communication") -> dict[str, float]:
    shares = one.shares
    cells = {_cell(goal, word): float(shares[goal, word]) for goal, word in np.ndindex(shares.shape)}
    return {**{f"goal_{goal}/episodes": float((one.goals == goal).sum()) for goal in range(len(shares))}, **cells}
