"""An environment that has everything the method must cope with, for tests: masks, deaths, unequal roles, endings, pictures.

Knights and a scout share a square of cells with a monster that goes for the nearest of them and kills whom it catches. A knight beside
the monster can strike; three strikes win. Nobody walks through walls, so there are illegal actions at every border. As a parallel
environment of PettingZoo it is reached by its import path, like a user's own: `family: pettingzoo, name: tests.matwm.arena:parallel_env`.
"""

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from pettingzoo import ParallelEnv

MOVES = np.array([[0, 0], [0, -1], [0, 1], [-1, 0], [1, 0]])
STRIKE = 5
HEALTH = 3
PIXELS = 8
"""A cell's, so that a picture of 8 x 8 cells is 64 x 64."""


class Arena(ParallelEnv):
    """Knights have six actions and see 5 numbers; the scout has five and sees 2 more for each mate. Rewards: 0.5 a strike, 1 the win."""

    metadata = {"name": "arena", "render_modes": ["rgb_array"]}

    def __init__(
        self,
        knights: int = 2,
        cells: int = 8,
        max_cycles: int = 20,
        see: str = "vector",
        masks: str = "observation",
        render_mode: str | None = None,
    ) -> None:
        """`see`: vector or image; `masks`: in the observation, in info, or none (then illegal actions do nothing)."""
        assert see in ("vector", "image") and masks in ("observation", "info", "none"), (see, masks)
        self.possible_agents = [*(f"knight_{i}" for i in range(knights)), "scout_0"]
        self.render_mode = render_mode
        self._cells, self._max_cycles, self._see, self._masks = cells, max_cycles, see, masks
        self._actions = {name: Discrete(5 if name == "scout_0" else 6) for name in self.possible_agents}
        self._sights = {name: self._sight(name) for name in self.possible_agents}

    def observation_space(self, agent: str) -> Any:
        return self._sights[agent]

    def action_space(self, agent: str) -> Discrete:
        return self._actions[agent]

    def _sight(self, agent: str) -> Any:
        mates = len(self.possible_agents) - 1 if agent == "scout_0" else 0
        side = self._cells * PIXELS
        seen = Box(0, 255, (side, side, 3), np.uint8) if self._see == "image" else Box(-1, 1, (5 + 2 * mates,), np.float32)
        mask = Box(0, 1, (int(self.action_space(agent).n),), np.int8)
        return Dict({"observation": seen, "action_mask": mask}) if self._masks == "observation" else seen

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        self._rng = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        places = self._rng.permutation(self._cells**2)[: len(self.agents) + 1]
        self._at = {name: np.array(divmod(place, self._cells)) for name, place in zip(self.agents, places, strict=False)}
        self._monster = np.array(divmod(places[-1], self._cells))
        self._health, self._time = HEALTH, 0
        return self._told(self.agents)

    def step(self, actions: dict[str, int]) -> tuple[dict[str, Any], ...]:
        playing = list(self.agents)
        assert set(actions) == set(playing), f"{sorted(actions)} act, {playing} play"
        self._time += 1
        strikes = 0
        for name in playing:
            if not self._legal(name)[actions[name]]:
                assert self._masks == "none", f"{name} was given an illegal action"
            elif actions[name] == STRIKE:
                strikes += 1
            else:
                self._at[name] = self._at[name] + MOVES[actions[name]]
        self._health = max(0, self._health - strikes)
        is_won = self._health == 0
        caught = [] if is_won else self._hunt(playing)
        terminated = {name: is_won or name in caught for name in playing}
        truncated = {name: self._time >= self._max_cycles and not terminated[name] for name in playing}
        self.agents = [name for name in playing if not terminated[name] and not truncated[name]]
        rewards = {name: 0.5 * strikes + is_won - (name in caught) for name in playing}
        observations, infos = self._told(playing)
        for name in playing:
            infos[name]["metrics"] = {"win": float(is_won)}
        return observations, rewards, terminated, truncated, infos

    def render(self) -> np.ndarray:
        return self._picture("")

    def close(self) -> None:
        pass

    def _hunt(self, playing: list[str]) -> list[str]:
        """Move the monster one cell towards the nearest agent, now and then astray, and return whom it catches."""
        nearest = min(playing, key=lambda name: int(np.abs(self._at[name] - self._monster).sum()))
        way = np.sign(self._at[nearest] - self._monster)
        if way.all():
            way[self._rng.integers(2)] = 0
        if self._rng.random() < 0.75:
            self._monster = self._monster + way
        return [name for name in playing if (self._at[name] == self._monster).all()]

    def _legal(self, name: str) -> np.ndarray:
        there = self._at[name] + MOVES
        legal = ((there >= 0) & (there < self._cells)).all(1)
        beside = np.abs(self._at[name] - self._monster).max() <= 1
        return legal if name == "scout_0" else np.append(legal, beside)

    def _told(self, names: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        seen = {name: self._picture(name) if self._see == "image" else self._vector(name) for name in names}
        masks = {name: self._legal(name).astype(np.int8) for name in names}
        if self._masks == "observation":
            seen = {name: {"observation": seen[name], "action_mask": masks[name]} for name in names}
        return seen, {name: {"action_mask": masks[name]} if self._masks == "info" else {} for name in names}

    def _vector(self, name: str) -> np.ndarray:
        own, scale = self._at[name], self._cells
        parts = [own / scale, (self._monster - own) / scale, [self._health / HEALTH]]
        if name == "scout_0":
            parts += [(self._at[mate] - own) / scale for mate in self.possible_agents if mate != name]
        return np.concatenate(parts).astype(np.float32)

    def _picture(self, name: str) -> np.ndarray:
        cells = np.zeros((self._cells, self._cells, 3), np.uint8)
        for mate in self.agents:
            cells[tuple(self._at[mate])] = (0, 255, 0) if mate == name else (0, 0, 255) if mate == "scout_0" else (255, 255, 255)
        cells[tuple(self._monster)] += np.array([255 * self._health // HEALTH, 0, 0], np.uint8)
        return cells.repeat(PIXELS, 0).repeat(PIXELS, 1)


parallel_env = Arena
