"""Plays units of ours in SMAX as the package plays the enemy's: a line to hold learned units against, no opponent."""

import importlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int

from matwm.envs.smax_battle import STOP, battle, jax


class Heuristic:
    """One unit in each of E episodes from their beginning: it remembers where it is headed and whom it shoots at."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self._rule, self._beginning = _rule(name, tuple(options.items()))
        self._memory: Any = None

    def act(self, obs: Float32[np.ndarray, "E O"], mask: Bool[np.ndarray, "E a"], rng: np.random.Generator) -> Int[np.ndarray, " E"]:
        """Return what the rule says to each observation, and to stop where that is not legal."""
        if self._memory is None:
            self._memory = jax.tree.map(lambda leaf: jax.numpy.stack([leaf] * len(obs)), self._beginning)
        chosen, self._memory = self._rule(int(rng.integers(2**31)), self._memory, obs)
        chosen = np.asarray(chosen, np.int64)
        return np.where(np.take_along_axis(mask, chosen[:, None], 1)[:, 0], chosen, STOP)


@lru_cache(maxsize=8)
def _rule(name: str, options: tuple[tuple[str, Any], ...]) -> tuple[Callable[[int, Any, np.ndarray], Any], Any]:
    """Return the rule for E units, (seed, memories, observations) -> (actions, memories), and a memory of nothing."""
    package = importlib.import_module("jaxmarl.environments.smax.heuristic_enemy")
    unit = package.create_heuristic_policy(battle(name, options).game._env, 0, attack_mode=dict(options)["attack_mode"])

    def rule(seed: Any, memories: Any, obs: Any) -> Any:
        return jax.vmap(unit)(jax.random.split(jax.random.PRNGKey(seed), len(obs)), memories, obs)

    return jax.jit(rule), jax.tree.map(jax.numpy.asarray, package.get_heuristic_policy_initial_state())
