"""The substrates of Melting Pot 2.4.1 that the paper plays; a test compares them with the package, where it is installed."""

from collections.abc import Mapping

from matwm.scenarios.option import Option, Scenario
from matwm.types import AgentSpec

# substrate: players, actions
_SUBSTRATES = {
    "chicken_in_the_matrix__arena": (8, 8),
    "coop_mining": (6, 8),
    "externality_mushrooms__dense": (5, 8),
    "gift_refinements": (6, 9),
    "pure_coordination_in_the_matrix__repeated": (2, 8),
    "rationalizable_coordination_in_the_matrix__repeated": (2, 8),
    "stag_hunt_in_the_matrix__arena": (8, 8),
}
# Left alone an episode ends at a random step from about 1,000 on, or at 5,000; PettingZoo's own example cuts it at 1,000.
_OPTIONS = {"max_cycles": Option(1000, "int or null", "environment steps an episode; null: until the substrate ends it", 1)}

SCENARIOS: Mapping[str, Scenario] = {
    name: Scenario(_OPTIONS, (players,), AgentSpec("player", "player", "image", (3, 64, 64), actions, has_action_mask=False))
    for name, (players, actions) in _SUBSTRATES.items()
}
