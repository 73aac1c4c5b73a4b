"""Computes on a GPU what torch refuses there under deterministic algorithms, or computes by sorting, or by making the host wait.

Each function stands for the few lines of `distributions.py` that use it, which are cheaper on a CPU.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def sample_by_race(probs: Float[Tensor, "*batch L"]) -> Int[Tensor, "*batch"]:
    """Draw one class a row: of exponential clocks that tick at the classes' rates, the first one; a class of probability 0 is never drawn.

    Torch cumulates no floats there deterministically.
    """
    return (probs / torch.empty_like(probs).exponential_()).argmax(-1)


def pick_by_mask(values: Float[Tensor, "*batch L"], index: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Return each row's value at its index: exactly what `gather` returns, without its gradient, for which indices are sorted."""
    return torch.where(_is_at(index, values.shape[-1]), values, 0.0).sum(-1)


def two_hot_by_mask(lower: Int[Tensor, "*batch"], weight: Float[Tensor, "*batch"], count: int) -> Float[Tensor, "*batch R"]:
    """Return rows of zeros but for 1 - `weight` at `lower` and `weight` right above: exactly what two `scatter_` write, without sorting."""
    weight = weight.unsqueeze(-1)
    return torch.where(_is_at(lower, count), 1 - weight, torch.where(_is_at(lower + 1, count), weight, 0.0))


def _is_at(index: Int[Tensor, "*batch"], count: int) -> Bool[Tensor, "*batch L"]:
    return index.unsqueeze(-1) == torch.arange(count, device=index.device)
