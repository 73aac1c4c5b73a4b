"""One actor and one critic per agent, computed together."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from matwm.batches import Features
from matwm.config import ActorCriticConfig
from matwm.nets.distributions import TwoHot, sample_index
from matwm.nets.mlp import StackedMLP


class Actors(nn.Module):
    """Policies pi_i(a | s): logits over padded actions, of which the mask removes what is illegal or no action at all."""

    parts_of_actions: Tensor | None
    """1 where an action (column) has a value of one of its parts (row); None where actions have no parts."""

    def __init__(self, num_agents: int, feature_size: int, action_size: int, config: ActorCriticConfig) -> None:
        super().__init__()
        self.unimix = config.actor_unimix
        factors = config.action_factors
        outputs = sum(factors) if factors else action_size
        self.net = StackedMLP(num_agents, feature_size, config.width, config.layers, outputs, output_scale=0.01)
        self.register_buffer("parts_of_actions", _parts_of_actions(factors, action_size) if factors else None, persistent=False)

    def log_probs(self, features: Features, mask: Bool[Tensor, "N b A"]) -> Float[Tensor, "N b A"]:
        """Return log-probabilities, -inf where the mask is False.

        With `action_factors` an action's logit is the sum of its parts': what nothing forbids is chosen part by part.
        """
        logits = self.net(features)
        if self.parts_of_actions is not None:
            logits = logits @ self.parts_of_actions
        logits = logits.masked_fill(~mask, float("-inf"))
        if self.unimix == 0.0:
            return F.log_softmax(logits, -1)
        mixed = (1 - self.unimix) * F.softmax(logits, -1) + self.unimix / mask.sum(-1, keepdim=True)
        return torch.log(mixed.masked_fill(~mask, 1.0)).masked_fill(~mask, float("-inf"))  # log(0) would have a NaN gradient

    @torch.no_grad()
    def choose(self, features: Features, mask: Bool[Tensor, "N b A"], *, greedy: bool) -> Int[Tensor, "N b"]:
        """Return an action a row: sampled, or the likeliest."""
        log_probs = self.log_probs(features, mask)
        return log_probs.argmax(-1) if greedy else sample_index(log_probs.exp())


class Critics(nn.Module):
    """Values V_i(s) as two-hot distributions; they start at exactly zero."""

    def __init__(self, num_agents: int, feature_size: int, config: ActorCriticConfig, *, zero_row: int | None = None) -> None:
        """`zero_row` is a feature whose weights are zero and stay so."""
        super().__init__()
        self.bins = TwoHot(config.bins.count, config.bins.bound)
        self.net = StackedMLP(num_agents, feature_size, config.width, config.layers, config.bins.count, output_scale=0.0)
        if zero_row is not None:
            first = self.net.weights[0]
            with torch.no_grad():
                first[:, zero_row] = 0
            first.register_hook(lambda gradient: _without_row(gradient, zero_row))

    def forward(self, features: Features) -> Float[Tensor, "N b R"]:
        """Return logits over the bins of return."""
        return self.net(features)


def _parts_of_actions(factors: list[int], action_size: int) -> Float[Tensor, "parts A"]:
    values = torch.stack(torch.unravel_index(torch.arange(action_size), factors))  # (parts, A)
    return torch.cat([F.one_hot(value, size).T.float() for value, size in zip(values, factors, strict=True)])


def _without_row(gradient: Float[Tensor, "N F o"], row: int) -> Float[Tensor, "N F o"]:
    gradient = gradient.clone()
    gradient[:, row] = 0
    return gradient
