"""Plays the battles of SMAX (JaxMARL) against its heuristic enemy.

A unit that dies has terminated; so have all when one side is dead, survivors alive. The time limit truncates. All units share the
team's reward, the dead too. The metric `win` is 1 where every enemy is dead and a unit of ours is not.
"""

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from matwm.config import EnvConfig
from matwm.envs.legal import check_actions, idle_unless
from matwm.envs.output import stdout_aside
from matwm.envs.smax_maps import MAPS, Map
from matwm.stateful import State
from matwm.types import EnvSpec, Tick

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # The steps are small, and a GPU is torch's.
jax: Any = importlib.import_module("jax")

STOP = 4
LETTERS = {"m": 0, "s": 2, "z": 3}
"""Unit types of the package: marine, stalker, zealot."""
PIXELS = 8
"""A unit of length in pictures."""


class SmaxEnv:
    """One battle; the compiled functions are shared by all of the same map and options in a process."""

    def __init__(self, config: EnvConfig, render: bool) -> None:
        self._battle = battle(config.name, tuple(config.options.items()))
        n, game = MAPS[config.name].allies, self._battle.game
        self.spec = EnvSpec(
            name=config.name,
            agents=tuple(game.agents),
            obs_sizes=(int(game.obs_size),) * n,
            num_actions=(int(game.num_ally_actions),) * n,
            has_action_masks=True,
            resume="snapshot",
            max_steps=config.options["max_steps"],
        )
        self._draws = render
        self._state: Any = None
        self._is_running = False
        self._legal = np.ones((n, self.spec.action_size), bool)
        self._alive = self._sees = np.ones(n, bool)
        self._told: Any = None

    def reset(self, seed: int) -> Tick:
        """Start the episode that this seed alone determines."""
        self._state, self._told = self._battle.begin(int(seed))
        self._sees = np.ones(self.spec.num_agents, bool)
        return self._look()

    def step(self, actions: Int[np.ndarray, " N"]) -> Tick:
        """Move every unit, in the order of `spec.agents`; the dead have the action 4, to stop.

        Raises:
            ValueError: an action is not legal for its unit now.
            RuntimeError: no episode is under way.
        """
        if not self._is_running:
            raise RuntimeError("no episode is under way: call reset with a seed first")
        chosen = np.asarray(actions)
        check_actions(self.spec, chosen.tolist(), self._legal)
        self._sees = self._alive
        self._state, self._told = self._battle.advance(self._state, chosen.astype(np.int32))
        return self._look()

    def snapshot(self) -> State:
        """Return everything: the package's state with the random key, what was told of it, and who saw that."""
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves((self._state, self._told))]
        packed = [{"dtype": str(leaf.dtype), "shape": list(leaf.shape), "data": leaf.tobytes().hex()} for leaf in leaves]
        return {"leaves": packed, "sees": self._sees.tolist()}

    def restore(self, state: State) -> Tick:
        """Go on from a snapshot and return its tick.

        Raises:
            ValueError: it is none of this map.
        """
        saved: Any = state
        pattern, structure = jax.tree.flatten(self._battle.begin(0))
        try:
            leaves = [np.frombuffer(bytes.fromhex(one["data"]), one["dtype"]).reshape(one["shape"]) for one in saved["leaves"]]
            sees = np.array(saved["sees"], bool)
        except (KeyError, TypeError, ValueError):
            leaves, sees = [], self._sees
        if [(leaf.dtype, leaf.shape) for leaf in leaves] != [
            (leaf.dtype, leaf.shape) for leaf in pattern
        ] or sees.shape != self._sees.shape:
            raise ValueError(f"the snapshot is no state of {self.spec.name}")
        self._state, self._told = jax.tree.unflatten(structure, [jax.numpy.array(leaf) for leaf in leaves])
        self._sees = sees
        return self._look()

    def render(self) -> UInt8[np.ndarray, "height width 3"]:
        """Draw the field: ours blue, enemies red, paler as their health goes.

        Raises:
            RuntimeError: no episode was started, or the environment was made without `render=True`.
        """
        if not self._draws or self._state is None:
            raise RuntimeError("nothing to draw: make the environment with render=True and reset it first")
        game, battle = self._battle.game, self._state[1].state
        side = game.map_width * PIXELS
        picture = np.full((side, side, 3), 255, np.uint8)
        rows, columns = np.mgrid[:side, :side] / PIXELS
        health = np.asarray(battle.unit_health / game.unit_type_health[battle.unit_types])
        radii = np.asarray(game.unit_type_radiuses[battle.unit_types])
        for unit, (x, y) in enumerate(np.asarray(battle.unit_positions)):
            if battle.unit_alive[unit]:
                fade = np.uint8(200 * (1 - health[unit]))
                colour = (fade, fade, 255) if unit < self.spec.num_agents else (255, fade, fade)
                picture[(columns - x) ** 2 + (game.map_height - rows - y) ** 2 <= radii[unit] ** 2] = colour
        return picture

    def close(self) -> None:
        """Let go of the episode."""
        self._state, self._is_running = None, False

    def _look(self) -> Tick:
        obs, mask, unit_alive, steps, reward = self._told = jax.device_get(self._told)
        n = self.spec.num_agents
        living = unit_alive.tolist()
        has_ours, has_enemies = any(living[:n]), any(living[n:])
        is_decided = not (has_ours and has_enemies)
        alive = unit_alive[:n].copy()
        acts = np.zeros(n, bool) if is_decided else alive
        is_cut = not is_decided and int(steps) >= (self.spec.max_steps or 0)
        is_over = is_decided or is_cut
        legal = idle_unless(acts, mask.astype(bool), STOP)
        seen = obs.copy() if self._sees.all() else np.where(self._sees[:, None], obs, np.float32(0))
        self._legal, self._alive, self._is_running = legal, alive, not is_over
        won = {"win": float(has_ours and not has_enemies)} if is_over else {}
        return Tick(seen, legal.copy(), np.full(n, reward, np.float32), ~acts, truncated=is_cut, alive=alive.copy(), metrics=won)


@dataclass(frozen=True)
class Battle:
    """A battle and its compiled functions.

    Both return a state, (random key, the package's state), and what is told of it: observations, masks, who lives, steps, reward.
    """

    game: Any
    begin: Callable[[int], Any]
    advance: Callable[[Any, np.ndarray], Any]


@lru_cache(maxsize=8)
def battle(name: str, options: tuple[tuple[str, Any], ...]) -> Battle:
    """Return the battle of a map with these (complete) options."""
    game, agents = _made(MAPS[name], name, dict(options)), MAPS[name].allies
    names = [f"ally_{number}" for number in range(agents)]
    assert names == list(game.agents)

    def told(state: Any, reward: Any) -> Any:
        obs, legal = game.get_obs(state), game.get_avail_actions(state)
        seen, masks = (jax.numpy.stack([each[name] for name in names]) for each in (obs, legal))
        return seen, masks, state.state.unit_alive, state.state.step, jax.numpy.asarray(reward, jax.numpy.float32)

    def begin(seed: Any) -> Any:
        key, drawn = jax.random.split(jax.random.PRNGKey(seed))
        _, state = game.reset(drawn)
        # Some of its leaves have weak types, for which `advance` would be compiled a second time.
        state = jax.tree.map(lambda leaf: jax.numpy.asarray(leaf, leaf.dtype), state)
        return (key, state), told(state, 0.0)

    def advance(state: Any, actions: Any) -> Any:
        key, drawn = jax.random.split(state[0])
        _, following, reward, _, _ = game.step_env(drawn, state[1], dict(zip(names, actions, strict=True)))
        return (key, following), told(following, reward[names[0]])

    return Battle(game, jax.jit(begin), jax.jit(advance))


def _made(fight: Map, name: str, options: dict[str, Any]) -> Any:
    with stdout_aside(is_silent=True):  # Its imports greet.
        smax = importlib.import_module("jaxmarl.environments.smax.smax_env")
        heuristic = importlib.import_module("jaxmarl.environments.smax.heuristic_enemy_smax_env")
    if fight.units is None:
        scenario = smax.map_name_to_scenario(name)
    else:
        units = jax.numpy.array([LETTERS[letter] for letter in fight.units], jax.numpy.uint8)
        scenario = smax.Scenario(units, fight.allies, fight.enemies, smacv2_position_generation=False, smacv2_unit_type_generation=False)
    return heuristic.HeuristicEnemySMAX(scenario=scenario, **options)
