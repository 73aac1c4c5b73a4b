"""An imitation of Melting Pot's substrates: their interface (dm_env's), players, actions and pictures, and randomness that no seed reaches.

As there, the discount is 0 at the first step and at the end, which comes at a random step, and a step after the end begins an episode.
"""

from types import SimpleNamespace

import numpy as np

# substrate: players, actions, pixels of a side of a player's picture
SUBSTRATES = {
    "chicken_in_the_matrix__arena": (8, 8, 88),
    "coop_mining": (6, 8, 88),
    "externality_mushrooms__dense": (5, 8, 88),
    "gift_refinements": (6, 9, 88),
    "pure_coordination_in_the_matrix__repeated": (2, 8, 40),
    "rationalizable_coordination_in_the_matrix__repeated": (2, 8, 40),
    "stag_hunt_in_the_matrix__arena": (8, 8, 88),
}


class TimeStep(SimpleNamespace):
    def last(self):
        return self.step_type == 2


class Substrate:
    def __init__(self, players, actions, side):
        self._players, self._actions, self._side = players, actions, side
        self._rng = np.random.default_rng()
        self._left, self._is_closed = -1, False

    def action_spec(self):
        return [SimpleNamespace(num_values=self._actions)] * self._players

    def reset(self):
        assert not self._is_closed
        self._left = int(self._rng.integers(40, 60))
        return self._timestep(0, 0.0, np.zeros(self._players))

    def step(self, actions):
        assert len(actions) == self._players and all(0 <= action < self._actions for action in actions), actions
        if self._left < 1:
            return self.reset()
        self._left -= 1
        rewards = self._rng.random(self._players) * (np.array(actions) == self._actions - 1)
        return self._timestep(1, 1.0, rewards) if self._left else self._timestep(2, 0.0, rewards)

    def close(self):
        self._is_closed = True

    def _timestep(self, step_type, discount, rewards):
        world = self._rng.integers(0, 256, (120, 184, 3), np.uint8)
        observation = [
            {
                "COLLECTIVE_REWARD": np.array(rewards.sum()),
                "READY_TO_SHOOT": np.array(1.0),
                "RGB": self._rng.integers(0, 256, (self._side, self._side, 3), np.uint8),
                "WORLD.RGB": world,
            }
            for _ in range(self._players)
        ]
        return TimeStep(step_type=step_type, discount=discount, reward=[np.array(one) for one in rewards], observation=observation)


def get_config(name):
    return SimpleNamespace(default_player_roles=("default",) * SUBSTRATES[name][0])


def build(name, *, roles):
    assert len(roles) == SUBSTRATES[name][0]
    return Substrate(*SUBSTRATES[name])
