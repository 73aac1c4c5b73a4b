"""Turns observations into categorical latents and back."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from matwm.config import WorldModelConfig
from matwm.nets.distributions import symlog, unimix_probs
from matwm.nets.mlp import mlp


class Autoencoder(nn.Module):
    """The posterior q(z | o) and the decoder p(o | z) for vectors, in symlog space (Eq. 1).

    With `agent_identity` the encoder also reads who is focal, so that z can tell the heads that see nothing else.
    """

    def __init__(self, config: WorldModelConfig, obs_size: int, num_agents: int) -> None:
        super().__init__()
        self.num_agents = num_agents if config.agent_identity else 0
        self.unimix = config.unimix
        self.latent_shape = (config.latents, config.classes)
        latent_size = config.latents * config.classes
        self.encoder = mlp(obs_size + self.num_agents, config.encoder_width, config.encoder_layers, latent_size)
        self.decoder = mlp(latent_size, config.encoder_width, config.encoder_layers, obs_size)

    def posterior(self, obs: Float[Tensor, "B T O"], agent: Int[Tensor, " B"]) -> Float[Tensor, "B T K L"]:
        """Return probabilities of the latent of each observation."""
        x = symlog(obs)
        if self.num_agents:
            identity = F.one_hot(agent, self.num_agents).to(x.dtype)[:, None].expand(-1, x.shape[1], -1)
            x = torch.cat([x, identity], -1)
        return unimix_probs(self.encoder(x).unflatten(-1, self.latent_shape), self.unimix)

    def decode(self, z: Float[Tensor, "B T Z"]) -> Float[Tensor, "B T O"]:
        """Return observations in symlog space."""
        return self.decoder(z)
