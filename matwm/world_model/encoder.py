"""Turns observations into categorical latents and back: vectors through perceptrons, images through convolutions."""

from abc import ABC, abstractmethod
from typing import cast

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from matwm.config import WorldModelConfig
from matwm.nets.distributions import symlog, unimix_probs
from matwm.nets.mlp import SkipMLP, mlp
from matwm.types import EnvSpec
from matwm.world_model.latents import make_code

GRID = 4
"""Height and width of what the last convolution gives."""
HALVINGS = 4
KERNEL, STRIDE, PADDING = 4, 2, 1


class Autoencoder(nn.Module, ABC):
    """The posterior q(z | o) and the decoder p(o | z) (Eq. 1).

    With `agent_identity` the encoder also reads who is focal, so that z can tell the heads that see nothing else.
    """

    encoder: nn.Module
    """From features, and the one-hot of the focal agent, to what the code makes logits of."""

    def __init__(self, config: WorldModelConfig, spec: EnvSpec) -> None:
        super().__init__()
        self.num_agents = spec.num_agents if config.agent_identity else 0
        self.unimix = config.unimix
        self.code = make_code(config)

    def posterior(self, obs: Tensor, agent: Int[Tensor, " B"]) -> Float[Tensor, "B T K L"]:
        """Return probabilities of the latent of each observation (B, T, ...) as the replay keeps them."""
        x = self.embed(self.target(obs))
        if self.num_agents:
            identity = F.one_hot(agent, self.num_agents).to(x.dtype)[:, None].expand(-1, x.shape[1], -1)
            x = torch.cat([x, identity], -1)
        return unimix_probs(self.code.logits(self.encoder(x)), self.unimix)

    @abstractmethod
    def target(self, obs: Tensor) -> Tensor:
        """Return observations on the scale on which the networks read and reconstruct them, same shape, float."""

    @abstractmethod
    def embed(self, target: Tensor) -> Float[Tensor, "B T features"]:
        """Return what `encoder` reads of them."""

    @abstractmethod
    def decode(self, z: Float[Tensor, "B T Z"]) -> Tensor:
        """Return reconstructions, as `target` gives the originals."""


class VectorAutoencoder(Autoencoder):
    """Perceptrons over vectors in symlog space; beside them a Linear where latents are numbers, too."""

    def __init__(self, config: WorldModelConfig, spec: EnvSpec) -> None:
        super().__init__(config, spec)
        between = config.encoder_width, config.encoder_layers
        make = SkipMLP if config.latent_code == "ordinal" else mlp
        self.encoder = make(spec.obs_size + self.num_agents, *between, self.code.encoder_size)
        self.decoder = make(config.latent_size, *between, spec.obs_size)

    def target(self, obs: Float[Tensor, "B T O"]) -> Float[Tensor, "B T O"]:
        """Return vectors in symlog space."""
        return symlog(obs)

    def embed(self, target: Float[Tensor, "B T O"]) -> Float[Tensor, "B T O"]:
        """Return the vectors themselves."""
        return target

    def decode(self, z: Float[Tensor, "B T Z"]) -> Float[Tensor, "B T O"]:
        """Return vectors in symlog space."""
        return self.decoder(z)


class ImageAutoencoder(Autoencoder):
    """Four convolutions of kernel 4 and stride 2, each with twice the channels of the one before, and their mirror (as STORM).

    The norm is over all channels and places of one image: it keeps no running statistics, so that an image means the same in
    training and acting, whatever else is in the batch.
    """

    def __init__(self, config: WorldModelConfig, spec: EnvSpec) -> None:
        super().__init__(config, spec)
        assert spec.image_shape is not None and spec.image_shape[1:] == (GRID << HALVINGS, GRID << HALVINGS), spec.image_shape
        widths = [max(1, config.encoder_width >> halvings) for halvings in reversed(range(HALVINGS))]
        flat = widths[-1] * GRID * GRID
        down = [(nn.Conv2d, a, b) for a, b in zip((spec.image_shape[0], *widths), widths, strict=False)]
        up = [(nn.ConvTranspose2d, b, a) for a, b in reversed(list(zip(widths, widths[1:], strict=False)))]
        self.convolutions = nn.Sequential(*(module for layer in down for module in _block(*layer)))
        self.encoder = nn.Linear(flat + self.num_agents, self.code.encoder_size)
        self.widen = nn.Linear(config.latent_size, flat, bias=False)
        self.decoder = nn.Sequential(
            nn.GroupNorm(1, widths[-1]),
            nn.SiLU(),
            *(module for layer in up for module in _block(*layer)),
            nn.ConvTranspose2d(widths[0], spec.image_shape[0], KERNEL, STRIDE, PADDING),
        )
        nn.init.constant_(cast(Tensor, self.decoder[-1].bias), 0.5)  # grey: from black, bright pictures would begin with huge gradients

    def target(self, obs: UInt8[Tensor, "B T c h w"]) -> Float[Tensor, "B T c h w"]:
        """Return images on a scale from 0 to 1."""
        return obs.float() / 255

    def embed(self, target: Float[Tensor, "B T c h w"]) -> Float[Tensor, "B T features"]:
        """Return what the last convolution sees, all places of an image side by side."""
        return self.convolutions(_channels_last(target.flatten(0, 1))).flatten(1).unflatten(0, target.shape[:2])

    def decode(self, z: Float[Tensor, "B T Z"]) -> Float[Tensor, "B T c h w"]:
        """Return images on a scale from 0 to 1, which nothing enforces."""
        grid = self.widen(z.flatten(0, 1)).unflatten(-1, (-1, GRID, GRID))
        return self.decoder(_channels_last(grid)).unflatten(0, z.shape[:2])


def make_autoencoder(config: WorldModelConfig, spec: EnvSpec) -> Autoencoder:
    """Return the autoencoder of what an environment's agents see."""
    return (ImageAutoencoder if spec.image_shape else VectorAutoencoder)(config, spec)


def _channels_last(x: Float[Tensor, "rows c h w"]) -> Float[Tensor, "rows c h w"]:
    """Return the same images laid out so that the convolutions that follow take a fifth less time on a CPU."""
    return x.contiguous(memory_format=torch.channels_last)


def _block(convolution: type[nn.Conv2d | nn.ConvTranspose2d], size_in: int, size_out: int) -> list[nn.Module]:
    return [convolution(size_in, size_out, KERNEL, STRIDE, PADDING, bias=False), nn.GroupNorm(1, size_out), nn.SiLU()]
