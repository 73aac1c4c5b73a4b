"""Puts sizes and long lists into words."""

from collections.abc import Sequence


def few(names: Sequence[str], at_most: int = 3) -> str:
    """Return the first of many names for a sentence: `a, b, c and 4 more`; nothing if there is none."""
    return ", ".join(names[:at_most]) + (f" and {len(names) - at_most} more" if len(names) > at_most else "")


def readable(num_bytes: float) -> str:
    """Return a number of bytes for people: `1.5 GB`."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:,.1f} {unit}"
    return f"{num_bytes:.0f} B"
