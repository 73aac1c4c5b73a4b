"""Tries an environment before anything is trained on it."""

import numpy as np

from matwm.config import EnvConfig
from matwm.envs import make_env
from matwm.envs.base import Env, EnvError, said
from matwm.envs.episode_log import digest
from matwm.types import EnvSpec

STEPS = 50


def probe(config: EnvConfig) -> EnvSpec:
    """Make an environment, play one that is somebody's own for a little, and return what the networks must know of it.

    Raises:
        EnvError: it cannot be made or played, or goes another way from the same seed and does not say so.
    """
    env = make_env(config)
    if config.family != "pettingzoo":
        return env.spec
    first, again = _played(config, env), _played(config, make_env(config))
    if env.spec.resume != "episode" and first != again:
        raise EnvError(
            f"env.name is {config.name}, which goes another way when it is played again from the same seed: draw everything from what "
            "reset(seed) seeds, or say metadata = {'nondeterministic': True} there, and a resumed run will begin a fresh episode"
        )
    return env.spec


def _played(config: EnvConfig, env: Env) -> list[str]:
    """Return digests of the first steps of an episode of random legal actions."""
    rng = np.random.default_rng(0)
    try:
        tick = env.reset(0)
        told = [digest(tick)]
        while not tick.is_over and len(told) <= STEPS:
            tick = env.step(np.array([rng.choice(np.flatnonzero(legal)) for legal in tick.action_mask]))
            told.append(digest(tick))
    except EnvError as error:
        raise EnvError(f"env.name is {config.name}: {error}") from error
    except Exception as error:  # Whatever somebody's environment raises.
        raise EnvError(f"env.name is {config.name}, and playing it fails: {said(error)}") from error
    return told
