"""Compares nested mappings value by value."""

from collections.abc import Mapping
from typing import Any


def differing(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return what differs as path: (before, after); what only one has is None in the other, and a list counts as one value."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in [*before, *(key for key in after if key not in before)]:
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found |= differing(old, new, f"{prefix}{key}.")
        elif old != new or type(old) is not type(new):
            found[f"{prefix}{key}"] = (old, new)
    return found
