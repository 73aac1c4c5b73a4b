"""Turns an MPE2 agent's own observation into actions by fixed rules: the chaser, the fleer and their like.

Every rule reads a batch of one agent's unpadded observations, (E, O_i), and needs the full view: with `num_agent_neighbors` or
`num_landmark_neighbors` an observation does not say who is who.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

Options = Mapping[str, Any]
Rule = Callable[[Float[np.ndarray, "E O"]], Int[np.ndarray, " E"]]

STILL, LEFT, RIGHT, DOWN, UP = range(5)
MOVES = 5
"""Who moves and speaks at once takes action move + MOVES * word."""

COASTING = 0.4
"""How far a body at speed 1 drifts without a push: 0.1 s a step, three quarters of the speed left after each."""
HALF_PUSH = 0.1
"""Half of how far a single push carries a body with the default acceleration of 5."""


@dataclass(frozen=True)
class Slots:
    """Where in an observation the 2-vectors of a group stand."""

    start: int
    count: int = 1

    def of(self, obs: Float[np.ndarray, "E O"]) -> Float[np.ndarray, "E K 2"]:
        """Return the group's vectors."""
        return obs[:, self.start : self.start + 2 * self.count].reshape(len(obs), self.count, 2)

    def then(self, count: int) -> "Slots":
        """Return the group right behind this one."""
        return Slots(self.start + 2 * self.count, count)


VELOCITY, POSITION = Slots(0), Slots(2)


def chase(options: Options) -> Rule:
    """Adversary of Simple Tag: along the axis on which the nearest prey is farther away."""
    prey, _ = _chaser_view(options)
    return lambda obs: towards(nearest(prey.of(obs)))


def chase_lead(options: Options) -> Rule:
    """Adversary of Simple Tag: the same, at where the nearest prey will be relative to oneself if both coast."""
    prey, prey_velocity = _chaser_view(options)

    def rule(obs: Float[np.ndarray, "E O"]) -> Int[np.ndarray, " E"]:
        drift = prey_velocity.of(obs) - VELOCITY.of(obs)
        return towards(nearest(prey.of(obs) + COASTING * drift))

    return rule


def flee(options: Options) -> Rule:
    """Prey of Simple Tag: away from the nearest adversary along the larger axis, and back to the middle beyond 0.8."""
    adversaries = POSITION.then(options["num_obstacles"]).then(options["num_adversaries"])

    def rule(obs: Float[np.ndarray, "E O"]) -> Int[np.ndarray, " E"]:
        position = POSITION.of(obs)[:, 0]
        is_far_out = np.abs(position).max(1) > 0.8
        return np.where(is_far_out, towards(-position), towards(-nearest(adversaries.of(obs))))

    return rule


def nearest_landmark(options: Options) -> Rule:
    """Simple Spread: to the nearest landmark, and stop there."""
    landmarks = POSITION.then(options["N"])
    return lambda obs: stop_at(nearest(landmarks.of(obs)), VELOCITY.of(obs)[:, 0])


def assignment(options: Options) -> Rule:
    """Simple Spread: to one's own landmark in the assignment with the shortest way in all, and stop there."""
    landmarks = POSITION.then(options["N"])
    others = landmarks.then(options["N"] - 1)
    return lambda obs: stop_at(_assigned(landmarks.of(obs), others.of(obs)), VELOCITY.of(obs)[:, 0])


def say_the_colour(options: Options) -> Rule:
    """Speaker: the number of the landmark whose colour it sees."""
    return lambda obs: obs.argmax(1)


def go_where_told(options: Options) -> Rule:
    """Listener: to the landmark whose number it hears, and stop there; nothing is said before the first step."""
    return _where_told(slice(8, 11))


def tell_and_go(options: Options) -> Rule:
    """Agent of Simple Reference: says the number of the landmark that is the other's, and goes where it is told itself."""
    colour, go = slice(8, 11), _where_told(slice(11, 21))
    return lambda obs: go(obs) + MOVES * obs[:, colour].argmax(1)


def say_nothing(options: Options) -> Rule:
    """Speaker: always the same word."""
    return lambda obs: np.zeros(len(obs), np.int64)


def wait_between(options: Options) -> Rule:
    """Listener, and agent of Simple Reference: to the middle of the landmarks, and stop there; without a word."""
    landmarks = Slots(2, 3)
    return lambda obs: stop_at(landmarks.of(obs).mean(1), VELOCITY.of(obs)[:, 0])


def go_to_goal(options: Options) -> Rule:
    """Simple and the agent of Simple Push: to the first landmark or goal in view, and stop there."""
    return lambda obs: stop_at(obs[:, 2:4], VELOCITY.of(obs)[:, 0])


def split(options: Options) -> Rule:
    """Good agent of Simple Adversary: to one's own landmark, so that all are covered and the goal stays secret."""
    landmarks = Slots(2, options["N"])
    others = landmarks.then(1).then(options["N"] - 1)
    return lambda obs: towards(_assigned(landmarks.of(obs), others.of(obs)), HALF_PUSH)


def follow(options: Options) -> Rule:
    """Adversary of Simple Adversary: to the landmark that a good agent is nearest to."""
    landmarks = Slots(0, options["N"])
    agents = landmarks.then(options["N"])

    def rule(obs: Float[np.ndarray, "E O"]) -> Int[np.ndarray, " E"]:
        places = landmarks.of(obs)
        distance = np.linalg.norm(places[:, :, None] - agents.of(obs)[:, None], axis=3).min(2)  # (E, landmarks)
        return towards(places[np.arange(len(obs)), distance.argmin(1)], HALF_PUSH)

    return rule


def towards(delta: Float[np.ndarray, "E 2"], deadband: float = 0.0) -> Int[np.ndarray, " E"]:
    """Return the action along the axis on which `delta` is larger, or none within the deadband."""
    is_along_x = np.abs(delta[:, 0]) >= np.abs(delta[:, 1])
    action = np.where(is_along_x, np.where(delta[:, 0] > 0, RIGHT, LEFT), np.where(delta[:, 1] > 0, UP, DOWN))
    return np.where(np.abs(delta).max(1) <= deadband, STILL, action)


def stop_at(delta: Float[np.ndarray, "E 2"], velocity: Float[np.ndarray, "E 2"]) -> Int[np.ndarray, " E"]:
    """Return the action that brings the point where one would coast to rest closest to `delta`."""
    return towards(delta - COASTING * velocity, HALF_PUSH)


def nearest(deltas: Float[np.ndarray, "E K 2"]) -> Float[np.ndarray, "E 2"]:
    """Return the shortest vector of each group."""
    return deltas[np.arange(len(deltas)), np.square(deltas).sum(2).argmin(1)]


def _where_told(said: slice) -> Rule:
    """Return who goes to that of the three landmarks behind its velocity whose number it hears."""
    landmarks = Slots(2, 3)

    def rule(obs: Float[np.ndarray, "E O"]) -> Int[np.ndarray, " E"]:
        target = landmarks.of(obs)[np.arange(len(obs)), np.minimum(obs[:, said].argmax(1), 2)]
        return np.where(obs[:, said].any(1), stop_at(target, VELOCITY.of(obs)[:, 0]), STILL)

    return rule


def _chaser_view(options: Options) -> tuple[Slots, Slots]:
    """Return where an adversary of Simple Tag sees the prey and their velocities, behind obstacles and mates."""
    prey = POSITION.then(options["num_obstacles"]).then(options["num_adversaries"] - 1).then(options["num_good"])
    return prey, prey.then(options["num_good"])


def _assigned(landmarks: Float[np.ndarray, "E K 2"], others: Float[np.ndarray, "E K-1 2"]) -> Float[np.ndarray, "E 2"]:
    """Return the way to one's own landmark in the assignment of least total distance.

    Positions are relative to oneself, so everyone who sees everybody finds the same assignment.
    """
    from scipy.optimize import linear_sum_assignment  # MPE2 itself needs scipy

    team = np.concatenate([np.zeros((len(others), 1, 2), others.dtype), others], 1)
    distance = np.linalg.norm(team[:, :, None] - landmarks[:, None], axis=3)  # (E, agents, landmarks)
    own = np.array([linear_sum_assignment(costs)[1][0] for costs in distance])
    return landmarks[np.arange(len(landmarks)), own]
