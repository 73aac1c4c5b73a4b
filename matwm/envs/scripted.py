"""Says which fixed policies there are for a scenario: frozen opponents for learners, and lines to hold their returns against."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int, Shaped

from matwm.config import EnvConfig
from matwm.envs import mpe_scripts as mpe
from matwm.envs.butterfly_scripts import lift_behind
from matwm.types import EnvSpec

RuleFactory = Callable[[Mapping[str, Any]], Callable[[Shaped[np.ndarray, "E *shape"]], Int[np.ndarray, " E"]]]


@runtime_checkable
class Script(Protocol):
    """A policy that learns nothing and sees one agent's own observation."""

    def act(self, obs: Shaped[np.ndarray, "E *shape"], mask: Bool[np.ndarray, "E a"], rng: np.random.Generator) -> Int[np.ndarray, " E"]:
        """Return one action for each of E unpadded observations of one agent, and of what is legal for it."""
        ...


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
class Ruled:
    """Follows a rule that draws nothing."""

    rule: Callable[[Shaped[np.ndarray, "E *shape"]], Int[np.ndarray, " E"]]

    def act(self, obs: Shaped[np.ndarray, "E *shape"], mask: Bool[np.ndarray, "E a"], rng: np.random.Generator) -> Int[np.ndarray, " E"]:
        """Return what the rule says to each observation."""
        return self.rule(obs)


@dataclass(frozen=True)
class Side:
    """Roles that win and lose together, and what they can play besides random and still."""

    roles: tuple[str, ...] | None
    """None: all there are."""
    tactics: Mapping[str, Mapping[str, RuleFactory]] = field(default_factory=dict)
    """Name of a tactic -> role -> its rule; no rule where the tactic is the package's own."""
    frozen: tuple[str, ...] = ("random", "still")
    """Tactics against which the other side is judged."""


@dataclass(frozen=True)
class LineUp:
    """Who plays what: for each side of the scenario a tactic, or None where the learner plays."""

    tactics: tuple[str | None, ...]

    @property
    def name(self) -> str:
        """`chase_v_random`, `learned_v_flee`, `learned`."""
        return "_v_".join(tactic or "learned" for tactic in self.tactics)


_TEAM = Side(("agent",))
_ALONE = Side(("agent",), {"go": {"agent": mpe.go_to_goal}})

SIDES: Mapping[str, tuple[Side, ...]] = {
    "simple_v3": (_ALONE,),
    "simple_adversary_v3": (
        Side(("adversary",), {"follow": {"adversary": mpe.follow}}, ("random", "still", "follow")),
        Side(("agent",), {"split": {"agent": mpe.split}}, ("random", "still", "split")),
    ),
    "simple_crypto_v3": (Side(("eve",)), Side(("bob", "alice"))),
    "simple_formation_v1": (_TEAM,),
    "simple_line_v1": (_TEAM,),
    "simple_push_v3": (Side(("adversary",)), Side(("agent",), {"go": {"agent": mpe.go_to_goal}}, ("random", "still", "go"))),
    "simple_reference_v3": (Side(("agent",), {"tell_and_go": {"agent": mpe.tell_and_go}, "wait_between": {"agent": mpe.wait_between}}),),
    "simple_speaker_listener_v4": (
        Side(
            ("speaker", "listener"),
            {
                "say_and_go": {"speaker": mpe.say_the_colour, "listener": mpe.go_where_told},
                "wait_between": {"speaker": mpe.say_nothing, "listener": mpe.wait_between},
            },
        ),
    ),
    "simple_spread_v3": (Side(("agent",), {"nearest_landmark": {"agent": mpe.nearest_landmark}, "assignment": {"agent": mpe.assignment}}),),
    "simple_tag_v3": (
        # The leading chaser is a line to reach, not an opponent: the figures of other methods judge prey against the plain one.
        Side(
            ("adversary",), {"chase": {"adversary": mpe.chase}, "chase_lead": {"adversary": mpe.chase_lead}}, ("random", "still", "chase")
        ),
        Side(("agent",), {"flee": {"agent": mpe.flee}}, ("random", "still", "flee")),
    ),
    "simple_world_comm_v3": (Side(("leadadversary", "adversary")), Side(("agent",))),
    "collect_treasure_v1": (Side(("collector", "deposit")),),
}
"""The sides of each scenario: one where all share an aim, two where they are opponents."""


_EVERYBODY = (Side(None, frozen=("random",)),)
_UNITS = (Side(None, {"heuristic": {}}, frozen=("random",)),)
"""Of SMAX, which has a heuristic for its enemies."""
_PISTONS = (Side(None, {"lift": {"piston": lambda options: lift_behind}}, frozen=("random",)),)


def sides(env: EnvConfig) -> tuple[Side, ...]:
    """Return the sides of a scenario; where nobody has written them down, all agents are one."""
    if env.family == "mpe":
        return SIDES[env.name]
    if (env.family, env.name) == ("butterfly", "pistonball_v6"):
        return _PISTONS
    return _UNITS if env.family == "smax" else _EVERYBODY


def opponents(env: EnvConfig) -> list[LineUp]:
    """Return the line-ups in which one side learns and the other is frozen: none where there is one side."""
    line_ups: list[LineUp] = []
    for judged in sides(env) if len(sides(env)) > 1 else ():
        choices = [[None] if side is judged else [t for t in _available(env, side) if t in side.frozen] for side in sides(env)]
        line_ups += [LineUp(tactics) for tactics in product(*choices)]
    return line_ups


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
    """Return a side's tactics.

    Nobody knows how to stand still in an unknown environment. Who sees only neighbours cannot tell them apart: no rule
    would know whom it sees.
    """
    sees_all = env.options.get("num_agent_neighbors") is None and env.options.get("num_landmark_neighbors") is None
    return ["random", *(["still"] if "still" in side.frozen else []), *(side.tactics if sees_all else ())]


def _script(env: EnvConfig, side: Side, role: str, tactic: str | None) -> Script:
    if tactic == "random":
        return Random()
    if tactic == "still":
        return Still()
    if tactic not in _available(env, side):
        raise ValueError(
            f"{role} of {env.name} has no tactic {tactic!r} with these options: choose from {', '.join(_available(env, side))}"
        )
    if env.family == "smax":
        from matwm.envs.smax_script import Heuristic

        return Heuristic(env)
    return Ruled(side.tactics[tactic][role](env.options))
