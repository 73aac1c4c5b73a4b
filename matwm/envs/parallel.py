"""Reads what parallel environments of PettingZoo say of themselves, and refuses in a sentence what would go wrong later."""

import math
from collections.abc import Mapping
from typing import Any

from matwm.envs.base import EnvError, blaming
from matwm.manifest import AGENT

PARTS = ("possible_agents", "observation_space", "action_space", "reset", "step")
OUR_METRICS = ("length", "return")
"""What an episode has whatever the environment says."""


def agents_of(name: str, env: Any) -> list[Any]:
    """Return an environment's agents, once it is known to be a parallel one.

    Raises:
        EnvError: it is none, or its agents cannot be told apart.
    """
    if hasattr(env, "agent_iter") and hasattr(env, "last"):
        raise EnvError(f"{name} is turn-based (AEC): give its parallel_env, or wrap it with pettingzoo.utils.conversions.aec_to_parallel")
    with blaming(f"reading possible_agents of {name}"):
        if lacking := [part for part in PARTS if not hasattr(env, part)]:
            raise EnvError(f"{name} is no parallel environment of PettingZoo but a {type(env).__name__}, which has no {lacking[0]}")
        agents = list(env.possible_agents)
    if not agents:
        raise EnvError(f"{name} has no agents: its possible_agents is empty")
    if odd := [agent for agent in agents if not AGENT.fullmatch(str(agent))]:
        raise EnvError(f"{name} has an agent called {odd[0]!r}: names are made of letters, digits, '_', '.' and '-'")
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
        why = "which every episode has anyway" if metric in OUR_METRICS else "names are made of letters, digits, '_', '.' and '-'"
        raise EnvError(f"{name} has a metric called {metric!r}: {why}, so give it another name")
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise EnvError(f"{name} says that its metric {metric} is {value!r}: give a finite number")
    return number
