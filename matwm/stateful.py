"""Says what training state is made of, takes it apart into tensors and plain values, and fingerprints it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Protocol, Union

import numpy as np
import torch
from torch import Tensor


class Chunk:
    """An immutable stretch of bulk data that checkpoints share, named by the digest of its bytes.

    `digest` is None until a store has written (or read) it; from then on it never changes.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], digest: str | None = None) -> None:
        self.arrays = arrays
        self.digest = digest


Value = Union[Tensor, Chunk, bool, int, float, str, None, Mapping[str, "Value"], Sequence["Value"]]
State = Mapping[str, Value]


class Stateful(Protocol):
    """Something whose state belongs in a checkpoint. No defaults: a class that forgets to save does not type-check."""

    def state_dict(self) -> State:
        """Return everything that the future depends on and the configuration does not determine."""
        ...

    def load_state_dict(self, state: State, /) -> object:
        """Take over a saved state, copying into existing tensors; raise ValueError if it does not fit."""
        ...
