"""Says which fixed policies there are for a scenario: frozen opponents for learners, and lines to hold their returns against."""

from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, Int, Shaped

from matwm import scenarios
from matwm.config import EnvConfig
from matwm.scenarios.objective import SELF_PLAY
from matwm.scenarios.sides import Script, Side
from matwm.types import EnvSpec


@dataclass(frozen=True)
class Random:
    """Draws every legal action with the same probability."""

    def act(self, obs: Shaped[np.ndarray, "E *shape"], mask: Bool[np.ndarray, "E a"], rng: np.random.Generator) -> Int[np.ndarray, " E"]:
        """Return E draws."""
        drawn = rng.integers(mask.sum(1))
        return (mask.cumsum(1) > drawn[:, None]).argmax(1)


@dataclass(frozen=True)
class Still:
    """Always takes action 0, which moves nobody in MPE."""

    def act(self, obs: Shaped[np.ndarray, "E *shape"], mask: Bool[np.ndarray, "E a"], rng: np.random.Generator) -> Int[np.ndarray, " E"]:
        """Return E zeros."""
        return np.zeros(len(obs), np.int64)


@dataclass(frozen=True)
class LineUp:
    """Who plays what: for each side of the scenario a tactic, or None where the learner plays."""

    tactics: tuple[str | None, ...]

    @property
    def name(self) -> str:
        """`chase_v_random`, `learned_v_flee`, `learned`."""
        return "_v_".join(tactic or "learned" for tactic in self.tactics)

    @property
    def matchup(self) -> str:
        """What it is called in results: that of learners alone is `self_play`."""
        return SELF_PLAY if all(tactic is None for tactic in self.tactics) else self.name


def sides(env: EnvConfig) -> tuple[Side, ...]:
    """Return the sides of a scenario; where nobody has written them down, all agents are one."""
    return scenarios.sides(env.family, env.name)


def opponents(env: EnvConfig) -> list[LineUp]:
    """Return the line-ups in which one side learns and the other is frozen: none where there is one side."""
    line_ups: list[LineUp] = []
    for judged in sides(env) if len(sides(env)) > 1 else ():
        choices = [[None] if side is judged else [t for t in _available(env, side) if t in side.frozen] for side in sides(env)]
        line_ups += [LineUp(tactics) for tactics in product(*choices)]
    return line_ups


def learners(env: EnvConfig) -> dict[str, tuple[str, ...] | None]:
    """Return the roles that learn in each match-up of an evaluation; None where only the environment itself knows them."""
    found: dict[str, tuple[str, ...] | None] = {}
    for line_up in (LineUp((None,) * len(sides(env))), *opponents(env)):
        learning = [side.roles for side, tactic in zip(sides(env), line_up.tactics, strict=True) if tactic is None]
        known = [roles for roles in learning if roles is not None]
        found[line_up.matchup] = tuple(role for roles in known for role in roles) if len(known) == len(learning) else None
    return found


def references(env: EnvConfig, line_up: LineUp | None = None) -> list[LineUp]:
    """Return every line-up of scripts only, or those that put scripts in the learner's place in `line_up`."""
    given = line_up.tactics if line_up else (None,) * len(sides(env))
    choices = [[tactic] if tactic else _available(env, side) for tactic, side in zip(given, sides(env), strict=True)]
    return [LineUp(tactics) for tactics in product(*choices)]


def scripts(env: EnvConfig, spec: EnvSpec, line_up: LineUp) -> dict[int, Script]:
    """Return the script of every agent that does not learn, by its number: for episodes that begin together, as some remember theirs."""
    chosen: dict[int, Script] = {}
    for side, tactic in zip(sides(env), line_up.tactics, strict=True):
        for role in spec.roles() if side.roles is None else side.roles:
            for number in spec.roles().get(role, []) if tactic else []:
                chosen[number] = _script(env, side, role, tactic)
    return chosen


def _available(env: EnvConfig, side: Side) -> list[str]:
    """Return a side's tactics."""
    return ["random", *(["still"] if "still" in side.frozen else []), *(side.tactics if side.can_play(env.options) else ())]


def _script(env: EnvConfig, side: Side, role: str, tactic: str | None) -> Script:
    if tactic == "random":
        return Random()
    if tactic == "still":
        return Still()
    if tactic not in _available(env, side):
        raise ValueError(
            f"{role} of {env.name} has no tactic {tactic!r} with these options: choose from {', '.join(_available(env, side))}"
        )
    return side.tactics[tactic][role](env.name, env.options)
