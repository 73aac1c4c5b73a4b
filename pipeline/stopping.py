"""Lets a command stop at a time of day or after a while: what trains saves then, and the same command goes on.

The moment travels in the environment, so that it reaches the stages that DVC starts and the trials that a stage starts.
"""

import argparse
import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta

VARIABLE = "MATWM_STOP_AT"
"""In the environment: when to stop, in seconds since 1970."""
UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of a command that trains."""
    parser.add_argument("--max-time", type=_duration, metavar="2h", help="save and stop after so long: 90s, 30min, 2h, 1h30min")
    parser.add_argument("--stop-at", type=_moment, metavar="HH:MM", help="save and stop at the next such time of day")


@contextlib.contextmanager
def told(options: argparse.Namespace) -> Iterator[None]:
    """Put the earlier of the two moments into the environment, and say one sentence where it has come when the block ends."""
    after = None if options.max_time is None else time.time() + options.max_time
    moments = [moment for moment in (after, options.stop_at) if moment is not None]
    if not moments:
        yield
        return
    before, end = os.environ.get(VARIABLE), min(moments)
    os.environ[VARIABLE] = repr(end)
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
        if time.time() >= end:
            clock = datetime.fromtimestamp(end).strftime("%H:%M:%S")
            sys.stderr.write(f"the time that was given is over since {clock}: what trained is saved, and the same command goes on\n")


def seconds_left() -> float | None:
    """Return how long until the moment in the environment, None if there is none."""
    try:
        return float(os.environ[VARIABLE]) - time.time()
    except (KeyError, ValueError):
        return None


def _duration(text: str) -> float:
    parts = re.findall(r"(\d+(?:\.\d+)?)(s|min|m|h|d)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: write 90s, 30min, 2h or 1h30min")
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def _moment(text: str) -> float:
    found = re.fullmatch(r"(\d{1,2}):(\d{2})", text)
    if found is None or int(found[1]) > 23 or int(found[2]) > 59:
        raise argparse.ArgumentTypeError(f"{text!r} is no time of day: write 23:00")
    now = datetime.now()
    moment = now.replace(hour=int(found[1]), minute=int(found[2]), second=0, microsecond=0)
    return (moment if moment > now else moment + timedelta(days=1)).timestamp()
