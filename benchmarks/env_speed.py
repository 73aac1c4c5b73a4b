"""Times our adapters against the packages' own environments, stepped as their documentation does.

Each plays an episode of given actions from a given seed and returns the sum of everybody's rewards, which tells whether it was the same.
"""

import importlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from learn.files import rounded
from measuring import cpu_seconds

from matwm.acting import random_actions
from matwm.config import EnvConfig
from matwm.envs import make_env
from matwm.rng import generator_for

Joint = Sequence[Int[np.ndarray, " N"]]
"""Everybody's actions, step by step."""
Play = Callable[[int, Joint], float]
"""(seed, actions) -> sum of rewards."""


def recorded(env: EnvConfig, seconds: float) -> list[tuple[int, Joint]]:
    """Return (seed, actions) of episodes of random legal play that took the adapter some CPU seconds, the last perhaps unfinished."""
    played: list[tuple[int, Joint]] = []
    one, rng, spent = make_env(env), generator_for(0, "environments", 0), 0.0
    while spent < seconds:
        seed, actions = 10_000 + len(played), []
        tick = one.reset(seed)
        while not tick.is_over and spent < seconds:
            actions.append(random_actions(rng, tick.action_mask))
            began = time.process_time()
            tick = one.step(actions[-1])
            spent += time.process_time() - began
        played.append((seed, actions))
    return played


def speeds(env: EnvConfig, seconds: float, pairs: int) -> dict[str, Any]:
    """Return steps a CPU second, medians, and by how much the adapter is slower: quartiles and median over pairs of turns."""
    recorded(env, seconds / 5)  # what is compiled or loaded at first does not count, here and below
    episodes = recorded(env, seconds)
    steps = sum(len(actions) for _, actions in episodes)
    plays = {"bare": bare(env), "adapter": adapter(env)}
    for play in plays.values():
        play(*episodes[0])
    spent: dict[str, list[float]] = {who: [0.0] * pairs for who in plays}
    for number in range(pairs):
        for place, episode in enumerate(episodes):  # in turns: what else the machine does then is shared fairly
            for who in sorted(plays, reverse=bool((number + place) % 2)):
                spent[who][number] += cpu_seconds(lambda play=plays[who], episode=episode: play(*episode))
    slower = [1 - one / other for one, other in zip(spent["bare"], spent["adapter"], strict=True)]
    rates = {who: rounded(steps / statistics.median(times)) for who, times in spent.items()}
    return {**rates, "slower": [rounded(one) for one in statistics.quantiles(slower, n=4)]}


def adapter(config: EnvConfig) -> Play:
    """Return ours."""
    env = make_env(config)

    def play(seed: int, actions: Joint) -> float:
        env.reset(seed)
        return sum(float(env.step(joint).reward.sum()) for joint in actions)

    return play


def bare(config: EnvConfig) -> Play:
    """Return the package's."""
    return {"smax": _battle, "meltingpot": _substrate}.get(config.family, _parallel)(config)


def _parallel(config: EnvConfig) -> Play:
    """Return a parallel environment of PettingZoo."""
    packages = {"mpe": "mpe2.{}:parallel_env", "butterfly": "pettingzoo.butterfly.{}:parallel_env", "pettingzoo": "{}"}
    module, _, maker = packages[config.family].format(config.name).partition(":")
    discrete = {"continuous": False} if config.name == "pistonball_v6" else {}
    pictures = {"render_mode": "rgb_array"} if config.family == "butterfly" else {}  # without, two of its games are blank
    env = getattr(importlib.import_module(module), maker)(**config.options, **discrete, **pictures)
    names = env.possible_agents

    def play(seed: int, actions: Joint) -> float:
        if config.name.startswith("knights"):
            env.unwrapped.zombie_spawn_interval.reset()  # which reset(seed) forgets: the episode would be another
        env.reset(seed=seed)
        total = 0.0
        for joint in actions:
            chosen = dict(zip(names, joint.tolist(), strict=True))
            _, rewards, _, _, _ = env.step({agent: chosen[agent] for agent in env.agents})
            total += sum(rewards.values())
        return total

    return play


def _battle(config: EnvConfig) -> Play:
    """Return a battle of SMAX at its fastest: one compiled function a step, and one transfer of what it tells."""
    from matwm.envs.smax_battle import battle, jax

    game = battle(config.name, tuple(config.options.items())).game
    names = list(game.agents)

    def told(state: Any, obs: Any, reward: Any, done: Any) -> Any:
        columns = (obs, game.get_avail_actions(state), reward, done)
        return [jax.numpy.stack([column[name] for name in names]) for column in columns], done["__all__"]

    def begin(seed: Any) -> Any:
        key, drawn = jax.random.split(jax.random.PRNGKey(seed))
        _, state = game.reset(drawn)
        return key, jax.tree.map(lambda leaf: jax.numpy.asarray(leaf, leaf.dtype), state)

    def advance(key: Any, state: Any, actions: Any) -> Any:
        key, drawn = jax.random.split(key)
        obs, state, reward, done, _ = game.step_env(drawn, state, dict(zip(names, actions, strict=True)))
        return key, state, told(state, obs, reward, done)

    begin, advance = jax.jit(begin), jax.jit(advance)

    def play(seed: int, actions: Joint) -> float:
        key, state = begin(seed)
        total = 0.0
        for joint in actions:
            key, state, said = advance(key, state, joint.astype(np.int32))
            (_, _, reward, _), _ = jax.device_get(said)
            total += float(reward.sum())
        return total

    return play


def _substrate(config: EnvConfig) -> Play:
    """Return a substrate of Melting Pot; no seed determines its episodes."""
    make_env(config)  # which lets the package be imported without tensorflow
    package = importlib.import_module("meltingpot.substrate")
    world = package.build(config.name, roles=package.get_config(config.name).default_player_roles)

    def play(seed: int, actions: Joint) -> float:
        world.reset()
        return sum(float(np.sum(world.step(joint.tolist()).reward)) for joint in actions)

    return play
