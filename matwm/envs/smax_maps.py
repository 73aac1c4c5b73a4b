"""The maps of SMAX: how many units each side has, and which ones where the package lacks the map."""

from collections.abc import Mapping
from dataclasses import dataclass


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
