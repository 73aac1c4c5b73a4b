"""Reads named arrays from safetensors files, for what does without torch; an array's name is its path within a state."""

from collections.abc import Mapping

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

Arrays = Mapping[str, np.ndarray]


def decode_arrays(data: bytes) -> Arrays:
    """Return the arrays of a safetensors file.

    Raises:
        ValueError: it is none.
    """
    try:
        return safetensors.numpy.load(data)
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"no safetensors file: {error}") from None


def escaped(name: str) -> str:
    """Return a name as part of a path: `~1` stands for a slash and `~0` for a tilde, as in JSON pointers."""
    return name.replace("~", "~0").replace("/", "~1")


def names_in(path: str) -> list[str]:
    """Return the names of a path, from the outside in."""
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")]
