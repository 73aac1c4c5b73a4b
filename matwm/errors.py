"""Ends a program in one sentence where a person or a disk is the cause, and nowhere else hides a traceback."""

import errno
import logging
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
IN_THE_WAY = (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
REFUSING = (*FULL, *IN_THE_WAY, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
"""Errors with which a disk refuses to be read or written, through no fault of the program."""


class UserError(Exception):
    """A person can mend the cause: the message is a sentence that says what was found and what to do."""

    shows_cause: ClassVar[bool] = False
    """Whether `__cause__` was raised by somebody else's code, whose author needs its traceback where notes say when it was."""


def run_program(main: Callable[[], int | None]) -> int:
    """Call a program's `main` and return the exit code.

    A `UserError` and a disk that refuses are a sentence on stderr and 1; Ctrl-C is 130; a closed pipe behind stdout is 141.
    Every other error is a fault of the program and passes through with its traceback.
    """
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # The pipeline itself reports, once, that a server does not answer.
    try:
        code = main() or 0
        sys.stdout.flush()
    except UserError as error:
        _report(error)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        if not _is_stdout_closed():
            raise
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in REFUSING:
            raise
        sys.stderr.write(f"{refusal(error)}: {hint(error)}\n")
        return 1
    return code


def refusal(error: OSError) -> str:
    """Return which file a disk refuses, and why."""
    return f"{error.filename or 'the disk'} cannot be used ({error.strerror})"


def hint(refusal: OSError) -> str:
    """Return what a person can do about a disk that refuses."""
    if refusal.errno in FULL:
        what = "free space there"
    elif refusal.errno in IN_THE_WAY:
        what = "move what lies there under another name away"
    else:
        what = "see to that disk and its permissions"
    return f"{what} and give the same command again"


def _report(error: UserError) -> None:
    notes = getattr(error, "__notes__", ())
    if error.shows_cause and notes and error.__cause__ is not None:
        traceback.print_exception(error.__cause__)
    sys.stderr.write("\n".join([str(error), *notes]) + "\n")


def _is_stdout_closed() -> bool:
    """Return whether nobody reads stdout any more (`matwm runs | head -1`); if so, what is left in its buffer goes nowhere."""
    pipe = select.poll()
    pipe.register(sys.stdout, 0)  # An error is reported whatever is asked for.
    if not pipe.poll(0):
        return False
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())
    return True
