"""Says what every environment is to the rest of MATWM: all agents at once, in a fixed order, padded to equal sizes."""

from types import TracebackType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8

from matwm.config import ConfigError
from matwm.types import EnvSpec, Tick

if TYPE_CHECKING:  # It imports torch, for seconds, and the tables of families are read by whatever reads params.yaml.
    from matwm.stateful import State

_SIGNALS = 128
"""A process that a signal ends exits with this and the signal's number."""


class EnvError(ConfigError):
    """An environment cannot be made, or does something that none may do; the message is a sentence."""

    shows_cause = True

    def __init__(self, problem: str) -> None:
        super().__init__([problem])


class OverdueError(EnvError):
    """A call of an environment does not come back."""


class NoPictureError(RuntimeError):
    """An environment cannot draw itself."""


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
        """Move every agent, in the order of `spec.agents`; those who are gone have action 0.

        Raises:
            ValueError: an action is not legal for its agent now.
            RuntimeError: no episode is under way.
        """
        ...

    def render(self) -> UInt8[np.ndarray, "height width 3"]:
        """Draw the present state, without changing what follows.

        Raises:
            RuntimeError: no episode was started, or the environment was made without `render=True`.
            NoPictureError: it cannot draw itself.
        """
        ...

    def close(self) -> None:
        """Let go of what the environment holds; it cannot be used afterwards."""
        ...


@runtime_checkable
class SnapshotEnv(Env, Protocol):
    """An environment whose `spec.resume` is "snapshot"."""

    def snapshot(self) -> "State":
        """Return the state of the running episode as plain values."""
        ...

    def restore(self, state: "State") -> Tick:
        """Go on from a snapshot and return its tick.

        Raises:
            ValueError: it is none of this environment.
        """
        ...


def said(error: Exception) -> str:
    """Return what somebody else's code raised, on one line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


class blaming:  # noqa: N801 read like a function, and a class for its speed: one is made in every step
    """Make an EnvError, which begins with `what`, of whatever somebody else's code raises, or exits with."""

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Raise the error instead, if there is one."""
        if isinstance(error, EnvError):
            return
        if isinstance(error, Exception):
            raise EnvError(f"{self._what} fails: {said(error)}") from error
        if isinstance(error, SystemExit) and not (isinstance(error.code, int) and error.code > _SIGNALS):
            # A code beyond is none of theirs: the process is asked to end.
            raise EnvError(f"{self._what} fails: it calls sys.exit({error.code!r})") from error
