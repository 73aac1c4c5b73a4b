"""Turns a scenario of MPE2 (PettingZoo's parallel API, discrete actions) into an environment of ours."""

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, UInt8

from matwm.config import EnvConfig
from matwm.types import EnvSpec, Tick


class MpeEnv:
    """One MPE2 scenario with the options of the configuration.

    Pickling or copying an MPE2 environment silently resets it: it is brought back by its seed and its actions only.
    """

    def __init__(self, config: EnvConfig, render: bool = False) -> None:
        module = importlib.import_module(f"mpe2.{config.name}")
        # Agent, space and reward types are PettingZoo's own Any.
        self._env: Any = module.parallel_env(**config.options, continuous_actions=False, render_mode="rgb_array" if render else None)
        self.spec = _read_spec(config.name, self._env)
        self._entries = tuple(
            (number, name, size) for number, (name, size) in enumerate(zip(self.spec.agents, self.spec.obs_sizes, strict=True))
        )
        self._draws = render
        self._was_reset = self._is_running = False

    def reset(self, seed: int) -> Tick:
        """Start the episode that this seed alone determines, whatever came before."""
        observations, _ = self._env.reset(seed=int(seed))
        self._was_reset = self._is_running = True
        nobody = np.zeros(self.spec.num_agents, bool)
        return Tick(
            self._padded(observations), self.spec.action_exists.copy(), np.zeros(self.spec.num_agents, np.float32), nobody, truncated=False
        )

    def step(self, actions: Int[np.ndarray, " N"]) -> Tick:
        """Move every agent, in the order of `spec.agents`.

        Raises:
            ValueError: an agent has no such action.
            RuntimeError: no episode is under way.
        """
        if not self._is_running:
            raise RuntimeError("no episode is under way: call reset with a seed first")
        observations, rewards, terminations, truncations, _ = self._env.step(self._named(actions))
        agents = self.spec.agents
        tick = Tick(
            self._padded(observations),
            self.spec.action_exists.copy(),
            np.array([rewards[name] for name in agents], np.float32),
            np.array([terminations[name] for name in agents], bool),
            truncated=any(truncations.values()),
        )
        self._is_running = not tick.is_over
        return tick

    def render(self) -> UInt8[np.ndarray, "height width 3"]:
        """Draw the present state, without changing what follows.

        Raises:
            RuntimeError: no episode was started, or the environment was made without `render=True`.
        """
        if not self._draws or not self._was_reset:
            raise RuntimeError("nothing to draw: make the environment with render=True and reset it first")
        return self._env.render()

    def close(self) -> None:
        """Let go of the environment; it cannot be used afterwards."""
        # MPE2's own close() quits pygame for the whole process, and every other environment's font with it.
        self._env = None
        self._was_reset = self._is_running = False

    def _named(self, actions: Int[np.ndarray, " N"]) -> dict[str, int]:
        chosen = np.asarray(actions).tolist()
        if len(chosen) != self.spec.num_agents:
            raise ValueError(f"{len(chosen)} actions for the {self.spec.num_agents} agents of {self.spec.name}")
        for name, action, count in zip(self.spec.agents, chosen, self.spec.num_actions, strict=True):
            if not 0 <= action < count:
                raise ValueError(f"{name} of {self.spec.name} has no action {action}: it has 0 to {count - 1}")
        return dict(zip(self.spec.agents, chosen, strict=True))

    def _padded(self, observations: Mapping[str, np.ndarray]) -> Float32[np.ndarray, "N O"]:
        padded = np.zeros((self.spec.num_agents, self.spec.obs_size), np.float32)
        for number, name, size in self._entries:
            padded[number, :size] = observations[name]
        return padded


def _read_spec(name: str, env: Any) -> EnvSpec:
    agents = tuple(env.possible_agents)
    return EnvSpec(
        name=name,
        agents=agents,
        obs_sizes=tuple(int(env.observation_space(agent).shape[0]) for agent in agents),
        num_actions=tuple(int(env.action_space(agent).n) for agent in agents),
    )
