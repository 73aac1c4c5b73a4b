"""The family of SMAX's battles (JaxMARL 0.2.0) and three maps of SMAC's that it lacks; a test compares maps and defaults with it.

They are not StarCraft II, and win rates do not compare with SMAC's. What needs JAX is in smax_battle.py and smax_script.py.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from matwm.config import EnvConfig
from matwm.envs.smax_maps import MAPS
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


_OPTIONS = options(
    max_steps=count(100, "environment steps an episode", high=None),
    see_enemy_actions=option(bool, True, "units see what enemies in sight did last"),
    walls_cause_death=option(bool, True, "units that touch the edge of the map die"),
    won_battle_bonus=option(float, 1.0, "reward of a win; all damage together brings 1", low=0, high=1000),
    enemy_shoots=option(bool, True, "enemies fight back"),
    attack_mode=option(Literal["closest", "random"], "closest", "whom enemies attack"),
)
_SIDES = (Side(None, {"heuristic": {"ally": heuristic}}, frozen=("random",)),)

SCENARIOS: Mapping[str, Scenario] = {
    name: Scenario(_OPTIONS, (battle.allies,), sides=_SIDES, objectives=("win",)) for name, battle in MAPS.items()
}

FAMILY = Family(
    "battles like StarCraft's, in JAX (JaxMARL)",
    "jaxmarl",
    "make smax",
    "snapshot",
    SCENARIOS,
    packages=("jaxmarl", "jax", "jaxlib"),
    note="not StarCraft II: win rates do not compare with SMAC's",
)
