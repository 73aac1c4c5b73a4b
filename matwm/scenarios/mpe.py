"""The scenarios of MPE2 1.1; a test compares options and defaults with the package."""

from collections.abc import Mapping

from matwm.scenarios.option import Option, Scenario, count

_MAX_CYCLES = {"max_cycles": count(25, "environment steps an episode", high=None)}
_LOCAL_RATIO = {"local_ratio": Option(0.5, "float", "share of an agent's own reward against the team's", 0, 1)}
_TERMINATE = {"terminate_on_success": Option(False, "bool", "end the episode when its goal is reached")}
# Nothing in MATWM advances the curriculum, so true means the first, easiest stage throughout.
_CURRICULUM = {"curriculum": Option(False, "bool", "stay on the scenario's easiest stage")}
_NEIGHBORS = {
    "num_agent_neighbors": Option(None, "int or null", "nearest agents that are observed; null: all", 1),
    "num_landmark_neighbors": Option(None, "int or null", "nearest landmarks that are observed; null: all", 1),
}
_CHASE = {
    "num_good": count(1, "agents that are chased"),
    "num_adversaries": count(3, "agents that chase"),
    "num_obstacles": count(2, "landmarks in the way", low=0),
}

SCENARIOS: Mapping[str, Scenario] = {
    "simple_v3": Scenario(_MAX_CYCLES, (1,)),
    "simple_adversary_v3": Scenario({"N": count(2, "good agents, and landmarks"), **_MAX_CYCLES, **_NEIGHBORS}, (1, "N")),
    "simple_crypto_v3": Scenario(_MAX_CYCLES, (3,)),
    "simple_formation_v1": Scenario({"N": count(4, "agents"), **_MAX_CYCLES, **_TERMINATE}, ("N",)),
    "simple_line_v1": Scenario({"N": count(4, "agents"), **_MAX_CYCLES, **_TERMINATE}, ("N",)),
    "simple_push_v3": Scenario(_MAX_CYCLES, (2,)),
    "simple_reference_v3": Scenario({**_LOCAL_RATIO, **_MAX_CYCLES}, (2,)),
    "simple_speaker_listener_v4": Scenario(_MAX_CYCLES, (2,)),
    "simple_spread_v3": Scenario(
        {"N": count(3, "agents, and landmarks"), **_LOCAL_RATIO, **_MAX_CYCLES, **_CURRICULUM, **_TERMINATE, **_NEIGHBORS}, ("N",)
    ),
    "simple_tag_v3": Scenario({**_CHASE, **_MAX_CYCLES, **_CURRICULUM, **_TERMINATE, **_NEIGHBORS}, ("num_good", "num_adversaries")),
    "simple_world_comm_v3": Scenario(
        {
            "num_good": count(2, "agents that are chased"),
            "num_adversaries": count(4, "agents that chase, with their leader"),
            "num_obstacles": count(1, "landmarks in the way", low=0),
            "num_food": count(2, "pieces of food"),
            **_MAX_CYCLES,
            "num_forests": count(2, "forests that hide those within"),
        },
        ("num_good", "num_adversaries"),
    ),
    "collect_treasure_v1": Scenario(
        {
            "num_collectors": count(6, "agents that collect"),
            "num_deposits": count(2, "agents that take in, and kinds of treasure", high=6),
            "num_treasures": count(6, "pieces of treasure"),
            **_MAX_CYCLES,
        },
        ("num_collectors", "num_deposits"),
    ),
}
