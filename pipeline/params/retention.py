"""Says which checkpoints of a segment stay: pure functions of steps, scores and the section `retention` of params.yaml."""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from matwm.history import History
from matwm.scenarios import Objective
from pipeline.metrics.records import LATEST_EPISODES

if TYPE_CHECKING:
    from matwm.checkpoint import Checkpoint
    from pipeline.params.segments import ResolvedSegment


class Policy(Protocol):
    """What the section `retention` says, or flags in its place."""

    @property
    def keep_last(self) -> int | None:
        """The newest so many; None: all."""
        ...

    @property
    def keep_every(self) -> int | None:
        """The first at or beyond each multiple of so many environment steps; None: none."""
        ...

    @property
    def keep_best(self) -> int:
        """The best so many."""
        ...


def retained(
    saves: Iterable[int], config: Policy, needed: Collection[int], scores: Sequence[Mapping[int, float]], *, start: int = 0
) -> tuple[int, ...]:
    """Return the steps whose checkpoints stay, ascending; `start` is the step that the segment begins at."""
    return tuple(reasons(saves, config, needed, scores, start=start))


def reasons(
    saves: Iterable[int], config: Policy, needed: Collection[int], scores: Sequence[Mapping[int, float]], *, start: int = 0
) -> dict[int, list[str]]:
    """Return the steps whose checkpoints stay, ascending, each with what keeps it: needed, last, every, best by one of the scores.

    What one step leaves does not depend on how often the rules are applied: to apply them to what they have left changes nothing.
    """
    steps = sorted(set(saves))
    rules = {
        "needed": {*needed, *steps[-1:]},
        "last": set(steps if config.keep_last is None else steps[len(steps) - min(config.keep_last, len(steps)) :]),
        "every": _every(steps, config.keep_every, start) if config.keep_every else set(),
        "best": {step for one in scores for step in _best(steps, one, config.keep_best)},
    }
    found = {step: [rule for rule, kept in rules.items() if step in kept] for step in steps}
    return {step: why for step, why in found.items() if why}


def scores(history: History, steps: Iterable[int], agents: Collection[int]) -> dict[int, float]:
    """Score steps by the mean return over some agents of the `LATEST_EPISODES` that had ended by then; without any there is no score."""
    ends = [episode.end_step for episode in history.episodes]
    found: dict[int, float] = {}
    for step in steps:
        count = bisect_right(ends, step)
        if latest := history.episodes[max(count - LATEST_EPISODES, 0) : count]:
            found[step] = sum(sum(episode.returns[agent] for agent in agents) / len(agents) for episode in latest) / len(latest)
    return found


def scored(newest: "Checkpoint", objectives: Iterable[Objective], steps: Collection[int]) -> list[dict[int, float]]:
    """Score steps up to a checkpoint's by each objective, higher is better: by its role's returns in training, and its direction.

    Training episodes have no match-ups and say no metrics: where such a one is the objective, or there is none, all agents count.
    """
    roles, history = newest.spec.roles(), newest.history()
    everybody = tuple(range(newest.spec.num_agents))
    wanted = {(tuple(roles.get(one.role or "", everybody)), one.is_least and one.role is not None) for one in objectives}
    return [
        {step: -score if is_least else score for step, score in scores(history, steps, agents).items()}
        for agents, is_least in sorted(wanted or {(everybody, False)})
    ]


def retained_by(segment: "ResolvedSegment", newest: "Checkpoint") -> tuple[int, ...]:
    """Return the steps up to that of `newest` whose checkpoints a segment hands on in the end, or may yet: the best so far.

    All but the best is known from params.yaml. Scores do not change later, so what is not among the best now never will be.
    """
    config, until_now = segment.config.retention, [step for step in segment.saves if step <= newest.step]
    found = scored(newest, segment.config.objectives, until_now) if config.keep_best else []
    return tuple(step for step in retained(segment.saves, config, segment.needed, found, start=segment.origin.step) if step <= newest.step)


def _every(steps: list[int], interval: int, start: int) -> set[int]:
    return {step for before, step in zip([start, *steps], steps, strict=False) if step // interval > before // interval}


def _best(steps: Iterable[int], scores: Mapping[int, float], count: int) -> list[int]:
    return sorted((step for step in steps if step in scores), key=lambda step: (scores[step], step), reverse=True)[:count]
