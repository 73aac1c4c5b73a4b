"""Says how an agent's observations and actions in a PettingZoo environment are read.

An observation is an image if its space is a Box of uint8 with the shape (height, width, channels) or (channels, height, width), of
1 or 3 channels and at least 8 pixels either way; it becomes 3 x 64 x 64. Everything else becomes a vector of float32: a Box or
MultiBinary row by row (of several dimensions: `MOST_NUMBERS` at most), a Discrete or MultiDiscrete as one-hots (as many at most). A
Dict is read if it is {"observation", "action_mask"}.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from matwm.envs.base import EnvError
from matwm.envs.images import small

LEAST_PIXELS = 8
MOST_NUMBERS = 4096
"""An array of several dimensions that has more was meant as a picture."""
MOST_ACTIONS = np.iinfo(np.int16).max
"""The replay keeps actions as int16."""


@dataclass(frozen=True)
class Sight:
    """How one agent's observations are read."""

    size: int
    """Entries of a vector, 0 for an image."""
    read: Callable[[Any], np.ndarray]
    is_image: bool = False
    has_mask: bool = False
    """The observation carries the action mask."""


def sight(who: str, space: Any) -> Sight:
    """Return how observations of this space are read; `who` begins every sentence.

    Raises:
        EnvError: they cannot be.
    """
    if isinstance(space, spaces.Dict):
        if set(space.spaces) != {"observation", "action_mask"}:
            raise EnvError(
                f"{who} observes a Dict of {', '.join(map(repr, space.spaces))}: MATWM reads {{'observation', 'action_mask'}} or no Dict, "
                "so join its entries to one Box in the environment"
            )
        inner = sight(who, space["observation"])
        return Sight(inner.size, inner.read, inner.is_image, has_mask=True)
    if isinstance(space, spaces.Box):
        if (picture := _as_picture(space)) is not None:
            return Sight(0, lambda obs: small(picture(_pixels(who, obs, space.shape))), is_image=True)
        return _vector(who, space.shape)
    if isinstance(space, spaces.MultiBinary):
        return _vector(who, space.shape)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        if (size := spaces.flatdim(space)) > MOST_NUMBERS:
            raise EnvError(f"{who} observes {space}: its one-hots have {size:,} entries, {MOST_NUMBERS:,} at most are read: use a Box")
        return Sight(size, lambda obs: _one_hots(who, space, obs))
    raise EnvError(
        f"{who} observes {space}: MATWM reads Box, Discrete, MultiDiscrete, MultiBinary, or a Dict of one of them and an action mask"
    )


def opened(who: str, obs: Any) -> Mapping[str, Any]:
    """Return a Dict as the observation that it must be.

    Raises:
        EnvError: it is none.
    """
    if not isinstance(obs, Mapping) or "observation" not in obs:
        found = f"a dict of {', '.join(map(repr, obs)) or 'nothing'}" if isinstance(obs, Mapping) else f"a {type(obs).__name__}"
        raise EnvError(f"{who} observed {found}, but its observation space says a Dict of 'observation' and 'action_mask'")
    return obs


def actions(who: str, space: Any) -> tuple[int, int]:
    """Return an agent's number of actions and the first one's number.

    Raises:
        EnvError: its actions are not a finite choice.
    """
    if isinstance(space, spaces.Discrete):
        if space.n > MOST_ACTIONS:
            raise EnvError(f"{who} has {space.n} actions: MATWM can choose from {MOST_ACTIONS:,} at most")
        return int(space.n), int(space.start)
    kind = "continuous actions" if isinstance(space, spaces.Box) else "actions of several parts"
    raise EnvError(
        f"{who} has {kind} ({space}): MATWM needs one Discrete choice, so look for an option of the environment that makes it so"
    )


def as_numbers(given: Any) -> np.ndarray | None:
    """Return what somebody else gave as an array of truths, whole or real numbers, None if it is something else."""
    try:
        array = np.asarray(given)
    except (TypeError, ValueError, RuntimeError):  # The last is how torch refuses.
        return None
    return array if array.dtype.kind in "biuf" else None


def _vector(who: str, shape: tuple[int, ...]) -> Sight:
    size = int(np.prod(shape))
    if size == 0:
        raise EnvError(f"{who} observes nothing: its space has the shape {shape}")
    if len(shape) > 1 and size > MOST_NUMBERS:
        raise EnvError(
            f"{who} observes an array of the shape {shape}, {size:,} numbers: {MOST_NUMBERS:,} at most are read as a vector, and as a "
            f"picture uint8 of height x width x 3 or 1, or channels first, from {LEAST_PIXELS} x {LEAST_PIXELS} pixels on"
        )
    return Sight(size, lambda obs: _numbers(who, obs, shape).reshape(-1))


def _numbers(who: str, obs: Any, shape: tuple[int, ...]) -> np.ndarray:
    if type(obs) is np.ndarray and obs.dtype == np.float32:  # as most are: the rest costs more than all else here
        return _shaped(who, obs, shape)
    array = as_numbers(obs)
    if array is None:
        kind = f"an array of {obs.dtype}" if isinstance(obs, np.ndarray) else f"a {type(obs).__name__}"
        raise EnvError(f"{who} observed {kind}, but its observation space says numbers of the shape {shape}")
    with np.errstate(over="ignore"):  # What is beyond float32 is refused as not finite.
        return _shaped(who, array.astype(np.float32, copy=False), shape)


def _pixels(who: str, obs: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(obs)
    if array.dtype != np.uint8:
        raise EnvError(f"{who} observed {array.dtype}, but its observation space says uint8")
    return _shaped(who, array, shape)


def _shaped(who: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if array.shape != shape:
        raise EnvError(f"{who} observed something of the shape {array.shape}, but its observation space says {shape}")
    return array


def _one_hots(who: str, space: Any, obs: Any) -> np.ndarray:
    given = as_numbers(obs)
    with np.errstate(invalid="ignore"):  # What is not finite equals no whole number.
        whole = None if given is None else given.astype(space.dtype)[()]
    if whole is None or not space.contains(whole) or np.any(whole != given):
        raise EnvError(f"{who} observed {obs!r}, which its observation space {space} does not have")
    return np.asarray(spaces.flatten(space, whole), np.float32)


def _as_picture(space: spaces.Box) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return what puts the channels last, None if the space holds no pictures."""
    shape = space.shape
    if space.dtype != np.uint8 or len(shape) != 3:
        return None
    if shape[2] in (1, 3) and min(shape[:2]) >= LEAST_PIXELS:
        return lambda obs: obs
    if shape[0] in (1, 3) and min(shape[1:]) >= LEAST_PIXELS:
        return lambda obs: obs.transpose(1, 2, 0)
    return None
