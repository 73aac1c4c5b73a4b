"""Turns logits into categorical latents and two-hot numbers, without the cost of distribution objects."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from matwm.nets.on_gpu import pick_by_mask, sample_by_race, two_hot_by_mask


def symlog(x: Tensor) -> Tensor:
    """Compress magnitudes: sign(x) ln(1 + |x|)."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """Undo `symlog`."""
    return torch.sign(x) * torch.expm1(torch.abs(x))


def unimix_probs(logits: Float[Tensor, "*batch L"], share: float) -> Float[Tensor, "*batch L"]:
    """Return probabilities of which `share` is uniform, so that no class is impossible and every KL is finite."""
    return (1 - share) * F.softmax(logits, -1) + share / logits.shape[-1]


def sample_index(probs: Float[Tensor, "*batch L"]) -> Int[Tensor, "*batch"]:
    """Draw one class a row by inverting the cumulated probabilities; a class of probability 0 is never drawn.

    One uniform number a row instead of one a class: a quarter of the time of Gumbel-argmax.
    """
    if probs.is_cuda:
        return sample_by_race(probs)
    return class_at(probs, torch.rand_like(probs[..., -1:]))


def class_at(probs: Float[Tensor, "*batch L"], uniform: Float[Tensor, "*batch 1"]) -> Int[Tensor, "*batch"]:
    """Return the class at which the cumulated probabilities pass a share of their total from 0 to below 1."""
    cumulated = probs.cumsum(-1)
    below = uniform * (1 - 2**-20)  # the total also after rounding
    return (cumulated <= below * cumulated[..., -1:]).sum(-1)


def pick(values: Float[Tensor, "*batch L"], index: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Return each row's value at its index."""
    return pick_by_mask(values, index) if values.is_cuda else values.gather(-1, index.unsqueeze(-1)).squeeze(-1)


def straight_through(probs: Float[Tensor, "*batch L"], index: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch L"]:
    """Return exact one-hots whose gradient is that of `probs`."""
    return F.one_hot(index, probs.shape[-1]).to(probs.dtype) + (probs - probs.detach())


def reinmax(probs: Float[Tensor, "*batch L"], index: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch L"]:
    """Return exact one-hots whose gradient is of second order in what the draw changes (ReinMax, Liu et al. 2023).

    `straight_through` treats the loss as linear in the one-hot, and so never asks a posterior to be surer: of a squared
    error it sees the bias but not the variance that sampling adds. This one is exact for quadratic losses.
    """
    one_hot, log_probs = F.one_hot(index, probs.shape[-1]).to(probs.dtype), probs.log()
    halfway = F.softmax((((one_hot + probs) / 2).log() - log_probs).detach() + log_probs, -1)
    gradient = 2 * halfway - probs / 2
    return one_hot + (gradient - gradient.detach())


def categorical_kl(log_p: Float[Tensor, "*batch K L"], log_q: Float[Tensor, "*batch K L"]) -> Float[Tensor, "*batch"]:
    """Return KL(p || q) summed over the K latents, in nats."""
    return (log_p.exp() * (log_p - log_q)).sum((-2, -1))


class TwoHot(nn.Module):
    """A number as a distribution over bins at symexp(linspace(-bound, bound, count)) (DreamerV3)."""

    bins: Tensor

    def __init__(self, count: int, bound: float) -> None:
        super().__init__()
        positive = symexp(torch.linspace(0.0, bound, count // 2 + 1, dtype=torch.float64))[1:].float()
        self.register_buffer("bins", torch.cat([-positive.flip(0), torch.zeros(1), positive]), persistent=False)

    def mean(self, logits: Float[Tensor, "*batch R"]) -> Float[Tensor, "*batch"]:
        """Return the expectation in raw space; uniform logits give exactly 0 because opposite bins are summed pairwise."""
        return self.expectation(F.softmax(logits, -1))

    def expectation(self, probs: Float[Tensor, "*batch R"]) -> Float[Tensor, "*batch"]:
        """Return the same for probabilities."""
        half = self.bins.shape[0] // 2
        return ((probs[..., half + 1 :] - probs[..., :half].flip(-1)) * self.bins[half + 1 :]).sum(-1)

    def encode(self, x: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch R"]:
        """Return the two-hot code: weights of the two neighbouring bins, by nearness; values beyond the bins are clipped."""
        x = x.clamp(self.bins[0], self.bins[-1])
        lower = (torch.searchsorted(self.bins, x.contiguous(), right=True) - 1).clamp(0, self.bins.shape[0] - 2)
        low, high = self.bins[lower], self.bins[lower + 1]
        weight = (x - low) / (high - low)
        if x.is_cuda:
            return two_hot_by_mask(lower, weight, self.bins.shape[0])
        code = x.new_zeros(*x.shape, self.bins.shape[0])
        lower, weight = lower.unsqueeze(-1), weight.unsqueeze(-1)
        return code.scatter_(-1, lower, 1 - weight).scatter_(-1, lower + 1, weight)

    def cross_entropy(self, log_probs: Float[Tensor, "*batch R"], x: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return the cross-entropy of log-probabilities over the bins to the two-hot code of `x`."""
        return -(self.encode(x) * log_probs).sum(-1)

    def marginal_entropy(self, x: Float[Tensor, "*batch"], mask: Bool[Tensor, "*batch"]) -> Tensor:
        """Return the entropy of the mean code of the numbers that count: what knowing nothing but their frequencies costs."""
        code = (self.encode(x) * mask.unsqueeze(-1)).flatten(0, -2).sum(0)
        return torch.special.entr(code / mask.sum().clamp(min=1)).sum()

    def clipped(self, x: Float[Tensor, "*batch"]) -> Tensor:
        """Return the share of values that lie beyond the outermost bins."""
        return (x.abs() > self.bins[-1]).float().mean()
