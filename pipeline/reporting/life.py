"""Signs of life: how a process shows that it trains a run, and how others tell that it does no longer."""

import os
import time
from pathlib import Path

from pipeline.run import Run

TAG = "matwm.alive"
"""The tag of a run that a process trains: when it last said so, in milliseconds, and which process it is."""
QUIET_UPLOADS = 5
LEAST_QUIET_SECONDS = 5.0

Sign = tuple[int, str]


def mark() -> str:
    """Return the tag's value for this process, now."""
    return f"{time.time_ns() // 1_000_000} {_machine()}/{os.getpid()}/{_begun(os.getpid())}"


def quiet_seconds(upload_seconds: float) -> float:
    """Return how long a process that uploads this often may say nothing and live."""
    return max(QUIET_UPLOADS * upload_seconds, LEAST_QUIET_SECONDS)


def sign_of(run: Run) -> Sign:
    """Return what differs whenever the process that trains a run has said something."""
    return run.last_sign_ms, run.tags.get(TAG, "")


def age_seconds(run: Run) -> float:
    """Return how long ago that was, by this machine's clock."""
    said = run.tags.get(TAG, "").partition(" ")[0]
    return time.time() - max(run.last_sign_ms, int(said) if said.isdigit() else 0) / 1000


def lives_here(run: Run) -> bool | None:
    """Return whether the process that last trained a run lives on this machine; None if it is not known, or another machine's."""
    machine, _, process = run.tags.get(TAG, "").partition(" ")[2].partition("/")
    pid, _, begun = process.partition("/")
    if machine != _machine() or not pid.isdigit():
        return None
    return _begun(int(pid)) == begun


def _machine() -> str:
    """Return what no other machine, and no other container on this one, has in common with us until it starts anew."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{Path('/proc/self/ns/pid').readlink().name.strip('pid:[]')}"
    except OSError:
        return "unknown"


def _begun(pid: int) -> str:
    """Return when a process began, as the system counts: numbers of processes come again; empty if it is dead."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else fields[18]
