"""The family of MPE2's scenarios; a test compares options and defaults with MPE2 1.1."""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from matwm.config import EnvConfig
from matwm.envs import mpe_scripts as rules
from matwm.scenarios.family import Family, Scenario
from matwm.scenarios.options import count, option, options
from matwm.scenarios.sides import ScriptFactory, Side, ruled

if TYPE_CHECKING:
    from matwm.envs.pettingzoo import PettingZooEnv


def make(config: EnvConfig, render: bool) -> "PettingZooEnv":
    """Return one MPE2 scenario, with discrete actions and the options of the configuration."""
    from matwm.envs.pettingzoo import PettingZooEnv

    module = importlib.import_module(f"mpe2.{config.name}")
    return PettingZooEnv(
        config.name,
        lambda seed: module.parallel_env(**config.options, continuous_actions=False, render_mode="rgb_array" if render else None),
        draws=render,
        max_steps=config.options["max_cycles"],
    )


def sees_all(chosen: Mapping[str, Any]) -> bool:
    """Return whether agents see everybody: who sees only neighbours cannot tell them apart, and no rule would know whom it sees."""
    return chosen.get("num_agent_neighbors") is None and chosen.get("num_landmark_neighbors") is None


def _side(*roles: str, tactics: Mapping[str, Mapping[str, ScriptFactory]] | None = None, frozen: tuple[str, ...] = ()) -> Side:
    """Return a side that can stand still, and against which `frozen` is played besides."""
    return Side(roles, tactics or {}, ("random", "still", *frozen), sees_all)


_MAX_CYCLES = {"max_cycles": count(25, "environment steps an episode", high=None)}
_LOCAL_RATIO = {"local_ratio": option(float, 0.5, "share of an agent's own reward against the team's", low=0, high=1)}
_TERMINATE = {"terminate_on_success": option(bool, False, "end the episode when its goal is reached")}
# Nothing in MATWM advances the curriculum, so true means the first, easiest stage throughout.
_CURRICULUM = {"curriculum": option(bool, False, "stay on the scenario's easiest stage")}
_NEIGHBORS = {
    "num_agent_neighbors": option(int | None, None, "nearest agents that are observed; null: all", low=1),
    "num_landmark_neighbors": option(int | None, None, "nearest landmarks that are observed; null: all", low=1),
}
_CHASE = {
    "num_good": count(1, "agents that are chased"),
    "num_adversaries": count(3, "agents that chase"),
    "num_obstacles": count(2, "landmarks in the way", low=0),
}
_TEAM = ("self_play/agent",)
_PREY = ("learned_v_random/adversary", "random_v_learned/agent")
_GO = {"go": {"agent": ruled(rules.go_to_goal)}}

SCENARIOS: Mapping[str, Scenario] = {
    "simple_v3": Scenario(options(**_MAX_CYCLES), (1,), sides=(_side("agent", tactics=_GO),), objectives=_TEAM),
    "simple_adversary_v3": Scenario(
        options(N=count(2, "good agents, and landmarks"), **_MAX_CYCLES, **_NEIGHBORS),
        (1, "N"),
        sides=(
            _side("adversary", tactics={"follow": {"adversary": ruled(rules.follow)}}, frozen=("follow",)),
            _side("agent", tactics={"split": {"agent": ruled(rules.split)}}, frozen=("split",)),
        ),
        objectives=_PREY,
    ),
    "simple_crypto_v3": Scenario(
        options(**_MAX_CYCLES),
        (3,),
        sides=(_side("eve"), _side("bob", "alice")),
        objectives=("learned_v_random/eve", "random_v_learned/bob"),  # Alice has the same reward.
    ),
    "simple_formation_v1": Scenario(
        options(N=count(4, "agents"), **_MAX_CYCLES, **_TERMINATE), ("N",), sides=(_side("agent"),), objectives=_TEAM
    ),
    "simple_line_v1": Scenario(
        options(N=count(4, "agents"), **_MAX_CYCLES, **_TERMINATE), ("N",), sides=(_side("agent"),), objectives=_TEAM
    ),
    "simple_push_v3": Scenario(
        options(**_MAX_CYCLES), (2,), sides=(_side("adversary"), _side("agent", tactics=_GO, frozen=("go",))), objectives=_PREY
    ),
    "simple_reference_v3": Scenario(
        options(**_LOCAL_RATIO, **_MAX_CYCLES),
        (2,),
        sides=(
            _side(
                "agent",
                tactics={"tell_and_go": {"agent": ruled(rules.tell_and_go)}, "wait_between": {"agent": ruled(rules.wait_between)}},
            ),
        ),
        objectives=_TEAM,
    ),
    "simple_speaker_listener_v4": Scenario(
        options(**_MAX_CYCLES),
        (2,),
        sides=(
            _side(
                "speaker",
                "listener",
                tactics={
                    "say_and_go": {"speaker": ruled(rules.say_the_colour), "listener": ruled(rules.go_where_told)},
                    "wait_between": {"speaker": ruled(rules.say_nothing), "listener": ruled(rules.wait_between)},
                },
            ),
        ),
        objectives=("self_play/listener",),  # The speaker has the same reward.
    ),
    "simple_spread_v3": Scenario(
        options(N=count(3, "agents, and landmarks"), **_LOCAL_RATIO, **_MAX_CYCLES, **_CURRICULUM, **_TERMINATE, **_NEIGHBORS),
        ("N",),
        sides=(
            _side(
                "agent",
                tactics={"nearest_landmark": {"agent": ruled(rules.nearest_landmark)}, "assignment": {"agent": ruled(rules.assignment)}},
            ),
        ),
        objectives=_TEAM,
    ),
    "simple_tag_v3": Scenario(
        options(**_CHASE, **_MAX_CYCLES, **_CURRICULUM, **_TERMINATE, **_NEIGHBORS),
        ("num_good", "num_adversaries"),
        sides=(
            # The leading chaser is a line to reach, not an opponent: the figures of other methods judge prey against the plain one.
            _side(
                "adversary",
                tactics={"chase": {"adversary": ruled(rules.chase)}, "chase_lead": {"adversary": ruled(rules.chase_lead)}},
                frozen=("chase",),
            ),
            _side("agent", tactics={"flee": {"agent": ruled(rules.flee)}}, frozen=("flee",)),
        ),
        objectives=_PREY,
    ),
    "simple_world_comm_v3": Scenario(
        options(
            num_good=count(2, "agents that are chased"),
            num_adversaries=count(4, "agents that chase, with their leader"),
            num_obstacles=count(1, "landmarks in the way", low=0),
            num_food=count(2, "pieces of food"),
            **_MAX_CYCLES,
            num_forests=count(2, "forests that hide those within"),
        ),
        ("num_good", "num_adversaries"),
        sides=(_side("leadadversary", "adversary"), _side("agent")),
        objectives=_PREY,
    ),
    "collect_treasure_v1": Scenario(
        options(
            num_collectors=count(6, "agents that collect"),
            num_deposits=count(2, "agents that take in, and kinds of treasure", high=6),
            num_treasures=count(6, "pieces of treasure"),
            **_MAX_CYCLES,
        ),
        ("num_collectors", "num_deposits"),
        sides=(_side("collector", "deposit"),),
        objectives=("self_play/collector", "self_play/deposit"),
    ),
}

FAMILY = Family("particles in a plane (MPE2)", "mpe2", "make venv", "replay", SCENARIOS, packages=("pettingzoo", "mpe2", "pygame-ce"))
