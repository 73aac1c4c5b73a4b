"""Tries an environment before anything is trained on it, in processes of their own; as a program, plays one there."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from matwm import scenarios
from matwm.config import EnvConfig
from matwm.envs import make_env
from matwm.envs.base import EnvError, said
from matwm.envs.output import stdout_aside
from matwm.manifest import to_spec
from matwm.types import EnvSpec, Tick

STEPS = 50
SECONDS = 60.0
"""For a call while it is tried; more, a fifth of them, where env.seconds_per_call is raised."""
CALLS = 4
"""So many times a call's seconds, and `SECONDS` to start, has a process that plays: then it is ended, and all that it has started."""
MOST_PRINTED = 100_000
"""Bytes that are passed on of what it prints."""
WAY_OUT = (
    "or say metadata = {'nondeterministic': True} there, and a resumed run, also one begun before, gives its running episode up for a "
    "fresh one"
)

Told = dict[str, str]
"""Digests of what a tick says, by what people call it."""


def probe(config: EnvConfig) -> EnvSpec:
    """Return what the networks must know of an environment, which is played for a little if it is somebody's own.

    What that does to its process, and leaves in it, is not done to this one.

    Raises:
        EnvError: it cannot be made or played, or goes another way from the same seed, here or in another process, and does not say so.
    """
    if not scenarios.family(config.family).scenarios:
        return _probed(config.model_dump_json())
    with contextlib.closing(make_env(config)) as env:  # which tests have played
        return env.spec


@lru_cache(maxsize=16)
def _probed(text: str) -> EnvSpec:
    config = EnvConfig.model_validate_json(text)
    spec, first = _tried_elsewhere(config, times=2)
    if spec.resume != "episode":
        _, again = _tried_elsewhere(config, times=1)
        if differences := _differences(first, again):
            raise EnvError(
                f"env.name is {config.name}, which goes another way when another process plays it from the same seed ({differences}): let "
                f"nothing depend on the order of a set, on hash() or on id(), nor on the time or the machine, {WAY_OUT}"
            )
    return spec


def tried(config: EnvConfig, times: int = 2) -> tuple[EnvSpec, list[Told]]:
    """Play an environment here, and say what the first steps of an episode of random legal actions told.

    Raises:
        EnvError: it cannot be made or played, or goes another way when it is played again, and does not say so.
    """
    spec, first = _played(config)
    for _ in range(1, times if spec.resume != "episode" else 1):
        if differences := _differences(first, _played(config)[1]):
            raise EnvError(
                f"env.name is {config.name}, which goes another way when it is played again from the same seed ({differences}): draw "
                f"everything from what reset(seed) seeds, {WAY_OUT}"
            )
    return spec, first


def _played(config: EnvConfig) -> tuple[EnvSpec, list[Told]]:
    rng, begun = np.random.default_rng(0), time.monotonic()
    with contextlib.closing(make_env(config)) as env:
        try:
            with stdout_aside():
                tick = env.reset(0)
                told = [_told(tick)]
                while not tick.is_over and len(told) <= STEPS and (len(told) < 2 or time.monotonic() < begun + config.seconds_per_call / 3):
                    tick = env.step(np.array([rng.choice(np.flatnonzero(legal)) for legal in tick.action_mask]))
                    told.append(_told(tick))
        except EnvError as error:
            raise EnvError(f"env.name is {config.name}: {error}") from error
        except Exception as error:  # Whatever somebody's environment raises.
            raise EnvError(f"env.name is {config.name}, and playing it fails: {said(error)}") from error
        return env.spec, told


def _tried_elsewhere(config: EnvConfig, times: int) -> tuple[EnvSpec, list[Told]]:
    """Return what `tried` does in a new process; if it is to play once, sets and hashes of texts have another order there.

    The process ends with this one, by its side of a pipe, and what it has started ends with it. What it prints, and theirs, is on stderr.
    """
    seconds = min(config.seconds_per_call, max(SECONDS, config.seconds_per_call / 5))
    asked = config.model_copy(update={"seconds_per_call": seconds}).model_dump_json()
    limit = SECONDS + CALLS * seconds
    others = {} if times > 1 else {"PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"}
    theirs, ours = os.pipe()
    with tempfile.TemporaryDirectory() as folder:
        answer, output = Path(folder, "answer"), Path(folder, "output")
        with output.open("wb") as printed:
            process = subprocess.Popen(
                [sys.executable, "-m", __name__, asked, str(times), str(theirs), str(answer)],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **others},
                stdin=subprocess.DEVNULL, stdout=printed, stderr=printed, pass_fds=[theirs], start_new_session=True,
            )  # fmt: skip
        what = f"env.name is {config.name}, and playing it in a process of its own"
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            problem = f"{what} has not ended after {limit:g} s: if it needs longer, raise env.seconds_per_call"
            raise EnvError(problem) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(theirs)
            os.close(ours)
        text = output.read_bytes()[-MOST_PRINTED:].decode(errors="replace")
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8")) if answer.is_file() else {}
    sys.stderr.write(text)
    if found:
        if problem := found.get("problem"):
            raise EnvError(problem)
        return to_spec(found["spec"]), found["told"]
    *_, last = ["", *filter(None, text.splitlines())]
    raise EnvError(f"{what} fails (exit code {code}): {last}")


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


def _end_with(pipe: int) -> None:
    """Wait for whoever asked to end, and end with all that was started here."""
    os.read(pipe, 1)
    os.killpg(0, signal.SIGKILL)


def _main(asked: str, times: str, pipe: str, answer: str) -> None:
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    threading.Thread(target=_end_with, args=(int(pipe),), daemon=True).start()
    try:
        spec, told = tried(EnvConfig.model_validate_json(asked), int(times))
        found = {"spec": dataclasses.asdict(spec), "told": told}
    except EnvError as error:
        found = {"problem": str(error)}
    Path(answer).write_text(json.dumps(found), encoding="utf-8")
    sys.stderr.flush()
    os._exit(0)  # Whatever threads it has left.


if __name__ == "__main__":
    _main(*sys.argv[1:])
