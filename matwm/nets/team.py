"""Regroups what agents hold of the same moments, so that each row has its agent's own part and its teammates'.

Rows are grouped by agent, and row k of every group is the same moment.
"""

import torch
from torch import Tensor


def of_mates(grouped: Tensor) -> Tensor:
    """Return, for values (N, b, ...) by agent, those of each agent's teammates in index order, (N, M, b, ...)."""
    return torch.stack([torch.cat([grouped[:agent], grouped[agent + 1 :]]) for agent in range(len(grouped))])


def mate_actions(action: Tensor, num_agents: int) -> Tensor:
    """Return, for actions (N*b), those of each row's teammates, (N*b, M)."""
    return mates_beside(action.unsqueeze(-1), num_agents).squeeze(-1)


def mates_beside(rows: Tensor, num_agents: int) -> Tensor:
    """Return, for rows (N*b, ..., Z), those of each row's teammates, (N*b, ..., M, Z)."""
    return of_mates(rows.unflatten(0, (num_agents, -1))).movedim(1, -2).flatten(0, 1)
