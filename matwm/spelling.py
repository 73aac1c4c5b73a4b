"""Finds what somebody meant by a word that is not known."""

import difflib
from collections.abc import Sequence


def nearest(word: str, known: Sequence[str]) -> str:
    """Return how a sentence about an unknown word ends: with the likeliest one that is known, else with all of them."""
    found = close(word, known)
    return f", did you mean {found[0]}?" if found else f" (known: {', '.join(known)})"


def close(word: str, known: Sequence[str]) -> list[str]:
    """Return the known word that looks most like `word`, if one does."""
    return difflib.get_close_matches(word, known, n=1, cutoff=0.5)
