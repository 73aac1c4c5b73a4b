"""Reads positions from what agents of MPE2 observe, to draw what they see, or imagine to see."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from matwm.config import EnvConfig
from matwm.envs.mpe_scripts import POSITION, Slots

Options = Mapping[str, Any]


@dataclass(frozen=True)
class View:
    """Where in an agent's observation positions stand; those of others and of landmarks are relative to its own."""

    landmarks: Slots
    others: Slots | None = None
    """All other agents, in their order."""
    own: Slots | None = None
    """None where it does not see where it is: it is drawn in the middle then."""

    def places(self, obs: Float[np.ndarray, "E O"]) -> dict[str, Float[np.ndarray, "E K 2"]]:
        """Return positions in the plane by kind: `own` (one), `landmarks` and `others`."""
        own = self.own.of(obs) if self.own else np.zeros((len(obs), 1, 2), obs.dtype)
        found = {"own": own, "landmarks": own + self.landmarks.of(obs)}
        return found | ({"others": own + self.others.of(obs)} if self.others else {})


def view(env: EnvConfig, role: str) -> View | None:
    """Return how an agent of a role sees its scenario; None where that is not known, or it does not tell who is who."""
    known = VIEWS.get((env.name, role)) if env.family == "mpe" else None
    sees_all = env.options.get("num_agent_neighbors") is None and env.options.get("num_landmark_neighbors") is None
    return known(env.options) if known and sees_all else None


def _tag(options: Options) -> View:
    landmarks = POSITION.then(options["num_obstacles"])
    return View(landmarks, landmarks.then(options["num_good"] + options["num_adversaries"] - 1), POSITION)


def _spread(options: Options) -> View:
    landmarks = POSITION.then(options["N"])
    return View(landmarks, landmarks.then(options["N"] - 1), POSITION)


def _adversary(start: int) -> Callable[[Options], View]:
    """Return the view of Simple Adversary: good agents see the goal first."""
    return lambda options: View(landmarks := Slots(start, options["N"]), landmarks.then(options["N"]))


VIEWS: Mapping[tuple[str, str], Callable[[Options], View]] = {
    ("simple_v3", "agent"): lambda _: View(Slots(2)),
    ("simple_adversary_v3", "adversary"): _adversary(0),
    ("simple_adversary_v3", "agent"): _adversary(2),
    ("simple_push_v3", "adversary"): lambda _: View(Slots(2, 2), Slots(6)),
    ("simple_push_v3", "agent"): lambda _: View(Slots(7, 2), Slots(17)),  # between velocity, goal, and colours
    ("simple_reference_v3", "agent"): lambda _: View(Slots(2, 3)),
    ("simple_speaker_listener_v4", "listener"): lambda _: View(Slots(2, 3)),
    ("simple_spread_v3", "agent"): _spread,
    ("simple_tag_v3", "adversary"): _tag,
    ("simple_tag_v3", "agent"): _tag,
}
"""(scenario, role) -> the view, by the scenario's options."""
