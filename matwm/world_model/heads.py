"""Predicts what follows from the hidden state: next latent, reward and continuation; and from the latent: legal actions.

With `reward_input: arrival` the latent that follows has a say in the reward, too, as in DreamerV3: what an action earned often shows in
what came of it, where h_t alone must foresee it. It has a network of its own, in which the many numbers of h_t cannot drown it.

Teammates' actions and latents enter here and not the transformer: acting then needs the agent's own sequence alone.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from matwm.config import WorldModelConfig
from matwm.nets.distributions import TwoHot
from matwm.nets.mlp import mlp, zero_linear
from matwm.world_model.latents import LatentCode


class Heads(nn.Module):
    """The dynamics, reward and continuation predictors on h_t, and the action-mask predictor on z_t (Eq. 2)."""

    def __init__(self, config: WorldModelConfig, code: LatentCode, num_mates: int, action_size: int, *, has_action_masks: bool) -> None:
        super().__init__()
        hidden, width, layers = config.hidden_size, config.head_width, config.head_layers
        read_of_a_mate = {"own": 0, "actions": action_size, "joint": action_size + config.latent_size}[config.dynamics_reads]
        mates = num_mates * read_of_a_mate
        self.dynamics = mlp(hidden + mates, hidden, config.dynamics_layers, code.dynamics_size, zero_output=config.latent_code == "ordinal")
        # A word that a mate says is in the next observation as it is: a Linear learns that at once.
        self.mates_linear = zero_linear(mates, code.dynamics_size) if mates else None
        self.reward = mlp(hidden, width, layers, config.bins.count, zero_output=True)
        reads_arrival = config.reward_input == "arrival"
        arrivals = config.latent_size * (1 + num_mates if config.reward_reads == "joint" else 1)
        self.arrival = mlp(arrivals, width, layers, config.bins.count, zero_output=True) if reads_arrival else None
        self.reward_bins = TwoHot(config.bins.count, config.bins.bound)
        self.continuation = mlp(hidden, width, layers, 1)
        self.action_mask = mlp(config.latent_size, width, layers, action_size) if has_action_masks else None

    def transition(self, h: Float[Tensor, "*batch D"], mates: Float[Tensor, "*batch X"] | None) -> Float[Tensor, "*batch says"]:
        """Return what the code makes the prior's logits of; `mates` is what is read of the teammates, None where nothing is."""
        if self.mates_linear is None:
            return self.dynamics(h)
        assert mates is not None, "dynamics_reads is not own: the teammates' actions are needed"
        return self.dynamics(torch.cat([h, mates], -1)) + self.mates_linear(mates)

    def reward_logits(self, h: Float[Tensor, "*batch D"], arrival: Float[Tensor, "*batch Z"] | None) -> Float[Tensor, "*batch R"]:
        """Return logits of the bins; `arrival` is what is read of the latent that follows, None where it has no say."""
        said = self.reward(h)
        return said if self.arrival is None else said + self.arrival(arrival)

    def reward_mean(self, h: Float[Tensor, "*batch D"], arrival: Float[Tensor, "*batch Z"] | None) -> Float[Tensor, "*batch"]:
        """Return the expected reward in environment units."""
        return self.reward_bins.mean(self.reward_logits(h, arrival))

    def continues(self, h: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch"]:
        """Return the probability that the episode does not truly end."""
        return torch.sigmoid(self.continuation(h).squeeze(-1))
