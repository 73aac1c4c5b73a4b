"""Plays checkpoints with and against each other: each takes some seats of a scenario while every other one takes the rest.

Where there are sides, a player takes one of them. Where all share an aim it takes one of their roles, and where all have the same role
its first agent: how well it does with partners that it was not trained with.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from matwm.config import EnvConfig
from matwm.envs.scripted import sides
from matwm.evaluation import Guest, Result, Summary, play_guests
from matwm.types import EnvSpec


@dataclass(frozen=True)
class Seats:
    """What one player takes, and whose returns tell how it does there."""

    name: str
    """A role, or the agent that joins others of its role."""
    agents: tuple[int, ...]
    counted: tuple[int, ...]


@dataclass(frozen=True)
class Matrix:
    """What P players get in the same seats, by who takes all others; the diagonal is self-play."""

    seats: Seats
    mean: Float[np.ndarray, "P P"]
    """Row: who takes the seats; column: who takes the others. Return of an episode, the mean over `seats.counted`."""
    stderr: Float[np.ndarray, "P P"]


def seats(env: EnvConfig, spec: EnvSpec) -> list[Seats]:
    """Return the seats for which a scenario has a matrix: one for each role, or one for a team of a single role.

    Raises:
        ValueError: there is one agent, with whom nobody plays.
    """
    roles, everyone = spec.roles(), tuple(range(spec.num_agents))
    if len(everyone) == 1:
        raise ValueError(f"{spec.name} has one agent, {spec.agents[0]}: there is nobody to play with or against")
    teams = [roles if side.roles is None else [role for role in side.roles if role in roles] for side in sides(env)]
    if len(teams) > 1:
        parties = {role: [number for mate in team for number in roles[mate]] for team in teams for role in team}
    elif len(roles) > 1:
        parties = roles
    else:
        return [Seats(spec.agents[0], (0,), everyone)]
    return [Seats(role, tuple(party), tuple(roles[role])) for role, party in parties.items()]


def cross_play(env: EnvConfig, spec: EnvSpec, players: Mapping[str, Guest], *, episodes: int, first_seed: int) -> list[Matrix]:
    """Return a matrix for each of `seats`, players in the order of `players`; every cell has the same episodes' seeds.

    Raises:
        ValueError: as `seats`.
    """
    taken = seats(env, spec)
    names = list(players)

    def casting(at: Seats, row: str, column: str) -> tuple[str, ...]:
        return tuple(row if number in at.agents else column for number in range(spec.num_agents))

    # With two sides, who plays which is one match-up for both matrices.
    castings = list(dict.fromkeys(casting(at, row, column) for at in taken for row in names for column in names))
    played = dict(zip(castings, play_guests(env, players, castings, episodes=episodes, first_seed=first_seed), strict=True))

    def cell(at: Seats, row: str, column: str) -> Summary:
        result: Result = played[casting(at, row, column)]
        return Summary.of(result.returns[:, list(at.counted)].mean(1))

    matrices: list[Matrix] = []
    for at in taken:
        cells = [[cell(at, row, column) for column in names] for row in names]
        mean, stderr = (np.array([[getattr(one, name) for one in row] for row in cells]) for name in ("mean", "stderr"))
        matrices.append(Matrix(at, mean, stderr))
    return matrices
