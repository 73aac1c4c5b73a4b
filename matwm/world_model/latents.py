"""Decides what the classes of a latent are, names or levels of a number, and so what is said of them and what networks read."""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from matwm.config import WorldModelConfig
from matwm.nets.mlp import CodeLinear, LatentLinear, LevelLinear

SPAN = 3.0
"""The outermost level: numbers are then as large as those of the hidden state beside them, which is normalised."""
REACH = 1.05 * SPAN
"""A little beyond it, so that the outermost levels can be meant without an infinite number."""


class LatentCode(nn.Module, ABC):
    """K latents of L classes each; a part of the autoencoder, and learns with it."""

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.shape = (config.latents, config.classes)

    @property
    @abstractmethod
    def encoder_size(self) -> int:
        """How many numbers an encoder says of an observation."""

    @abstractmethod
    def logits(self, said: Float[Tensor, "*batch said"]) -> Float[Tensor, "*batch K L"]:
        """Return the posterior's logits for what the encoder says."""

    @property
    @abstractmethod
    def dynamics_size(self) -> int:
        """How many numbers the dynamics head says of what follows."""

    @abstractmethod
    def prior_logits(self, said: Float[Tensor, "*batch said"], latent: Int[Tensor, "*batch K"]) -> Float[Tensor, "*batch K L"]:
        """Return logits of the latent that follows the classes `latent`, for what the dynamics head says."""

    @abstractmethod
    def read(self, one_hot: Float[Tensor, "*batch K L"]) -> Float[Tensor, "*batch Z"]:
        """Return what networks read of one-hots, with their gradient."""

    def read_index(self, index: Int[Tensor, "*batch K"]) -> Float[Tensor, "*batch Z"]:
        """Return the same of classes."""
        return self.read(F.one_hot(index, self.shape[1]).float())

    @abstractmethod
    def linear(self, words: int, size_out: int) -> CodeLinear:
        """Return a new Linear over latents, and over a one-hot of so many words."""


class OneHotCode(LatentCode):
    """Classes are names, read as one-hots: Z = K L (as DreamerV2)."""

    @property
    def encoder_size(self) -> int:
        """A logit for each class."""
        return self.shape[0] * self.shape[1]

    def logits(self, said: Float[Tensor, "*batch said"]) -> Float[Tensor, "*batch K L"]:
        """Return the numbers, by latent."""
        return said.unflatten(-1, self.shape)

    @property
    def dynamics_size(self) -> int:
        """A logit for each class, too."""
        return self.encoder_size

    def prior_logits(self, said: Float[Tensor, "*batch said"], latent: Int[Tensor, "*batch K"]) -> Float[Tensor, "*batch K L"]:
        """Return the numbers, by latent: the head knows of the latent before what it needs."""
        return self.logits(said)

    def read(self, one_hot: Float[Tensor, "*batch K L"]) -> Float[Tensor, "*batch Z"]:
        """Return them side by side."""
        return one_hot.flatten(-2)

    def linear(self, words: int, size_out: int) -> LatentLinear:
        """Return one that sums rows."""
        return LatentLinear(*self.shape, words, size_out)


class OrdinalCode(LatentCode):
    """Classes are levels of a number, read as that number: Z = K.

    The encoder names the number; the posterior is a normal curve around it, cut into the levels, with one learned width a latent.
    Neighbouring classes are alike from the start, for the encoder and for all that read them, which one-hots must learn pair by pair.
    The dynamics head says how far each number moves and how sure that is, and may correct each class beside it: what moves little
    need not be learned, and what jumps can be.
    """

    levels: Tensor

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__(config)
        self._step = 2 * SPAN / config.classes
        self.log_width = nn.Parameter(torch.full((config.latents, 1), math.log(self._step)))
        self.register_buffer("levels", torch.linspace(-SPAN, SPAN, config.classes), persistent=False)

    @property
    def encoder_size(self) -> int:
        """A number for each latent."""
        return self.shape[0]

    def logits(self, said: Float[Tensor, "*batch said"]) -> Float[Tensor, "*batch K L"]:
        """Return the logarithm of the curves."""
        return -0.5 * self._squared_distances(REACH * torch.tanh(said), self.log_width.exp())

    @property
    def dynamics_size(self) -> int:
        """For each latent how far it moves, the logarithm of how wide the curve is in steps of levels, and a logit for each class."""
        return self.shape[0] * (2 + self.shape[1])

    def prior_logits(self, said: Float[Tensor, "*batch said"], latent: Int[Tensor, "*batch K"]) -> Float[Tensor, "*batch K L"]:
        """Return the logarithm of the curves around where the numbers move, with the corrections."""
        move, log_width, correction = said.unflatten(-1, (self.shape[0], -1)).split([1, 1, self.shape[1]], -1)
        number, width = self.levels[latent] + move.squeeze(-1), self._step * log_width.exp()
        return torch.sub(correction, self._squared_distances(number, width), alpha=0.5)

    def _squared_distances(self, number: Float[Tensor, "*batch K"], width: Float[Tensor, "*widths K 1"]) -> Float[Tensor, "*batch K L"]:
        """Return the squares of how many widths the levels are away from each number."""
        return ((number.unsqueeze(-1) - self.levels) / width).square()

    def read(self, one_hot: Float[Tensor, "*batch K L"]) -> Float[Tensor, "*batch Z"]:
        """Return the number of each."""
        return one_hot @ self.levels

    def read_index(self, index: Int[Tensor, "*batch K"]) -> Float[Tensor, "*batch Z"]:
        """Return the same of classes."""
        return self.levels[index]

    def linear(self, words: int, size_out: int) -> LevelLinear:
        """Return one that multiplies levels."""
        return LevelLinear(self.shape[0], self.levels, words, size_out)


def make_code(config: WorldModelConfig) -> LatentCode:
    """Return the code that the configuration names."""
    return (OrdinalCode if config.latent_code == "ordinal" else OneHotCode)(config)
