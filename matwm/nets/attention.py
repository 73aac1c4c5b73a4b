"""Computes attention over short sequences (at most `max_positions` rows), for which fused CPU kernels take several times as long."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def as_bias(allowed: Bool[Tensor, "B T S"], heads: int) -> Float[Tensor, "G T S"]:
    """Return 0 where a row may look and -inf where not, once for each head (G = B * heads)."""
    bias = torch.zeros(allowed.shape, device=allowed.device).masked_fill_(~allowed, float("-inf"))
    return bias.repeat_interleave(heads, 0)


def keep_mask(like: Tensor, dropout: float) -> Tensor:
    """Return a factor for each element: 0 with probability `dropout` (to 1/65536, below 1), else what keeps the expectation.

    Four elements share one random number: on the CPU drawing them is what dropout costs.
    """
    dropped = min(round(dropout * 2**16), 2**16 - 1)
    bits = torch.empty(-(-like.numel() // 4), dtype=torch.int64, device=like.device).random_(-(2**63), None)  # type: ignore[call-overload]
    keep = bits.view(torch.int16)[: like.numel()].view(like.shape) >= dropped - 2**15
    return keep.to(like.dtype).mul_(2**16 / (2**16 - dropped))


def drop_out(x: Tensor, dropout: float) -> Tensor:
    """Return `x` with dropout, if there is any."""
    return x if dropout == 0.0 else x * keep_mask(x, dropout)


def attend(qkv: Float[Tensor, "B T threeD"], bias: Float[Tensor, "G T T"], heads: int, dropout: float = 0.0) -> Float[Tensor, "B T D"]:
    """Return what each row reads of its sequence; `bias` is added to the scaled scores."""
    q, k, v = split_heads(qkv, heads)
    weights = softmax(torch.baddbmm(bias, q, k.mT, alpha=q.shape[-1] ** -0.5))
    return merge_heads(torch.bmm(drop_out(weights, dropout), v), heads)


def split_heads(qkv: Float[Tensor, "B T threeD"], heads: int) -> Float[Tensor, "3 G T d"]:
    """Return the queries, keys and values of every head."""
    batch, length, width = qkv.shape
    return qkv.view(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4).reshape(3, batch * heads, length, width // (3 * heads))


def merge_heads(x: Float[Tensor, "G T d"], heads: int) -> Float[Tensor, "B T D"]:
    """Return what the heads of each sequence have, side by side."""
    return x.unflatten(0, (-1, heads)).transpose(1, 2).flatten(2)


def softmax(scores: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch S"]:
    """Return weights along the last axis; torch's own takes five times as long on rows shorter than its vectors.

    Its gradient is the cheaper one, so scores that need one go there.
    """
    if scores.requires_grad or scores.shape[-1] >= 16:
        return torch.softmax(scores, -1)
    exponents = torch.exp(scores - scores.amax(-1, keepdim=True))
    return exponents / exponents.sum(-1, keepdim=True)


def attend_once(
    q: Float[Tensor, "B D"], keys: Float[Tensor, "S B D"], values: Float[Tensor, "S B D"], bias: Float[Tensor, "S B 1"], heads: int
) -> Float[Tensor, "B D"]:
    """Return what one query of each sequence reads.

    Products and sums along contiguous memory, for S = 8 to 24 on one core: at the size of cpu-small (B 72, D 128) 67 to 145 us,
    as matrices of one row (torch.einsum) 250 to 159; at the paper's (B 512, D 512), past the caches, 1.5 to 10.7 ms against
    1.5 to 7.0, of an update that takes seconds.
    """
    batch, hidden = q.shape
    size = hidden // heads
    scores = (keys.unflatten(-1, (heads, size)) * (q * size**-0.5).view(batch, heads, size)).sum(-1)
    weights = torch.softmax(scores + bias, 0)
    return (values.unflatten(-1, (heads, size)) * weights.unsqueeze(-1)).sum(0).view(batch, hidden)
