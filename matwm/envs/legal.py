"""Says what is legal for those who cannot act, and refuses what is not, alike in every family."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from matwm.types import EnvSpec


def idle_unless(acts: Bool[np.ndarray, " N"], legal: Bool[np.ndarray, "N A"], idle: int = 0) -> Bool[np.ndarray, "N A"]:
    """Return a new mask: what is legal for those who act, and the action `idle` alone for the others."""
    if acts.all():
        return legal.copy()
    mask = legal & acts[:, None]
    mask[~acts, idle] = True
    return mask


def checked_mask(who: str, given: Any, count: int) -> Bool[np.ndarray, " A"]:
    """Return an action mask that somebody else gave; `who` begins every sentence.

    Raises:
        ValueError: it is not a 0 or 1 for each of the `count` actions, or allows nothing.
    """
    array = np.asarray(given)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{who} got the action mask {array.tolist()}: expected a 0 or 1 for each of its {count} actions")
    if array.shape != (count,):
        raise ValueError(f"{who} got an action mask of the shape {array.shape}, but it has {count} actions")
    mask = array.astype(bool)
    if array.dtype != bool and (array != mask).any():
        raise ValueError(f"{who} got the action mask {array.tolist()}: expected a 0 or 1 for each of its {count} actions")
    if not mask.any():
        raise ValueError(f"{who} got an action mask that allows nothing: at least one of its {count} actions must be legal")
    return mask


def check_actions(spec: EnvSpec, actions: Sequence[int], legal: Bool[np.ndarray, "N A"]) -> None:
    """Raise a ValueError that names the first agent whose action is not legal."""
    if len(actions) != spec.num_agents:
        raise ValueError(f"{len(actions)} actions for the {spec.num_agents} agents of {spec.name}")
    for number, (action, count) in enumerate(zip(actions, spec.num_actions, strict=True)):
        if not 0 <= action < count or not legal[number, action]:
            why = "which is not legal now" if 0 <= action < count else f"but it has 0 to {count - 1}"
            raise ValueError(f"{spec.agents[number]} of {spec.name} was given action {action}, {why}")
