"""Lists what is judged in each scenario, and the figures of other policies to hold it against."""

from dataclasses import dataclass

NOBODY = "–"


@dataclass(frozen=True)
class Measure:
    """The return of one role in one match-up (of matwm/evaluation.py), per agent and episode of 25 steps."""

    label: str
    matchup: str
    role: str
    random: float
    """Where this role, too, plays at random."""
    script: str = NOBODY
    model_free: float | None = None
    """MAPPO after 50,000 environment steps."""
    model_free_long: float | None = None
    """MAPPO after 1,000,000."""
    has_curve: bool = True
    """Whether it is judged inside training, too."""


SOURCE = (
    "Other policies: MPE2 1.1.1, discrete actions; MAPPO is a compact implementation, greedy, 50,000 steps the mean of 3 seeds, "
    "1,000,000 one seed: the figures that this project was set to reach, measured before it began. Ours: Simple Reference, and "
    "Simple Adversary against random opponents, 1,000 episodes of `benchmarks/learning.py references --scenario NAME`. "
    "Scripts of Simple Spread: each to its nearest landmark; landmarks assigned by one that sees everything."
)

MEASURES: dict[str, tuple[Measure, ...]] = {
    "simple_spread_v3": (Measure("each agent", "self_play", "agent", -26.55, "−16.4; −8.3", -21.4, -13.5),),
    "simple_tag_v3": (
        Measure("adversary, random prey", "learned_v_random", "adversary", 4.2, "45.7", 18.5, 35.9),
        Measure("prey, scripted chaser", "chase_v_learned", "agent", -59.3, "−18.9", -62.4, -11.6),
        Measure("prey, random adversaries", "random_v_learned", "agent", -15.5, "−6.1", -17.1, -9.1),
        Measure("adversary, still prey", "learned_v_still", "adversary", 3.3, "66.9", has_curve=False),
        Measure("adversary, scripted fleer", "learned_v_flee", "adversary", 1.6, "14.9", has_curve=False),
    ),
    "simple_speaker_listener_v4": (Measure("each agent", "self_play", "listener", -41.2, "−9.2"),),
    "simple_adversary_v3": (
        Measure("good agent, random adversary", "random_v_learned", "agent", 7.5, "20.1"),
        Measure("adversary, random good agents", "learned_v_random", "adversary", -28.0, "−17.8"),
        Measure("good agent, self-play", "self_play", "agent", 6.8, "8.6", has_curve=False),
        Measure("adversary, self-play", "self_play", "adversary", -27.1, "−16.8", has_curve=False),
    ),
    "simple_reference_v3": (Measure("each agent", "self_play", "agent", -28.0),),
}

TITLES = {
    "simple_spread_v3": "Simple Spread",
    "simple_tag_v3": "Simple Tag",
    "simple_speaker_listener_v4": "Simple Speaker Listener",
    "simple_adversary_v3": "Simple Adversary",
    "simple_reference_v3": "Simple Reference",
}

FINAL = "final"
"""The name of the jobs that the table is about."""

ABLATED = "simple_spread_v3"
ABLATIONS: dict[str, tuple[str, str, object]] = {
    "no_teammates": ("without teammate predictor", "world_model.teammates.enabled", False),
    "no_recency": ("without recency priority", "replay.recency_decay", 1.0),
    "shared_words": ("without action scaling (agent identity stays on)", "world_model.action_words", "shared"),
}
"""Name of the jobs of an ablation of Table 5 -> what it is called, the key that it changes, and its value there."""
