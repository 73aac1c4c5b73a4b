"""Tries an environment before anything is trained on it; as a program, plays one in a process of its own."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np

from matwm import scenarios
from matwm.config import EnvConfig
from matwm.envs import make_env
from matwm.envs.base import Env, EnvError, said
from matwm.envs.output import stdout_aside
from matwm.types import EnvSpec, Tick

STEPS = 50
ANSWER = "played: "
"""Begins the line in which another process says what it saw."""
WAY_OUT = (
    "or say metadata = {'nondeterministic': True} there, and a resumed run, also one begun before, gives its running episode up for a "
    "fresh one"
)

Told = dict[str, str]
"""Digests of what a tick says, by what people call it."""


def probe(config: EnvConfig) -> EnvSpec:
    """Make an environment, play one that is somebody's own for a little, and return what the networks must know of it.

    Raises:
        EnvError: it cannot be made or played, or goes another way from the same seed, here or in another process, and does not say so.
    """
    env = make_env(config)
    if scenarios.family(config.family).scenarios:  # which tests have played
        return env.spec
    first = _played(config, env)
    if env.spec.resume == "episode":
        return env.spec
    if differences := _differences(first, _played(config, make_env(config))):
        raise EnvError(
            f"env.name is {config.name}, which goes another way when it is played again from the same seed ({differences}): draw "
            f"everything from what reset(seed) seeds, {WAY_OUT}"
        )
    if differences := _differences(first, _played_elsewhere(config)):
        raise EnvError(
            f"env.name is {config.name}, which goes another way when another process plays it from the same seed ({differences}): let "
            f"nothing depend on the order of a set, on hash() or on id(), nor on the time or the machine, {WAY_OUT}"
        )
    return env.spec


def _played(config: EnvConfig, env: Env) -> list[Told]:
    """Return what the first steps of an episode of random legal actions say."""
    rng = np.random.default_rng(0)
    try:
        with stdout_aside():
            tick = env.reset(0)
            told = [_told(tick)]
            while not tick.is_over and len(told) <= STEPS:
                tick = env.step(np.array([rng.choice(np.flatnonzero(legal)) for legal in tick.action_mask]))
                told.append(_told(tick))
    except EnvError as error:
        raise EnvError(f"env.name is {config.name}: {error}") from error
    except Exception as error:  # Whatever somebody's environment raises.
        raise EnvError(f"env.name is {config.name}, and playing it fails: {said(error)}") from error
    return told


def _played_elsewhere(config: EnvConfig) -> list[Told]:
    """Return the same of a new process, in which sets and hashes of texts have another order."""
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    ended = subprocess.run(
        [sys.executable, "-m", __name__, config.model_dump_json()],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    for line in ended.stdout.splitlines():  # Somebody's environment may print more.
        if line.startswith(ANSWER):
            return json.loads(line.removeprefix(ANSWER))
    *_, last = ["", *filter(None, ended.stderr.splitlines())]
    raise EnvError(f"env.name is {config.name}, and playing it in another process fails (exit code {ended.returncode}): {last}")


def _told(tick: Tick) -> Told:
    ends = np.stack([tick.terminated, tick.alive, np.full_like(tick.alive, tick.truncated)])
    arrays = {"observations": tick.obs, "legal actions": tick.action_mask, "rewards": tick.reward, "endings": ends}
    told = {name: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for name, array in arrays.items()}
    return {**told, "metrics": repr(sorted(tick.metrics.items()))}


def _differences(first: list[Told], again: list[Told]) -> str | None:
    """Say what differs first, and at which step (0 is the reset); None if nothing does."""
    for step, (one, other) in enumerate(zip(first, again, strict=False)):
        if names := [name for name in one if one[name] != other[name]]:
            return f"other {' and '.join(names)} at step {step}"
    return None


if __name__ == "__main__":
    asked = EnvConfig.model_validate_json(sys.argv[1])
    sys.stdout.write(f"\n{ANSWER}{json.dumps(_played(asked, make_env(asked)))}\n")
