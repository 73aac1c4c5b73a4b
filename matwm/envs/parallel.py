"""Reads what parallel environments of PettingZoo say of themselves, and refuses in a sentence what would go wrong later."""

import contextlib
import logging
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from matwm.envs.base import EnvError, OverdueError, blaming
from matwm.envs.spaces import as_numbers
from matwm.manifest import AGENT

PARTS = ("possible_agents", "observation_space", "action_space", "reset", "step")
RETURNED = ("observations", "rewards", "terminations", "truncations", "infos")
_log = logging.getLogger(__name__)
LARGEST = float(np.finfo(np.float32).max)
OUR_METRICS = ("length", "return")
"""What an episode has whatever the environment says."""
_NAMES = "names are made of letters, digits, '_', '.' and '-', begin with one of the first three, and have 64 characters at most"


def agents_of(name: str, env: Any) -> list[Any]:
    """Return an environment's agents, once it is known to be a parallel one.

    Raises:
        EnvError: it is none, or its agents cannot be told apart.
    """
    if hasattr(env, "agent_iter") and hasattr(env, "last"):
        raise EnvError(f"{name} is turn-based (AEC): give its parallel_env, or wrap it with pettingzoo.utils.conversions.aec_to_parallel")
    with blaming(f"reading possible_agents of {name}"):
        if lacking := [part for part in PARTS if not hasattr(env, part)]:
            raise EnvError(f"{name} is no parallel environment of PettingZoo but a {env.__class__.__name__}, which has no {lacking[0]}")
        agents = list(env.possible_agents)
    if not agents:
        raise EnvError(f"{name} has no agents: its possible_agents is empty")
    if odd := [agent for agent in agents if not AGENT.fullmatch(str(agent))]:
        raise EnvError(f"{name} has an agent called {odd[0]!r}: {_NAMES}")
    if len(set(map(str, agents))) < len(agents):
        raise EnvError(f"{name} has two agents of one name: {', '.join(map(str, agents))}")
    return agents


def begun(name: str, env: Any, seed: int) -> tuple[Mapping[Any, Any], Mapping[Any, Any], set[Any]]:
    """Start an episode; return observations, infos, and who is there.

    Raises:
        EnvError: the environment does not start as PettingZoo's do.
    """
    with blaming(f"reset(seed={seed}) of {name}"):
        returned = env.reset(seed=seed)
        here = set(env.agents)
    if not isinstance(returned, tuple) or len(returned) != 2 or not all(isinstance(part, Mapping) for part in returned):
        raise EnvError(f"{name} does not return (observations, infos) from reset(seed=...), as PettingZoo's parallel environments do")
    return *returned, here


def stepped(name: str, env: Any, actions: Mapping[Any, int]) -> tuple[Mapping[Any, Any], ...]:
    """Let an environment take a step; return observations, rewards, terminations, truncations and infos.

    Raises:
        EnvError: it fails (whose cause is what its own code raised), or returns something else.
    """
    with blaming(f"step() of {name}"):
        returned = env.step(actions)
    if isinstance(returned, tuple) and len(returned) == len(RETURNED) and all(isinstance(value, dict) for value in returned):
        return returned  # as nearly everybody does: asked first, for speed
    if not isinstance(returned, tuple | list):
        found = f"a {type(returned).__name__}"
    elif len(returned) != len(RETURNED):
        found = f"{len(returned)} values"
    elif odd := [(part, value) for part, value in zip(RETURNED, returned, strict=True) if not isinstance(value, Mapping)]:
        found = f"{odd[0][0]} that are a {type(odd[0][1]).__name__}"
    else:
        return tuple(returned)
    raise EnvError(f"{name} returns {found} from step(...): expected ({', '.join(RETURNED)}), each a dict by agent, as PettingZoo's do")


def closed(name: str, env: Any) -> None:
    """Let an environment close what it holds; what its own code raises then is logged, for what it was made for is done.

    Raises:
        EnvError: it does not come back.
    """
    try:
        with blaming(f"close() of {name}"), _pygame_kept():
            getattr(env, "close", lambda: None)()
    except OverdueError:
        raise
    except EnvError as error:
        _log.warning("%s", error)


@contextlib.contextmanager
def _pygame_kept() -> Iterator[None]:
    """Let nobody quit pygame, as many a close() does: it would be gone for every other environment of the process, fonts and all."""
    modules = [vars(sys.modules[name]) for name in ("pygame", "pygame.display", "pygame.font") if name in sys.modules]
    quits = [module["quit"] for module in modules]
    try:
        for module in modules:
            module["quit"] = lambda: None
        yield
    finally:
        for module, ours in zip(modules, quits, strict=True):
            module["quit"] = ours


def check_told(name: str, agents: Iterable[Any], told: Mapping[str, Mapping[Any, Any]]) -> None:
    """Refuse a step whose dicts, by what they are called, leave out one of the agents who could act in it.

    Raises:
        EnvError: names the first one and what there is instead.
    """
    for agent in agents:
        for part, by_agent in told.items():
            if agent not in by_agent:
                there = ", ".join(map(repr, by_agent)) or "nobody"
                raise EnvError(f"{name} gave {agent}, who could act in this step, no entry in its {part}: they have {there}")


def rewards_of(name: str, agents: Sequence[Any], given: Mapping[Any, Any]) -> Float32[np.ndarray, " N"]:
    """Return rewards as the replay keeps them, 0 for those who got none.

    Raises:
        EnvError: one is not one number, or not finite as float32.
    """
    rewards = [given.get(agent, 0.0) for agent in agents]
    if not all(isinstance(reward, (float, int)) and -LARGEST <= reward <= LARGEST for reward in rewards):
        rewards = [_reward(name, agent, reward) for agent, reward in zip(agents, rewards, strict=True)]
    return np.array(rewards, np.float32)


def _reward(name: str, agent: Any, given: Any) -> np.float32:
    number = as_numbers(given)
    if number is None or number.shape:
        raise EnvError(f"{name} gave a reward that is not one number to {agent}: {' '.join(repr(given).split())}")
    with np.errstate(over="ignore"):
        reward = np.float32(number)
    if not np.isfinite(reward):
        what = "beyond float32" if np.isfinite(number) else "that is not finite"
        raise EnvError(f"{name} gave a reward {what} to {agent}: {given}")
    return reward


def metrics_of(name: str, infos: Mapping[Any, Any]) -> dict[str, float]:
    """Return what the infos of a last step hold under "metrics".

    Raises:
        EnvError: one has no name for a curve, or a name that is taken, or is no finite number.
    """
    found: dict[str, float] = {}
    for info in infos.values():
        if isinstance(info, Mapping) and isinstance(metrics := info.get("metrics"), Mapping):
            found |= {str(key): _number(name, str(key), value) for key, value in metrics.items()}
    return found


def _number(name: str, metric: str, value: Any) -> float:
    if not AGENT.fullmatch(metric) or metric in OUR_METRICS:
        why = "which every episode has anyway" if metric in OUR_METRICS else _NAMES
        raise EnvError(f"{name} has a metric called {metric!r}: {why}, so give it another name")
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise EnvError(f"{name} says that its metric {metric} is {value!r}: give a finite number")
    return number
