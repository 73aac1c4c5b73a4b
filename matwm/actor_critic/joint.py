"""What agents that are imagined together lend each other: latents for critics, rewards for teams."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from matwm.batches import Features
from matwm.nets.team import of_mates


def joint_size(feature_size: int, latent_size: int, num_agents: int, *, one_hot: bool) -> int:
    """Return how many features a critic reads with `critic_reads: joint`; `latent_size` is Z.

    One-hots of mates need a row more, `latent_size * num_agents`: the one that all latents of a dead mate pick, which stays zero.
    """
    return feature_size + (num_agents - 1) * latent_size + int(one_hot)


def with_mates_latents(states: Features, alive: Bool[Tensor, "N *b"], latent_size: int) -> Features:
    """Return states (N, *b, ...) with the teammates' latents, too, as critics read them with `critic_reads: joint`.

    A dead mate's are zeros; where latents are one-hots they pick the row after those of all agents, which stays zero.
    """
    lives = of_mates(alive).unsqueeze(-1)  # (N, M, *b, 1)
    if not states.latent_rows.shape[-1]:
        mates = of_mates(states.numbers[..., :latent_size]) * lives
        return Features(states.latent_rows, torch.cat([states.numbers, *mates.unbind(1)], -1))
    rows = of_mates(states.latent_rows)
    first = latent_size * torch.arange(1, rows.shape[1] + 1, dtype=rows.dtype, device=rows.device)
    nobody = latent_size * (rows.shape[1] + 1)
    rows = torch.where(lives, rows + first.view(-1, *[1] * (rows.ndim - 2)), nobody)
    return Features(torch.cat([states.latent_rows, *rows.unbind(1)], -1), states.numbers)


def team_rewards(reward: Float[Tensor, "N b H"], alive: Bool[Tensor, "N b H"], teams: list[Tensor]) -> Float[Tensor, "N b H"]:
    """Return for each agent the mean reward of those of its team that are alive (0 where none is); a team is the numbers of its agents."""
    shared = torch.empty_like(reward)
    for team in teams:
        of_team, lives = reward[team], alive[team]
        shared[team] = (of_team * lives).sum(0) / lives.sum(0).clamp(min=1)
    return shared
