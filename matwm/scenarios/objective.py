"""Says what a run of a scenario is judged by: one number of an evaluation, and whether more or less of it is better."""

import re
from typing import NamedTuple

SELF_PLAY = "self_play"
METRICS = "metrics/"
"""Before the name of what an environment says of its episodes, where agents or roles have theirs."""

_TEXT = re.compile(r"(?:(?P<direction>max|min) )?(?:(?P<matchup>[A-Za-z0-9_.-]+)/)?(?P<metric>metrics/)?(?P<name>[A-Za-z0-9_.-]+)")


class Objective(NamedTuple):
    """A role's mean return in a match-up, or a metric of the environment such as `win` there."""

    matchup: str
    name: str
    is_metric: bool = False
    is_least: bool = False
    """Whether less is better."""

    def __str__(self) -> str:
        """Return it as params.yaml has it."""
        least = "min " * self.is_least
        if self.is_metric:
            return f"{least}{self.name}" if self.matchup == SELF_PLAY else f"{least}{self.matchup}/{METRICS}{self.name}"
        return f"{least}{self.matchup}/{self.name}"

    @property
    def role(self) -> str | None:
        """The role whose returns count, None where the environment's metric does."""
        return None if self.is_metric else self.name

    def goodness(self, value: float) -> float:
        """Return what is higher the better a value is."""
        return -value if self.is_least else value


def parse(text: str) -> Objective:
    """Return the objective that is written `MATCHUP/ROLE`, `METRIC` (in self-play) or `MATCHUP/metrics/METRIC`, `min` before it or not.

    Raises:
        ValueError: it is none of these.
    """
    found = _TEXT.fullmatch(text)
    if found is None or f"{found['matchup']}/" == METRICS or (found["metric"] and found["matchup"] is None):
        raise ValueError(
            f"objective is {text!r}: expected a role in a match-up such as learned_v_random/adversary or self_play/agent, "
            "or a metric of the environment such as win; with `min ` before it, less is better"
        )
    is_metric = found["matchup"] is None or found["metric"] is not None
    return Objective(found["matchup"] or SELF_PLAY, found["name"], is_metric, found["direction"] == "min")
