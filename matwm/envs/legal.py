"""Refuses actions that are not legal, in the same words for every family."""

import numpy as np
from jaxtyping import Bool, Int

from matwm.types import EnvSpec


def check_actions(spec: EnvSpec, actions: Int[np.ndarray, " N"], mask: Bool[np.ndarray, "N A"]) -> None:
    """Raise a ValueError that names the first agent whose action is not among those of the mask."""
    counts = np.array(spec.num_actions)
    if actions.shape != counts.shape:
        raise ValueError(f"{actions.size} actions for the {len(counts)} agents of {spec.name}")
    exists = (actions >= 0) & (actions < counts)
    legal = exists & mask[np.arange(len(counts)), np.where(exists, actions, 0)]
    if not legal.all():
        number = int(np.argmin(legal))
        why = "which is not legal now" if exists[number] else f"but it has 0 to {counts[number] - 1}"
        raise ValueError(f"{spec.agents[number]} of {spec.name} was given action {int(actions[number])}, {why}")
