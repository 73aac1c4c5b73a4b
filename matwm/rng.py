"""Turns (run seed, stream name, index) into random numbers: randomness is a function, so there is no generator to save."""

import contextlib
import hashlib
import random
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch


def seed_for(seed: int, stream: str, index: int) -> int:
    """Return a 63-bit seed that depends on nothing but its three arguments."""
    digest = hashlib.blake2b(f"{seed}/{stream}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator_for(seed: int, stream: str, index: int) -> np.random.Generator:
    """Return a fresh numpy generator for one index of one stream."""
    return np.random.Generator(np.random.PCG64(seed_for(seed, stream, index)))


def seed_torch(seed: int, stream: str, index: int) -> None:
    """Re-seed torch on every device, so that what follows does not depend on what was drawn before."""
    torch.manual_seed(seed_for(seed, stream, index))


class GlobalNumbers:
    """Python's, numpy's and torch's global random numbers as somebody else's code has them, who draws from them or seeds them."""

    _holder: ClassVar["GlobalNumbers | None"] = None
    """Whose numbers numpy has: nobody here draws of those, so they stay until somebody else comes."""

    def __init__(self, seed: int) -> None:
        self._python = random.Random(seed).getstate()
        self._torch = torch.Generator().manual_seed(seed).get_state()
        self._numpy: Any = seed

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Have them in the place of ours meanwhile."""
        ours = random.getstate(), torch.get_rng_state()
        random.setstate(self._python)
        torch.set_rng_state(self._torch)
        self._take_numpy()
        try:
            yield
        finally:
            self._python, self._torch = random.getstate(), torch.get_rng_state()
            random.setstate(ours[0])
            torch.set_rng_state(ours[1])

    def _take_numpy(self) -> None:
        """Take the place of the last holder, exactly: numpy has half a pair of normal numbers beside its generator."""
        holder = GlobalNumbers._holder
        if holder is self:
            return
        if holder is not None:
            holder._numpy = np.random.get_state()
        if isinstance(self._numpy, int):
            np.random.seed(self._numpy % 2**32)
        else:
            np.random.set_state(self._numpy)
        GlobalNumbers._holder = self
