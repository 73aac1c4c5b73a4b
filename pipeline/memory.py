"""Tells the C library how to keep memory, for processes that train and do nothing else."""

import ctypes
import logging
import sys

logger = logging.getLogger(__name__)

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Options of glibc's mallopt (malloc.h)."""


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, for as long as the process lives; do nothing where there is no mallopt.

    By default it gives large blocks back to the kernel, and each temporary of an update costs its page faults anew: an update of
    the paper's agents took 4,437 ms so and takes 3,728 ms; cpu-small's blocks are small enough to make no difference.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    # One without the other would be worse than neither: whichever is set, glibc no longer adapts the two.
    if mallopt is not None and not (mallopt(M_MMAP_THRESHOLD, 2**30) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1)):
        logger.warning("the C library refuses to keep freed memory: networks of the paper's size train a fifth slower than they could")
