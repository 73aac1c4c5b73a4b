"""Lists what is judged in each scenario, and the figures of other policies to hold it against."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NOBODY = "–"
USUAL_PRESET = "cpu-small"
"""Of scenarios in neither table, too."""


@dataclass(frozen=True)
class Measure:
    """What one role gets in one match-up (of matwm/evaluation.py), per agent and episode; or how often an episode ends with a win."""

    label: str
    matchup: str
    role: str
    random: float
    """Where this role, too, plays at random."""
    scripts: tuple[float, ...] = ()
    """Where scripts play it."""
    model_free: float | None = None
    """MAPPO after 50,000 environment steps."""
    model_free_long: float | None = None
    """MAPPO after 1,000,000."""
    has_curve: bool = True
    """Whether it is judged inside training, too."""
    metric: str | None = None
    """What the environment says of an episode at its end, from 0 to 1, where that is the measure and not the role's return."""

    def is_of(self, row: Mapping[str, Any]) -> bool:
        """Return whether a row of a judgement is about it."""
        ours = row.get("metric") == self.metric and row.get("role") == (None if self.metric else self.role)
        return ours and row["matchup"] == self.matchup

    def text(self, *values: float | None) -> str:
        """Return figures as people write them: shares in per cent."""
        return "; ".join(self._text(value) for value in values) or NOBODY

    def _text(self, value: float | None) -> str:
        if value is None:
            return NOBODY
        return (f"{100 * value:.0f} %" if self.metric else f"{value:.1f}").replace("-", "−")


@dataclass(frozen=True)
class Task:
    """A scenario that the tables are about, as its preset has it."""

    title: str
    measures: tuple[Measure, ...]
    preset: str = USUAL_PRESET
    is_usual: bool = True
    """Whether it is in the first table."""


SOURCE = (
    "Other policies: MPE2 1.1.1, discrete actions; MAPPO is a compact implementation, greedy, 50,000 steps the mean of 3 seeds, "
    "1,000,000 one seed: the figures that this project was set to reach, measured before it began. Ours: Simple Reference, "
    "Simple Adversary, and the second script of Simple Tag's adversaries and of Simple Speaker Listener, 1,000 episodes of "
    "`benchmarks/learning.py references --scenario NAME`. Scripts of Simple Spread: each to its nearest landmark; landmarks assigned by "
    "one that sees everything. Scripts of Simple Tag's adversaries: each goes where the prey is; each goes where it will be. Scripts of "
    "Simple Speaker Listener and Simple Reference: say where to go, and go where told; wait between the landmarks without a word."
)

MORE_SOURCE = (
    "Random play and scripts: 1,000 episodes (Pistonball 200) of `benchmarks/learning.py references --scenario NAME`. The script of SMAX "
    "is the package's own heuristic, which plays the enemy, too; in 200 battles of other seeds it had won 55 % of 3m and 43 % of 2s3z. "
    "Pistons of the script see what ours do, and rise behind the ball. "
    "SMAX is not StarCraft II: win rates do not compare with the paper's."
)

TASKS: dict[str, Task] = {
    "simple_spread_v3": Task("Simple Spread", (Measure("each agent", "self_play", "agent", -26.55, (-16.4, -8.3), -21.4, -13.5),)),
    "simple_tag_v3": Task(
        "Simple Tag",
        (
            Measure("adversary, random prey", "learned_v_random", "adversary", 4.2, (45.7, 60.3), 18.5, 35.9),
            Measure("prey, scripted chaser", "chase_v_learned", "agent", -59.3, (-18.9,), -62.4, -11.6),
            Measure("prey, random adversaries", "random_v_learned", "agent", -15.5, (-6.1,), -17.1, -9.1),
            Measure("adversary, still prey", "learned_v_still", "adversary", 3.3, (66.9, 80.7), has_curve=False),
            Measure("adversary, scripted fleer", "learned_v_flee", "adversary", 1.6, (14.9, 42.2), has_curve=False),
        ),
        "simple-tag",
    ),
    "simple_speaker_listener_v4": Task("Simple Speaker Listener", (Measure("each agent", "self_play", "listener", -41.2, (-9.2, -15.3)),)),
    "simple_adversary_v3": Task(
        "Simple Adversary",
        (
            Measure("good agent, random adversary", "random_v_learned", "agent", 7.5, (20.1,)),
            Measure("adversary, random good agents", "learned_v_random", "adversary", -28.0, (-17.8,)),
            Measure("good agent, scripted follower", "follow_v_learned", "agent", -2.6, (9.2,), has_curve=False),
            Measure("adversary, scripted splitters", "learned_v_split", "adversary", -28.2, (-17.3,), has_curve=False),
            Measure("good agent, self-play", "self_play", "agent", 7.5, (9.2,), has_curve=False),
            Measure("adversary, self-play", "self_play", "adversary", -28.0, (-17.3,), has_curve=False),
        ),
        "simple-tag",
    ),
    "simple_reference_v3": Task(
        "Simple Reference", (Measure("each agent", "self_play", "agent", -28.0, (-9.3, -17.4)),), "simple-reference"
    ),
    "3m": Task("SMAX 3m", (Measure("battles won", "self_play", "ally", 0.0, (0.484,), metric="win"),), "smax-easy", is_usual=False),
    "2s3z": Task("SMAX 2s3z", (Measure("battles won", "self_play", "ally", 0.0, (0.49,), metric="win"),), "smax-easy", is_usual=False),
    "pistonball_v6": Task(
        "Pistonball", (Measure("each of 5 pistons, from images", "self_play", "piston", 40.0, (94.0,)),), "image-small", is_usual=False
    ),
}

FINAL = "final"
"""The name of the jobs that the tables are about."""

ABLATED = "simple_spread_v3"
ABLATIONS: dict[str, tuple[str, str, object]] = {
    "no_teammates": ("without teammate predictor", "world_model.teammates.enabled", False),
    "no_recency": ("without recency priority", "replay.recency_decay", 1.0),
    "shared_words": ("without action scaling (agent identity stays on)", "world_model.action_words", "shared"),
}
"""Name of the jobs of an ablation of Table 5 -> what it is called, the key that it changes, and its value there."""
