"""Keeps what somebody else's code prints out of what a command says."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def stdout_aside(*, is_silent: bool = False) -> Iterator[None]:
    """Send what is printed meanwhile to stderr, or nowhere, also by file descriptor 1 and by other processes.

    `sys.stdout` is put back, too: not everybody leaves it as it was.
    """
    ours = sys.stdout
    if ours is None or sys.stderr is None:  # A daemon's are closed.
        yield
        return
    ours.flush()
    kept = os.dup(1)
    if is_silent:
        sys.stdout = io.StringIO()
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), 1)
    else:
        sys.stdout = sys.stderr
        os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout = ours
        ours.flush()  # Whoever knew it before has printed there.
        os.dup2(kept, 1)
        os.close(kept)
