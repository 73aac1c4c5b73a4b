"""The maps of SMAX (JaxMARL 0.2.0) and three of SMAC's that it lacks; a test compares maps and defaults with the package."""

from collections.abc import Mapping
from dataclasses import dataclass

from matwm.scenarios.option import Option, Scenario, count


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

_OPTIONS = {
    "max_steps": count(100, "environment steps an episode", high=None),
    "see_enemy_actions": Option(True, "bool", "units see what enemies in sight did last"),
    "walls_cause_death": Option(True, "bool", "units that touch the edge of the map die"),
    "won_battle_bonus": Option(1.0, "float", "reward of a win; all damage together brings 1", 0, 1000),
    "enemy_shoots": Option(True, "bool", "enemies fight back"),
    "attack_mode": Option("closest", "word", "whom enemies attack", words=("closest", "random")),
}

SCENARIOS: Mapping[str, Scenario] = {name: Scenario(_OPTIONS, (battle.allies,)) for name, battle in MAPS.items()}
