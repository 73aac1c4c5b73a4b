"""Says what every environment is to the rest of MATWM: all agents at once, in a fixed order, padded to equal sizes."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8

from matwm.types import EnvSpec, Tick


@runtime_checkable
class Env(Protocol):
    """One environment that its caller drives episode by episode; it never resets itself."""

    @property
    def spec(self) -> EnvSpec:
        """Agents, sizes, and whether the environment can be brought back exactly."""
        ...

    def reset(self, seed: int) -> Tick:
        """Start the episode that this seed alone determines, whatever came before."""
        ...

    def step(self, actions: Int[np.ndarray, " N"]) -> Tick:
        """Move every agent, in the order of `spec.agents`.

        Raises:
            ValueError: an agent has no such action.
            RuntimeError: no episode is under way.
        """
        ...

    def render(self) -> UInt8[np.ndarray, "height width 3"]:
        """Draw the present state, without changing what follows.

        Raises:
            RuntimeError: no episode was started, or the environment was made without `render=True`.
        """
        ...

    def close(self) -> None:
        """Let go of what the environment holds; it cannot be used afterwards."""
        ...
