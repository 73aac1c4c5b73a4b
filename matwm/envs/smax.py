"""The family of SMAX's battles (JaxMARL 0.2.0) and three maps of SMAC's that it lacks; a test compares maps and defaults with it.

They are not StarCraft II, and win rates do not compare with SMAC's. What needs JAX is in smax_battle.py and smax_script.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from matwm.config import EnvConfig
from matwm.scenarios.family import Family, Scenario
from matwm.scenarios.options import count, option, options
from matwm.scenarios.sides import Script, Side

if TYPE_CHECKING:
    from matwm.envs.smax_battle import SmaxEnv


def make(config: EnvConfig, render: bool) -> "SmaxEnv":
    """Return one battle."""
    from matwm.envs.smax_battle import SmaxEnv

    return SmaxEnv(config, render)


def heuristic(name: str, chosen: Mapping[str, Any]) -> Script:
    """Return what plays a unit of ours as the package plays the enemy's."""
    from matwm.envs.smax_script import Heuristic

    return Heuristic(name, chosen)


@dataclass(frozen=True)
class Map:
    """Who fights whom: marines m, stalkers s, zealots z, hydralisks h; None where the package decides."""

    allies: int
    enemies: int
    units: str | None = None
    """The units of both sides where the package lacks the map, one letter each."""


MAPS: Mapping[str, Map] = {
    "3m": Map(3, 3),
    "2s3z": Map(5, 5),
    "25m": Map(25, 25),
    "3s5z": Map(8, 8),
    "8m": Map(8, 8),
    "5m_vs_6m": Map(5, 6),
    "10m_vs_11m": Map(10, 11),
    "27m_vs_30m": Map(27, 30),
    "3s5z_vs_3s6z": Map(8, 9),
    "3s_vs_5z": Map(3, 5),
    "6h_vs_8z": Map(6, 8),
    "smacv2_5_units": Map(5, 5),
    "smacv2_10_units": Map(10, 10),
    "smacv2_20_units": Map(20, 20),
    "2m_vs_1z": Map(2, 1, "mmz"),
    "3s_vs_3z": Map(3, 3, "ssszzz"),
    "3s_vs_4z": Map(3, 4, "ssszzzz"),
}

_OPTIONS = options(
    max_steps=count(100, "environment steps an episode", high=None),
    see_enemy_actions=option(bool, True, "units see what enemies in sight did last"),
    walls_cause_death=option(bool, True, "units that touch the edge of the map die"),
    won_battle_bonus=option(float, 1.0, "reward of a win; all damage together brings 1", low=0, high=1000),
    enemy_shoots=option(bool, True, "enemies fight back"),
    attack_mode=option(Literal["closest", "random"], "closest", "whom enemies attack"),
)
_SIDES = (Side(None, {"heuristic": {"ally": heuristic}}, frozen=("random",)),)

SCENARIOS: Mapping[str, Scenario] = {name: Scenario(_OPTIONS, (battle.allies,), sides=_SIDES) for name, battle in MAPS.items()}

FAMILY = Family(
    "battles like StarCraft's, in JAX (JaxMARL)",
    "jaxmarl",
    "make smax",
    "snapshot",
    SCENARIOS,
    packages=("jaxmarl", "jax", "jaxlib"),
    note="not StarCraft II: win rates do not compare with SMAC's",
)
