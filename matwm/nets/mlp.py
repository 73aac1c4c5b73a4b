"""Builds perceptrons: one network, or one per agent computed together."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


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

    def forward(self, x: Float[Tensor, "N b i"]) -> Float[Tensor, "N b o"]:
        """Apply network n to rows x[n]."""
        for weight, gain, bias in zip(self.weights, self.gains, self.biases, strict=True):
            x = torch.bmm(x, weight)
            x = F.silu(torch.addcmul(bias, F.layer_norm(x, x.shape[-1:]), gain))
        return torch.baddbmm(self.output_bias, x, self.output_weight)


def uniform_weight(*shape: int) -> Tensor:
    """Return weights as PyTorch's Linear draws them, stored input-major: (..., in, out)."""
    bound = 1 / math.sqrt(shape[-2])
    return torch.empty(*shape).uniform_(-bound, bound)


class LatentLinear(nn.Module):
    """A Linear over one-hot latents and other inputs, stored input-major, so that a hard latent is a sum of rows."""

    def __init__(self, latents: int, classes: int, extra: int, size_out: int) -> None:
        super().__init__()
        weight = uniform_weight(latents * classes + extra, size_out)
        self.latent_weight = nn.Parameter(weight[: latents * classes].clone())
        self.extra_weight = nn.Parameter(weight[latents * classes :].clone())
        self.bias = nn.Parameter(torch.zeros(size_out))
        self.register_buffer("row_offsets", torch.arange(latents) * classes, persistent=False)

    def dense(self, z: Float[Tensor, "*batch Z"]) -> Float[Tensor, "*batch D"]:
        """Return the product with latents that carry a gradient."""
        return torch.matmul(z, self.latent_weight) + self.bias

    def sparse(self, index: Int[Tensor, "*batch K"]) -> Float[Tensor, "*batch D"]:
        """Return the same product for hard latents: the sum of one row a latent, many times cheaper."""
        rows = (index + self.row_offsets).flatten(0, -2)
        return F.embedding_bag(rows, self.latent_weight, mode="sum").unflatten(0, index.shape[:-1]) + self.bias

    def extra(self, word: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch D"]:
        """Return the contribution of a one-hot word; a negative word contributes nothing."""
        return F.embedding(word.clamp(min=0), self.extra_weight) * (word >= 0).unsqueeze(-1)


def parameters_of(modules: Sequence[nn.Module]) -> int:
    """Count the trainable numbers."""
    return sum(p.numel() for module in modules for p in module.parameters())
