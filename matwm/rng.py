"""Turns (run seed, stream name, index) into random numbers: randomness is a function, so there is no generator to save."""

import hashlib

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
