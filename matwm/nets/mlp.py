"""Builds perceptrons: one network, or one per agent computed together."""

import math
from abc import ABC, abstractmethod
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from matwm.batches import Features


def mlp(size_in: int, width: int, layers: int, size_out: int, *, zero_output: bool = False) -> nn.Sequential:
    """Return hidden layers of Linear (no bias), LayerNorm, SiLU, then a Linear, which starts at zero if asked."""
    modules: list[nn.Module] = []
    for _ in range(layers):
        modules += [nn.Linear(size_in, width, bias=False), nn.LayerNorm(width), nn.SiLU()]
        size_in = width
    output = nn.Linear(size_in, size_out)
    if zero_output:
        nn.init.zeros_(output.weight)
        nn.init.zeros_(output.bias)
    return nn.Sequential(*modules, output)


def zero_linear(size_in: int, size_out: int) -> nn.Linear:
    """Return a Linear without bias that starts at zero."""
    linear = nn.Linear(size_in, size_out, bias=False)
    nn.init.zeros_(linear.weight)
    return linear


class SkipMLP(nn.Module):
    """The perceptron of `mlp` beside a Linear, which alone counts at first: what is nearly linear is learned soon."""

    def __init__(self, size_in: int, width: int, layers: int, size_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size_in, size_out)
        self.bends = mlp(size_in, width, layers, size_out, zero_output=True)

    def forward(self, x: Float[Tensor, "*batch i"]) -> Float[Tensor, "*batch o"]:
        """Return the sum of both."""
        return self.linear(x) + self.bends(x)


class FeatureLinear(torch.autograd.Function):
    """The product of features (N, b, F) and weights (N, F, out), in which hard one-hots cost a sum of rows, forward and backward.

    The features get no gradient.
    """

    @staticmethod
    def forward(ctx: Any, features: Features, weight: Float[Tensor, "N F o"]) -> Float[Tensor, "N b o"]:
        """Return the product."""
        ctx.features, ctx.size = features, weight.shape[1]
        agents, size, width = weight.shape
        first = torch.arange(0, agents * size, size, dtype=features.latent_rows.dtype, device=weight.device)
        rows = (features.latent_rows + first[:, None, None]).flatten(0, 1)
        summed = F.embedding_bag(rows, weight.view(-1, width), mode="sum").view(agents, -1, width)
        return summed.baddbmm_(features.numbers, weight[:, size - features.numbers.shape[-1] :])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, "N b o"]) -> tuple[None, Float[Tensor, "N F o"]]:  # type: ignore[override]
        """Return the weights' gradient: a latent's row gets the sum over the states that picked it."""
        rows, state = ctx.features.by_row
        agents, states, width = gradient.shape
        each = torch.arange(ctx.size, dtype=rows.dtype, device=rows.device).expand(agents, -1).contiguous()
        agent = torch.arange(agents, device=rows.device)[:, None]
        first = torch.searchsorted(rows, each) + agent * rows.shape[1]
        picked = (state + agent * states).flatten()
        of_weight = F.embedding_bag(picked, gradient.reshape(-1, width), first.flatten(), mode="sum").view(agents, ctx.size, width)
        numbers = ctx.features.numbers
        of_weight[:, ctx.size - numbers.shape[-1] :] = torch.bmm(numbers.transpose(1, 2), gradient)
        return None, of_weight


class StackedMLP(nn.Module):
    """The perceptrons of `mlp`, one per agent, as batched matrix products.

    Every parameter has the agents as its first axis, so that agent i's network is slice i.
    """

    def __init__(self, num_agents: int, size_in: int, width: int, layers: int, size_out: int, *, output_scale: float) -> None:
        super().__init__()
        sizes = [size_in, *[width] * layers]
        self.weights = nn.ParameterList(uniform_weight(num_agents, a, b) for a, b in zip(sizes, sizes[1:], strict=False))
        self.gains = nn.ParameterList(torch.ones(num_agents, 1, width) for _ in range(layers))
        self.biases = nn.ParameterList(torch.zeros(num_agents, 1, width) for _ in range(layers))
        self.output_weight = nn.Parameter(uniform_weight(num_agents, width, size_out) * output_scale)
        self.output_bias = nn.Parameter(torch.zeros(num_agents, 1, size_out))

    def forward(self, features: Features) -> Float[Tensor, "N b o"]:
        """Apply network n to features[n], which need no gradient."""
        x = features.numbers
        assert not x.requires_grad, "the gradient of features would be lost here"
        for number, (weight, gain, bias) in enumerate(zip(self.weights, self.gains, self.biases, strict=True)):
            has_one_hots = number == 0 and features.latent_rows.shape[-1] > 0
            x = cast(Tensor, FeatureLinear.apply(features, weight)) if has_one_hots else torch.bmm(x, weight)
            x = F.silu(torch.addcmul(bias, F.layer_norm(x, x.shape[-1:]), gain))
        return torch.baddbmm(self.output_bias, x, self.output_weight)


def uniform_weight(*shape: int) -> Tensor:
    """Return weights as PyTorch's Linear draws them, stored input-major: (..., in, out)."""
    bound = 1 / math.sqrt(shape[-2])
    return torch.empty(*shape).uniform_(-bound, bound)


class CodeLinear(nn.Module, ABC):
    """A Linear over what is read of latents and over a one-hot word, stored input-major."""

    def __init__(self, latent_size: int, words: int, size_out: int) -> None:
        super().__init__()
        self.latent_size = latent_size
        self.weight = nn.Parameter(uniform_weight(latent_size + words, size_out))
        self.bias = nn.Parameter(torch.zeros(size_out))

    def dense(self, z: Float[Tensor, "*batch Z"], word: Int[Tensor, "*batch"] | None = None) -> Float[Tensor, "*batch D"]:
        """Return the product with latents that carry a gradient; a negative word contributes nothing."""
        out = torch.matmul(z, self.weight[: self.latent_size]) + self.bias
        if word is None:
            return out
        return out + F.embedding(word.clamp(min=0) + self.latent_size, self.weight) * (word >= 0).unsqueeze(-1)

    @abstractmethod
    def sparse(self, index: Int[Tensor, "*batch K"], word: Int[Tensor, "*batch"] | None = None) -> Float[Tensor, "*batch D"]:
        """Return the same product for classes and words that are there, as cheaply as the code allows."""

    @abstractmethod
    def rows(self, index: Int[Tensor, "B K"]) -> tuple[Int[Tensor, "B picks"], Float[Tensor, "B S"]]:
        """Return classes as `Features` hold them: the rows of a weight that they pick, and numbers."""


class LatentLinear(CodeLinear):
    """Over one-hot latents: a hard one is a sum of rows."""

    row_offsets: Tensor

    def __init__(self, latents: int, classes: int, words: int, size_out: int) -> None:
        super().__init__(latents * classes, words, size_out)
        self.register_buffer("row_offsets", torch.arange(latents) * classes, persistent=False)

    def sparse(self, index: Int[Tensor, "*batch K"], word: Int[Tensor, "*batch"] | None = None) -> Float[Tensor, "*batch D"]:
        """Return the product as a sum of rows, many times cheaper."""
        rows = index + self.row_offsets
        if word is not None:
            rows = torch.cat([rows, word.unsqueeze(-1) + self.latent_size], -1)
        summed = F.embedding_bag(rows.flatten(0, -2), self.weight, mode="sum")
        return summed.unflatten(0, index.shape[:-1]) + self.bias

    def rows(self, index: Int[Tensor, "B K"]) -> tuple[Int[Tensor, "B K"], Float[Tensor, "B 0"]]:
        """Return the rows, and no numbers."""
        return index + self.row_offsets, self.weight.new_empty(index.shape[0], 0)


class LevelLinear(CodeLinear):
    """Over latents whose classes are levels of a number, and read as these."""

    levels: Tensor

    def __init__(self, latents: int, levels: Float[Tensor, " L"], words: int, size_out: int) -> None:
        super().__init__(latents, words, size_out)
        self.register_buffer("levels", levels, persistent=False)

    def sparse(self, index: Int[Tensor, "*batch K"], word: Int[Tensor, "*batch"] | None = None) -> Float[Tensor, "*batch D"]:
        """Return the product, which is small."""
        out = self.dense(self.levels[index])
        return out if word is None else out + F.embedding(word + self.latent_size, self.weight)

    def rows(self, index: Int[Tensor, "B K"]) -> tuple[Int[Tensor, "B 0"], Float[Tensor, "B K"]]:
        """Return no rows, and the numbers."""
        return index[:, :0], self.levels[index]
