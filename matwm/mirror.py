"""Keeps the replay's observations on a GPU, where batches are put together: all else of a row is a few bytes."""

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from matwm.batches import on_device


class Mirror:
    """A copy of a ring of rows on a device; what was added since is brought over when somebody looks.

    The place of row r is r modulo the ring's length, as in the original.
    """

    def __init__(self, original: Shaped[np.ndarray, "R N ..."], device: torch.device, *, stretch: int) -> None:
        """At most `stretch` rows go over at once, through page-locked memory."""
        self._original, self._stretch = original, stretch
        self._copy = torch.empty_like(torch.from_numpy(original), device=device)
        self._up_to = 0

    def forget(self) -> None:
        """Take every row of the original for another than was seen."""
        self._up_to = 0

    def gather(
        self, rows: Int[np.ndarray, "B T"], agent: Int[np.ndarray, " B"], is_valid: Bool[np.ndarray, "B T"], *, total_rows: int
    ) -> Shaped[Tensor, "B T ..."]:
        """Return what the focal agents saw at global rows below `total_rows`, zeros where that does not count."""
        self._catch_up(total_rows)
        device, ring = self._copy.device, len(self._original)
        at, focal, counts = (on_device(torch.from_numpy(array), device) for array in (rows % ring, agent[:, None], is_valid))
        seen = self._copy[at, focal]
        return seen.masked_fill_(~counts.view(*counts.shape, *[1] * (seen.ndim - 2)), 0)

    def _catch_up(self, total_rows: int) -> None:
        ring = len(self._original)
        row = max(self._up_to, total_rows - ring)
        while row < total_rows:
            start = row % ring
            count = min(total_rows - row, ring - start, self._stretch)
            self._copy[start : start + count] = on_device(torch.from_numpy(self._original[start : start + count]), self._copy.device)
            row += count
        self._up_to = total_rows
