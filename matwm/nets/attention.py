"""Computes attention over short sequences (at most `max_positions` rows), for which fused CPU kernels take several times as long."""

from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def as_bias(allowed: Bool[Tensor, "B T S"], heads: int) -> Float[Tensor, "G T S"]:
    """Return 0 where a row may look and -inf where not, once for each head (G = B * heads)."""
    bias = torch.zeros(allowed.shape, device=allowed.device).masked_fill_(~allowed, float("-inf"))
    return bias.repeat_interleave(heads, 0)


def keep_mask(like: Tensor, dropout: float) -> Tensor:
    """Return a factor for each element: 0 with probability `dropout` (to 1/65536), else what keeps the expectation.

    Four elements share one random number: on the CPU drawing them is what dropout costs.
    """
    dropped = round(dropout * 2**16)
    bits = torch.empty(-(-like.numel() // 4), dtype=torch.int64).random_(-(2**63), None)  # type: ignore[call-overload]
    keep = bits.view(torch.int16)[: like.numel()].view(like.shape) >= dropped - 2**15
    return keep.to(like.dtype).mul_(2**16 / (2**16 - dropped))


def drop_out(x: Tensor, dropout: float) -> Tensor:
    """Return `x` with dropout, if there is any."""
    if dropout == 0.0:
        return x
    return x * keep_mask(x, dropout) if x.device.type == "cpu" else F.dropout(x, dropout)


def split_heads(qkv: Float[Tensor, "B T threeD"], heads: int) -> Float[Tensor, "3 G T d"]:
    """Return the queries, keys and values of every head."""
    batch, length, width = qkv.shape
    return qkv.view(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4).reshape(3, batch * heads, length, width // (3 * heads))


def merge_heads(x: Float[Tensor, "G T d"], heads: int) -> Float[Tensor, "B T D"]:
    """Return what the heads of each sequence have, side by side."""
    return x.unflatten(0, (-1, heads)).transpose(1, 2).flatten(2)


def attend(qkv: Float[Tensor, "B T threeD"], bias: Float[Tensor, "G T T"], heads: int, dropout: float = 0.0) -> Float[Tensor, "B T D"]:
    """Return what each row reads of its sequence; `bias` is added to the scaled scores."""
    if qkv.device.type == "cpu":
        return cast(Tensor, Attention.apply(qkv, bias, heads, dropout))
    q, k, v = split_heads(qkv, heads)
    weights = torch.softmax(torch.baddbmm(bias, q, k.mT, alpha=q.shape[-1] ** -0.5), -1)
    return merge_heads(torch.bmm(drop_out(weights, dropout), v), heads)


class Attention(torch.autograd.Function):
    """What `attend` says, with a backward pass that makes a third of autograd's temporaries."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor, heads: int, dropout: float) -> Tensor:
        """Return what the heads read."""
        q, k, v = separate = split_heads(qkv, heads)
        scores = torch.baddbmm(bias, q, k.mT, alpha=q.shape[-1] ** -0.5)
        weights = softmax(scores)
        keep = keep_mask(weights, dropout) if dropout > 0 else None
        dropped = weights if keep is None else weights * keep
        ctx.save_for_backward(separate, weights, keep, dropped)
        ctx.heads = heads
        return merge_heads(torch.bmm(dropped, v), heads)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        """Return the gradient of queries, keys and values."""
        separate, weights, keep, dropped = ctx.saved_tensors
        q, k, v = separate
        batch, length, hidden = gradient.shape
        of_read = gradient.view(batch, length, ctx.heads, -1).transpose(1, 2).reshape(v.shape)
        of_weights = torch.bmm(of_read, v.mT)
        if keep is not None:
            of_weights.mul_(keep)
        of_weights.mul_(weights)
        of_scores = of_weights.sub_(weights * of_weights.sum(-1, keepdim=True)).mul_(q.shape[-1] ** -0.5)
        result = torch.empty_like(separate)
        torch.bmm(of_scores, k, out=result[0])
        torch.bmm(of_scores.mT, q, out=result[1])
        torch.bmm(dropped.mT, of_read, out=result[2])
        together = result.view(3, batch, ctx.heads, length, -1).permute(1, 3, 0, 2, 4)
        return together.reshape(batch, length, 3 * hidden), None, None, None


def softmax(scores: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch S"]:
    """Return weights along the last axis; torch's own takes five times as long on rows shorter than its vectors."""
    if scores.shape[-1] >= 16:
        return torch.softmax(scores, -1)
    exponents = torch.exp(scores - scores.amax(-1, keepdim=True))
    return exponents / exponents.sum(-1, keepdim=True)


def attend_once(
    q: Float[Tensor, "B D"], keys: Float[Tensor, "S B D"], values: Float[Tensor, "S B D"], bias: Float[Tensor, "S B 1"], heads: int
) -> Float[Tensor, "B D"]:
    """Return what one query of each sequence reads.

    Products and sums along contiguous memory: matrices of one row would go through the slowest of kernels.
    """
    batch, hidden = q.shape
    size = hidden // heads
    scores = (keys.unflatten(-1, (heads, size)) * (q * size**-0.5).view(batch, heads, size)).sum(-1)
    weights = torch.softmax(scores + bias, 0)
    return (values.unflatten(-1, (heads, size)) * weights.unsqueeze(-1)).sum(0).view(batch, hidden)
