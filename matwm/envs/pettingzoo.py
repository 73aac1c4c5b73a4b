"""Turns any parallel environment of PettingZoo with discrete actions into one of ours (what is read, and how: spaces.py).

Action masks come from {"observation", "action_mask"} observations or from `infos[agent]["action_mask"]`; where an environment has none,
every action is legal. What the `infos` of the last step hold under "metrics", such as {"win": 1.0}, becomes the tick's metrics.
An agent that is flagged terminated or truncated while others go on is gone from then on; the episode is truncated where the last
who were left did not all terminate. Where they did, they are alive and see what it ended with: nothing tells a death from an ending.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from matwm.envs.base import EnvError, NoPictureError, blaming
from matwm.envs.images import IMAGE_SHAPE
from matwm.envs.legal import check_actions, checked_mask, idle_unless
from matwm.envs.parallel import agents_of, begun, check_told, closed, metrics_of, rewards_of, stepped
from matwm.envs.spaces import actions as count_actions
from matwm.envs.spaces import opened, sight
from matwm.types import EnvSpec, Obs, Tick

Rewards = Callable[[Any, Mapping[Any, float]], Mapping[Any, float]]


class PettingZooEnv:
    """One parallel environment, which `make` returns.

    Pickling or copying one silently resets it: it is brought back by its seed and its actions only.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[int], Any],
        *,
        draws: bool,
        fresh_each_episode: bool = False,
        max_steps: int | None = None,
        rewards: Rewards = lambda env, given: given,
    ) -> None:
        """`make`: returns one, given the first episode's seed; `fresh_each_episode`: make a new one at each reset; `rewards`: takes those
        of a step from the environment and what it gave.

        Raises:
            EnvError: it is none that MATWM can play.
        """
        self._name, self._make, self._fresh, self._draws, self._rewards = name, make, fresh_each_episode, draws, rewards
        # Agent, space and reward types are PettingZoo's own Any.
        self._env: Any = make(0)
        try:
            self._read(name, max_steps)
        except BaseException:
            self.close()
            raise

    def _read(self, name: str, max_steps: int | None) -> None:
        """Find out what it says of itself."""
        self._ids = agents_of(name, self._env)
        names = tuple(map(str, self._ids))
        whos = self._whos = [f"{agent} of {name}" for agent in names]
        with blaming(f"observation_space of {name}"):
            self._sights = [sight(who, self._env.observation_space(agent)) for who, agent in zip(whos, self._ids, strict=True)]
        with blaming(f"action_space of {name}"):
            choices = [count_actions(who, self._env.action_space(agent)) for who, agent in zip(whos, self._ids, strict=True)]
        self._first_actions = [first for _, first in choices]
        kinds = {one.is_image for one in self._sights}
        if len(kinds) > 1:
            raise EnvError(f"{name} shows images to some agents and vectors to others: MATWM needs the same kind for all")
        is_image = kinds == {True}
        _, infos, here = begun(name, self._env, 0)
        given = ["action_mask" in (infos.get(agent) or {}) for agent in self._ids]
        # Who is not there in this episode is taken for one like the others.
        self._masks_in_infos = [has or (any(given) and agent not in here) for agent, has in zip(self._ids, given, strict=True)]
        metadata = getattr(self._env, "metadata", None) or {}
        masked = tuple(has or one.has_mask for has, one in zip(self._masks_in_infos, self._sights, strict=True))
        self.spec = EnvSpec(
            name=name,
            agents=names,
            obs_sizes=tuple(int(np.prod(IMAGE_SHAPE)) if is_image else one.size for one in self._sights),
            num_actions=tuple(count for count, _ in choices),
            has_action_masks=any(masked),
            masked=masked,
            resume="episode" if metadata.get("nondeterministic") else "replay",
            image_shape=IMAGE_SHAPE if is_image else None,
            max_steps=max_steps,
            one_at_a_time=bool(metadata.get("one_at_a_time")),
        )
        self._was_reset = self._is_running = False
        self._obs_shape = (len(names), *self.spec.obs_shape)
        self._here: set[Any] = set()
        self._acting: list[Any] = []
        self._masks = self.spec.action_exists
        self._going_on = self._terminated = self._started = np.zeros(len(names), bool)

    def reset(self, seed: int) -> Tick:
        """Start the episode that this seed alone determines, whatever came before."""
        if self._fresh:
            self.close()
            self._env = self._make(int(seed))
        observations, infos, self._here = begun(self.spec.name, self._env, int(seed))
        self._refuse_strangers()
        self._was_reset = True
        alive = self._going_on = self._started = np.array([agent in self._here for agent in self._ids])
        self._acting = self._those(alive)
        if not alive.any():
            raise EnvError(f"{self.spec.name} has no agents after a reset")
        self._terminated = np.zeros(len(alive), bool)
        obs, masks = self._seen(observations, infos, alive, alive)
        return self._told(obs, masks, np.zeros(len(alive), np.float32), alive, is_cut=False, metrics=None)

    def step(self, actions: Int[np.ndarray, " N"]) -> Tick:
        """Move every agent, in the order of `spec.agents`; those who are gone have action 0.

        Raises:
            ValueError: an action is not legal for its agent now.
            RuntimeError: no episode is under way.
            EnvError: the environment broke its contract.
        """
        if not self._is_running:
            raise RuntimeError("no episode is under way: call reset with a seed first")
        observations, rewards, terminations, truncations, infos = stepped(self.spec.name, self._env, self._named(actions))
        given = self._rewards(self._env, rewards)
        before = going_on = self._going_on
        check_told(self.spec.name, self._acting, {"rewards": given, "terminations": terminations, "truncations": truncations})
        ended = cut = np.zeros(len(before), bool)
        if any(terminations.values()) or any(truncations.values()):
            ended, cut = (np.array([bool(flags.get(agent)) for agent in self._ids]) & before for flags in (terminations, truncations))
            cut &= ~ended
            going_on = before & ~ended & ~cut
            self._terminated = self._terminated | ended
            self._acting = self._those(going_on)
        self._check_agents(going_on, terminations, truncations)
        self._going_on, is_over = going_on, not going_on.any()
        acts = alive = cut if is_over else going_on
        if is_over and not cut.any():
            alive = ended & np.array([agent in observations for agent in self._ids])
        obs, masks = self._seen(observations, infos, acts, acts | ended)
        reward = rewards_of(self.spec.name, self._ids, given)
        is_cut = bool(is_over and cut.any())
        metrics = metrics_of(self.spec.name, infos) if is_over else None
        return self._told(obs, masks, reward, alive, is_cut=is_cut, metrics=metrics)

    def render(self) -> UInt8[np.ndarray, "height width 3"]:
        """Draw the present state, without changing what follows.

        Raises:
            RuntimeError: no episode was started, or the environment was made without `render=True`.
            NoPictureError: it cannot draw itself.
        """
        if not self._draws or not self._was_reset:
            raise RuntimeError("nothing to draw: make the environment with render=True and reset it first")
        try:
            with blaming("its render()"):
                picture = self._env.render()
        except EnvError as error:
            raise NoPictureError(f"{self.spec.name} cannot draw itself: {error}") from error
        if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise NoPictureError(f"{self.spec.name} cannot draw itself: its render() gives no uint8 array of height x width x 3")
        return picture

    def close(self) -> None:
        """Let go of the environment; it cannot be used afterwards."""
        env, self._env = self._env, None
        self._was_reset = self._is_running = False
        if env is not None:
            closed(self._name, env)

    def _told(
        self,
        obs: Obs,
        masks: Bool[np.ndarray, "N A"],
        reward: Float32[np.ndarray, " N"],
        alive: Bool[np.ndarray, " N"],
        *,
        is_cut: bool,
        metrics: Mapping[str, float] | None,
    ) -> Tick:
        """Return a tick whose arrays are the caller's: what the next step is checked against stays."""
        self._masks, self._is_running = masks, metrics is None
        return Tick(obs, masks.copy(), reward, self._terminated.copy(), is_cut, alive.copy(), metrics or {})

    def _named(self, actions: Int[np.ndarray, " N"]) -> dict[Any, int]:
        chosen = np.asarray(actions).tolist()
        check_actions(self.spec, chosen, self._masks)
        named = zip(self._ids, chosen, self._first_actions, strict=True)
        return {agent: action + first for agent, action, first in named if agent in self._here}

    def _check_agents(self, going_on: Bool[np.ndarray, " N"], *flags: Mapping[Any, Any]) -> None:
        """Refuse agents that leave without a flag, come late or come back; those that have ended may linger, if they are still flagged."""
        here, before = set(self._env.agents), self._here
        if here == before and going_on is self._going_on and going_on.all():
            return
        self._here = here
        self._refuse_strangers()
        for agent, goes_on, went_on, was_there in zip(self._ids, going_on, self._going_on, self._started, strict=True):
            if goes_on and agent not in here:
                raise EnvError(f"{agent} left {self.spec.name} without being terminated or truncated: one of its flags must say so")
            if not was_there and agent in here:
                raise EnvError(f"{agent} came into {self.spec.name} within an episode: agents are there from the start to their end")
            is_flagged = any(flag.get(agent, True) for flag in flags)
            if was_there and not went_on and agent in here and not (agent in before and is_flagged):
                raise EnvError(
                    f"{agent} came back into {self.spec.name} after it was terminated or truncated: who has ended is gone until the next "
                    "episode, so flag it only when it has no more to do in this one"
                )

    def _those(self, chosen: Bool[np.ndarray, " N"]) -> list[Any]:
        return [agent for agent, is_chosen in zip(self._ids, chosen, strict=True) if is_chosen]

    def _refuse_strangers(self) -> None:
        if odd := self._here.difference(self._ids):
            raise EnvError(f"{min(map(str, odd))} came into {self.spec.name}, but its possible_agents do not name it")

    def _seen(
        self, observations: Mapping[Any, Any], infos: Mapping[Any, Any], acts: Bool[np.ndarray, " N"], sees: Bool[np.ndarray, " N"]
    ) -> tuple[Obs, Bool[np.ndarray, "N A"]]:
        """Return everybody's observation, and the mask of those who could act now; who has just ended may have a last observation."""
        spec = self.spec
        obs = np.zeros(self._obs_shape, spec.obs_dtype)
        masks = idle_unless(acts, spec.action_exists)
        for number, (agent, does_act, does_see) in enumerate(zip(self._ids, acts.tolist(), sees.tolist(), strict=True)):
            if not does_see:
                continue
            if agent not in observations:
                if does_act:
                    why = "who goes on" if self._going_on[number] else "who is truncated here: say what it sees last"
                    raise EnvError(f"{spec.name} gave no observation to {agent}, {why}")
                continue
            how, who, source = self._sights[number], self._whos[number], infos.get(agent) or {}
            seen = observations[agent]
            if how.has_mask:
                source = opened(who, seen)
                seen = source["observation"]
            row = how.read(seen)
            if how.is_image:
                obs[number] = row
            else:
                obs[number, : how.size] = row
            if does_act and (how.has_mask or self._masks_in_infos[number]):
                masks[number, : spec.num_actions[number]] = self._mask(number, source)
            elif does_act and "action_mask" in source:
                raise EnvError(f"{who} got an action_mask, which its infos lacked at the start")
        if not spec.image_shape and not np.isfinite(obs).all():
            number = int(np.argmin(np.isfinite(obs).all(1)))
            raise EnvError(f"{spec.agents[number]} of {spec.name} observed a value that is not finite as float32")
        return obs, masks

    def _mask(self, number: int, source: Mapping[str, Any]) -> Bool[np.ndarray, " a"]:
        who = self._whos[number]
        if "action_mask" not in source:
            where = "observation space says" if self._sights[number].has_mask else "infos had at the start"
            raise EnvError(f"{who} got no action_mask, which its {where}")
        try:
            return checked_mask(who, source["action_mask"], self.spec.num_actions[number])
        except ValueError as error:
            raise EnvError(str(error)) from None
