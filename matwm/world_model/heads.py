"""Predicts what follows from the hidden state: next latent, reward and continuation; and from the latent: legal actions."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from matwm.config import WorldModelConfig
from matwm.nets.distributions import TwoHot, unimix_probs
from matwm.nets.mlp import mlp


class Heads(nn.Module):
    """The dynamics, reward and continuation predictors on h_t, and the action-mask predictor on z_t (Eq. 2)."""

    def __init__(self, config: WorldModelConfig, action_size: int, *, has_action_masks: bool) -> None:
        super().__init__()
        hidden, width, layers = config.hidden_size, config.head_width, config.head_layers
        self.unimix = config.unimix
        self.latent_shape = (config.latents, config.classes)
        self.dynamics = mlp(hidden, hidden, config.dynamics_layers, config.latents * config.classes)
        self.reward = mlp(hidden, width, layers, config.bins.count, zero_output=True)
        self.reward_bins = TwoHot(config.bins.count, config.bins.bound)
        self.continuation = mlp(hidden, width, layers, 1)
        self.action_mask = mlp(config.latent_size, width, layers, action_size) if has_action_masks else None

    def prior(self, h: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch K L"]:
        """Return probabilities of the next latent."""
        return unimix_probs(self.dynamics(h).unflatten(-1, self.latent_shape), self.unimix)

    def reward_mean(self, h: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch"]:
        """Return the expected reward in environment units."""
        return self.reward_bins.mean(self.reward(h))

    def continues(self, h: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch"]:
        """Return the probability that the episode does not truly end."""
        return torch.sigmoid(self.continuation(h).squeeze(-1))
