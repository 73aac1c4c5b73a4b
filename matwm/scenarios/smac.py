"""The maps of SMAC that the paper plays, with what its `smac_maps.py` says of them; a test compares them with an imitation of it."""

from collections.abc import Mapping

from matwm.scenarios.option import Option, Scenario, count
from matwm.types import AgentSpec

# map: units of ours, of the enemy's, entries of an observation with the default options, environment steps an episode
_MAPS = {
    "2m_vs_1z": (2, 1, 16, 150),
    "2s_vs_1sc": (2, 1, 17, 300),
    "2s3z": (5, 5, 80, 120),
    "3m": (3, 3, 30, 60),
    "3s_vs_3z": (3, 3, 36, 150),
    "3s_vs_4z": (3, 4, 42, 200),
    "3s_vs_5z": (3, 5, 48, 250),
    "5m_vs_6m": (5, 6, 55, 70),
    "8m": (8, 8, 80, 120),
    "MMM": (10, 10, 160, 150),
    "so_many_baneling": (7, 32, 202, 100),
    "2c_vs_64zg": (2, 64, 332, 400),
}


def _options(limit: int) -> dict[str, Option]:
    return {
        "max_steps": count(limit, "environment steps an episode", high=None),
        "difficulty": Option("7", "word", "strength of the game's own player, 7: very hard", words=tuple("123456789A")),
        "step_mul": count(8, "steps of the game an environment step", high=1000),
        "reward_sparse": Option(False, "bool", "reward 1 or -1 at the end alone"),
        "reward_only_positive": Option(True, "bool", "no penalty for losses of ours"),
        "obs_last_action": Option(False, "bool", "units see what those in sight did last"),
        "obs_pathing_grid": Option(False, "bool", "units see where they could walk around them"),
        "obs_terrain_height": Option(False, "bool", "units see the heights around them"),
    }


SCENARIOS: Mapping[str, Scenario] = {
    name: Scenario(_options(limit), (allies,), AgentSpec("ally", "ally", "vector", (size,), 6 + enemies, has_action_mask=True))
    for name, (allies, enemies, size, limit) in _MAPS.items()
}
