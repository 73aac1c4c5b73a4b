"""Says who wins and loses together in a scenario, and which fixed policies a side can play."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int, Shaped

Rule = Callable[[Shaped[np.ndarray, "E *shape"]], Int[np.ndarray, " E"]]
"""Unpadded observations of one agent -> an action for each."""


@runtime_checkable
class Script(Protocol):
    """A policy that learns nothing and sees one agent's own observation."""

    def act(self, obs: Shaped[np.ndarray, "E *shape"], mask: Bool[np.ndarray, "E a"], rng: np.random.Generator) -> Int[np.ndarray, " E"]:
        """Return one action for each of E unpadded observations of one agent, and of what is legal for it."""
        ...


ScriptFactory = Callable[[str, Mapping[str, Any]], Script]
"""(name of the scenario, its complete options) -> the script of one agent."""


@dataclass(frozen=True)
class Side:
    """Roles that win and lose together, and what they can play besides random and still."""

    roles: tuple[str, ...] | None
    """None: all there are."""
    tactics: Mapping[str, Mapping[str, ScriptFactory]] = field(default_factory=dict)
    """Name of a tactic -> role -> what makes its script."""
    frozen: tuple[str, ...] = ("random", "still")
    """Tactics against which the other side is judged."""
    can_play: Callable[[Mapping[str, Any]], bool] = lambda options: True
    """Whether the tactics work with these (complete) options of the scenario."""


ONE_TEAM = (Side(None, frozen=("random",)),)
"""All agents, of which nobody has written down more: who knows how to stand still in an unknown environment?"""


@dataclass(frozen=True)
class Ruled:
    """Follows a rule that draws nothing."""

    rule: Rule

    def act(self, obs: Shaped[np.ndarray, "E *shape"], mask: Bool[np.ndarray, "E a"], rng: np.random.Generator) -> Int[np.ndarray, " E"]:
        """Return what the rule says to each observation."""
        return self.rule(obs)


def ruled(rule: Callable[[Mapping[str, Any]], Rule]) -> ScriptFactory:
    """Return what makes scripts of a rule that depends on the options alone."""
    return lambda name, options: Ruled(rule(options))
