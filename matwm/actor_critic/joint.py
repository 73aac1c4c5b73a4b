"""What agents that are imagined together lend each other: latents for critics, rewards for teams."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from matwm.nets.team import of_mates
from matwm.types import Rollout


def joint_size(feature_size: int, latent_size: int, num_agents: int, *, one_hot: bool) -> int:
    """Return how many features a critic reads with `critic_reads: joint`; `latent_size` is Z.

    One-hots of mates need a row more: the one that all latents of a dead mate pick.
    """
    return feature_size + (num_agents - 1) * latent_size + int(one_hot)


def with_mates_latents(rollout: Rollout, latent_size: int) -> Rollout:
    """Return a rollout (N, b, ...) whose states hold the teammates' latents, too, as critics read them with `critic_reads: joint`.

    A dead mate's are zeros; where latents are one-hots they pick the row after those of all agents.
    """
    alive = of_mates(rollout.alive).unsqueeze(-1)  # (N, M, b, H+1, 1)
    picks = rollout.latent_rows.shape[-1]
    if picks:
        mates = of_mates(rollout.latent_rows)
        first = latent_size * torch.arange(1, mates.shape[1] + 1, dtype=mates.dtype, device=mates.device)
        nobody = latent_size * (mates.shape[1] + 1)
        rows = torch.where(alive, mates + first[:, None, None, None], nobody)
        return replace(rollout, latent_rows=torch.cat([rollout.latent_rows, *rows.unbind(1)], -1))
    mates = of_mates(rollout.numbers[..., :latent_size]) * alive
    return replace(rollout, numbers=torch.cat([rollout.numbers, *mates.unbind(1)], -1))


def team_rewards(reward: Float[Tensor, "N b H"], alive: Bool[Tensor, "N b H"], teams: list[Tensor]) -> Float[Tensor, "N b H"]:
    """Return for each agent the mean reward of those of its team that are alive (0 where none is); a team is the numbers of its agents."""
    shared = torch.empty_like(reward)
    for team in teams:
        of_team, lives = reward[team], alive[team]
        shared[team] = (of_team * lives).sum(0) / lives.sum(0).clamp(min=1)
    return shared
