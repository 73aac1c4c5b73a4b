"""Who sits where when checkpoints play each other, and whose returns are counted."""

import numpy as np
import pytest
import torch

from matwm.actor_critic import Actors
from matwm.config import EnvConfig
from matwm.cross_play import Seats, cross_play, seats
from matwm.envs import make_env
from matwm.envs.base import Env
from matwm.evaluation import Guest
from matwm.world_model import WorldModel
from tests.matwm.tiny import scenario_config

torch.set_num_threads(1)

SHORT = {"max_cycles": 4}


def env_of(name: str, **options: int) -> tuple[EnvConfig, Env]:
    config = scenario_config(name, **{**SHORT, **options}).env
    return config, make_env(config)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("simple_tag_v3", [("adversary", (0, 1, 2), (0, 1, 2)), ("agent", (3,), (3,))]),
        ("simple_crypto_v3", [("eve", (0,), (0,)), ("bob", (1, 2), (1,)), ("alice", (1, 2), (2,))]),
        ("simple_speaker_listener_v4", [("speaker", (0,), (0,)), ("listener", (1,), (1,))]),
        ("simple_spread_v3", [("agent_0", (0,), (0, 1, 2))]),
    ],
)
def test_a_player_takes_a_side_else_a_role_else_one_agent(name: str, expected: list[tuple[str, tuple[int, ...], tuple[int, ...]]]) -> None:
    config, env = env_of(name)
    assert seats(config, env.spec) == [Seats(*one) for one in expected]


def test_nobody_plays_with_a_single_agent() -> None:
    config, env = env_of("simple_v3")
    with pytest.raises(ValueError, match="simple_v3 has one agent, agent_0: there is nobody to play with or against"):
        seats(config, env.spec)


def guest(env: Env, config_name: str, action: int) -> Guest:
    """Agents that take one action whatever they see."""
    config = scenario_config(config_name, **SHORT)
    world_model = WorldModel(env.spec, config.world_model).eval()
    actors = Actors(env.spec.num_agents, world_model.feature_size, env.spec.action_size, config.actor_critic)
    with torch.no_grad():
        actors.net.output_weight.zero_()
        actors.net.output_bias.zero_()
        actors.net.output_bias[:, 0, action] = 50.0
    return Guest(world_model, actors, config.schedule.acting_context, greedy=True)


def returns_of(config: EnvConfig, seeds: range, actions: list[int]) -> np.ndarray:
    """What constant actions earn, one environment at a time."""
    totals = []
    for seed in seeds:
        env = make_env(config)
        tick, total = env.reset(seed), np.zeros(len(actions))
        while not tick.is_over:
            tick = env.step(np.array(actions))
            total += tick.reward
        totals.append(total)
    return np.array(totals)


@pytest.mark.parametrize("name", ["simple_tag_v3", "simple_spread_v3"])
def test_a_cell_is_what_the_row_gets_while_the_column_takes_the_other_seats(name: str) -> None:
    config, env = env_of(name)
    acts = {"left": 1, "up": 4}
    players = {player: guest(env, name, action) for player, action in acts.items()}
    matrices = cross_play(config, env.spec, players, episodes=3, first_seed=7)
    assert [one.seats for one in matrices] == seats(config, env.spec)
    for one in matrices:
        for row, mine in enumerate(acts.values()):
            for column, theirs in enumerate(acts.values()):
                actions = [mine if number in one.seats.agents else theirs for number in range(env.spec.num_agents)]
                returns = returns_of(config, range(7, 10), actions)[:, list(one.seats.counted)].mean(1)
                assert one.mean[row, column] == pytest.approx(returns.mean())
                assert one.stderr[row, column] == pytest.approx(returns.std(ddof=1) / 3**0.5)
    assert len({round(float(cell), 6) for one in matrices for cell in one.mean.flat}) > 2, "cells differ"
