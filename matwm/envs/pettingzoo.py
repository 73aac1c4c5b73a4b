"""Turns any parallel environment of PettingZoo with discrete actions into one of ours (what is read, and how: spaces.py).

Action masks come from {"observation", "action_mask"} observations or from `infos[agent]["action_mask"]`; where an environment has none,
every action is legal. What the `infos` of the last step hold under "metrics", such as {"win": 1.0}, becomes the tick's metrics.
An agent that is flagged terminated or truncated while others go on is gone from then on; the episode is truncated where the last
who were left did not all terminate.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt8

from matwm.envs.base import EnvError, NoPictureError
from matwm.envs.images import IMAGE_SHAPE
from matwm.envs.spaces import actions as count_actions
from matwm.envs.spaces import sight
from matwm.manifest import AGENT
from matwm.types import EnvSpec, Obs, Tick

Rewards = Callable[[Any, Mapping[Any, float]], Mapping[Any, float]]


class PettingZooEnv:
    """One parallel environment, which `make` returns.

    Pickling or copying one silently resets it: it is brought back by its seed and its actions only.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Any],
        *,
        draws: bool,
        fresh_each_episode: bool = False,
        max_steps: int | None = None,
        rewards: Rewards = lambda env, given: given,
    ) -> None:
        """`fresh_each_episode`: make a new one at each reset; `rewards`: takes those of a step from the environment and what it gave.

        Raises:
            EnvError: it is none that MATWM can play.
        """
        self._make, self._fresh, self._draws, self._rewards = make, fresh_each_episode, draws, rewards
        # Agent, space and reward types are PettingZoo's own Any.
        self._env: Any = make()
        self._ids = _agents(name, self._env)
        names = tuple(map(str, self._ids))
        whos = [f"{agent} of {name}" for agent in names]
        self._sights = [sight(who, self._env.observation_space(agent)) for who, agent in zip(whos, self._ids, strict=True)]
        choices = [count_actions(who, self._env.action_space(agent)) for who, agent in zip(whos, self._ids, strict=True)]
        self._first_actions = [first for _, first in choices]
        kinds = {one.is_image for one in self._sights}
        if len(kinds) > 1:
            raise EnvError(f"{name} shows images to some agents and vectors to others: MATWM needs the same kind for all")
        is_image = kinds == {True}
        _, infos = self._reset(name, 0)
        self._masks_in_infos = any("action_mask" in infos.get(agent, {}) for agent in self._ids)
        self.spec = EnvSpec(
            name=name,
            agents=names,
            obs_sizes=tuple(int(np.prod(IMAGE_SHAPE)) if is_image else one.size for one in self._sights),
            num_actions=tuple(count for count, _ in choices),
            has_action_masks=self._masks_in_infos or any(one.has_mask for one in self._sights),
            resume="episode" if (getattr(self._env, "metadata", None) or {}).get("nondeterministic") else "replay",
            image_shape=IMAGE_SHAPE if is_image else None,
            max_steps=max_steps,
        )
        self._counts = np.array(self.spec.num_actions)
        self._rows = np.arange(len(names))
        self._was_reset = False
        self._here: set[Any] = set()
        self._started = np.zeros(len(names), bool)
        self._tick: Tick | None = None

    def reset(self, seed: int) -> Tick:
        """Start the episode that this seed alone determines, whatever came before."""
        if self._fresh:
            self._env = self._make()
        observations, infos = self._reset(self.spec.name, int(seed))
        self._was_reset = True
        self._here = set(self._env.agents)
        alive = self._started = np.array([agent in self._here for agent in self._ids])
        if not alive.any():
            raise EnvError(f"{self.spec.name} has no agents after a reset")
        obs, masks = self._seen(observations, infos, alive, alive)
        nobody = np.zeros(len(alive), bool)
        self._tick = Tick(obs, masks, np.zeros(len(alive), np.float32), nobody, truncated=False, alive=alive)
        return self._own(self._tick)

    def step(self, actions: Int[np.ndarray, " N"]) -> Tick:
        """Move every agent, in the order of `spec.agents`; those who are gone have action 0.

        Raises:
            ValueError: an action is not legal for its agent now.
            RuntimeError: no episode is under way.
            EnvError: the environment broke its contract.
        """
        before = self._tick
        if before is None:
            raise RuntimeError("no episode is under way: call reset with a seed first")
        named = self._named(np.asarray(actions), before)
        observations, rewards, terminations, truncations, infos = self._env.step(named)
        ended, cut = (
            np.array([bool(flags.get(agent, False)) for agent in self._ids]) & before.alive for flags in (terminations, truncations)
        )
        cut &= ~ended
        going_on = before.alive & ~ended & ~cut
        self._here = set(self._env.agents)
        self._check_agents(going_on)
        is_over = not going_on.any()
        alive = going_on | cut if is_over else going_on
        obs, masks = self._seen(observations, infos, alive, alive | ended)
        given = self._rewards(self._env, rewards)
        reward = np.array([given.get(agent, 0.0) for agent in self._ids], np.float32)
        if not np.isfinite(reward).all():
            raise EnvError(f"{self.spec.name} gave a reward that is not finite: {dict(given)}")
        metrics = _metrics(infos) if is_over else {}
        tick = Tick(obs, masks, reward, before.terminated | ended, truncated=bool(is_over and cut.any()), alive=alive, metrics=metrics)
        self._tick = None if is_over else tick
        return self._own(tick)

    def render(self) -> UInt8[np.ndarray, "height width 3"]:
        """Draw the present state, without changing what follows.

        Raises:
            RuntimeError: no episode was started, or the environment was made without `render=True`.
            NoPictureError: it cannot draw itself.
        """
        if not self._draws or not self._was_reset:
            raise RuntimeError("nothing to draw: make the environment with render=True and reset it first")
        try:
            picture = self._env.render()
        except (NotImplementedError, AttributeError):
            picture = None
        if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise NoPictureError(f"{self.spec.name} cannot draw itself: its render() gives no uint8 array of height x width x 3")
        return picture

    def close(self) -> None:
        """Let go of the environment; it cannot be used afterwards."""
        # A close() of those that draw with pygame quits it for the whole process, and every other environment's font with it.
        self._env = self._tick = None
        self._was_reset = False

    def _reset(self, name: str, seed: int) -> tuple[Any, Any]:
        returned = self._env.reset(seed=seed)
        if not isinstance(returned, tuple) or len(returned) != 2 or not all(isinstance(part, Mapping) for part in returned):
            raise EnvError(f"{name} does not return (observations, infos) from reset(seed=...), as PettingZoo's parallel environments do")
        return returned

    def _own(self, tick: Tick) -> Tick:
        """Return a tick whose arrays are the caller's: what the next step is checked against stays."""
        return Tick(tick.obs, tick.action_mask.copy(), tick.reward, tick.terminated.copy(), tick.truncated, tick.alive.copy(), tick.metrics)

    def _named(self, actions: Int[np.ndarray, " N"], before: Tick) -> dict[Any, int]:
        if actions.shape != self._rows.shape:
            raise ValueError(f"{actions.size} actions for the {len(self._rows)} agents of {self.spec.name}")
        exists = (actions >= 0) & (actions < self._counts)
        legal = exists & before.action_mask[self._rows, np.where(exists, actions, 0)]
        if not legal.all():
            number = int(np.argmin(legal))
            agent, action, count = self.spec.agents[number], int(actions[number]), int(self._counts[number])
            why = "which is not legal now" if exists[number] else f"but it has 0 to {count - 1}"
            raise ValueError(f"{agent} of {self.spec.name} was given action {action}, {why}")
        chosen = zip(self._ids, actions.tolist(), self._first_actions, strict=True)
        return {agent: action + first for agent, action, first in chosen if agent in self._here}

    def _check_agents(self, going_on: Bool[np.ndarray, " N"]) -> None:
        """Refuse agents that leave without a flag, or come late; those that have ended may linger."""
        for agent, goes_on, was_there in zip(self._ids, going_on, self._started, strict=True):
            if goes_on and agent not in self._here:
                raise EnvError(f"{agent} left {self.spec.name} without being terminated or truncated: one of its flags must say so")
            if not was_there and agent in self._here:
                raise EnvError(f"{agent} came into {self.spec.name} within an episode: agents are there from the start to their end")

    def _seen(
        self, observations: Mapping[Any, Any], infos: Mapping[Any, Any], alive: Bool[np.ndarray, " N"], sees: Bool[np.ndarray, " N"]
    ) -> tuple[Obs, Bool[np.ndarray, "N A"]]:
        """Return everybody's observation and mask; those who have just ended may have a last observation."""
        spec = self.spec
        obs = np.zeros((len(alive), *spec.obs_shape), spec.obs_dtype)
        masks = spec.action_exists & alive[:, None]
        for number, agent in enumerate(self._ids):
            if not sees[number]:
                continue
            if agent not in observations:
                if alive[number]:
                    raise EnvError(f"{spec.name} gave no observation to {agent}, who goes on")
                continue
            how, seen = self._sights[number], observations[agent]
            row = how.read(seen["observation"] if how.has_mask else seen)
            if how.is_image:
                obs[number] = row
            else:
                obs[number, : how.size] = row
            if alive[number] and spec.has_action_masks and (how.has_mask or self._masks_in_infos):
                masks[number, : self._counts[number]] = self._mask(number, seen if how.has_mask else infos.get(agent, {}))
        masks[~alive, 0] = True
        return obs, masks

    def _mask(self, number: int, source: Mapping[str, Any]) -> Bool[np.ndarray, " a"]:
        who = f"{self.spec.agents[number]} of {self.spec.name}"
        if "action_mask" not in source:
            raise EnvError(f"{who} got no action_mask, which its infos had at the start")
        mask = np.asarray(source["action_mask"]).astype(bool)
        if mask.shape != (self._counts[number],):
            raise EnvError(f"{who} got an action mask of the shape {mask.shape}, but it has {self._counts[number]} actions")
        if not mask.any():
            raise EnvError(f"{who} got an action mask that allows nothing: at least one action must be legal")
        return mask


def _agents(name: str, env: Any) -> list[Any]:
    """Return an environment's agents, once it is known to be a parallel one."""
    if hasattr(env, "agent_iter") and hasattr(env, "last"):
        raise EnvError(f"{name} is turn-based (AEC): give its parallel_env, or wrap it with pettingzoo.utils.conversions.aec_to_parallel")
    if lacking := [part for part in ("possible_agents", "observation_space", "action_space", "reset", "step") if not hasattr(env, part)]:
        raise EnvError(f"{name} is no parallel environment of PettingZoo but a {type(env).__name__}, which has no {lacking[0]}")
    agents = list(env.possible_agents)
    if not agents:
        raise EnvError(f"{name} has no agents: its possible_agents is empty")
    if odd := [agent for agent in agents if not AGENT.fullmatch(str(agent))]:
        raise EnvError(f"{name} has an agent called {odd[0]!r}: names are made of letters, digits, '_', '.' and '-'")
    if len(set(map(str, agents))) < len(agents):
        raise EnvError(f"{name} has two agents of one name: {', '.join(map(str, agents))}")
    return agents


def _metrics(infos: Mapping[Any, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for info in infos.values():
        if isinstance(info, Mapping) and isinstance(metrics := info.get("metrics"), Mapping):
            found |= {str(key): float(value) for key, value in metrics.items()}
    return found
