"""The table of scenarios says what the installed MPE2 says."""

import importlib
import inspect
import math
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import mpe2
import pytest

from matwm import scenarios
from matwm.config import EnvConfig
from matwm.envs.scripted import learners

NOT_OPTIONS = {"self", "render_mode", "continuous_actions", "dynamic_rescaling", "benchmark_data"}
OTHER_TEAMS = [
    ("simple_adversary_v3", {"N": 4}),
    ("simple_formation_v1", {"N": 1}),
    ("simple_line_v1", {"N": 2}),
    ("simple_spread_v3", {"N": 5}),
    ("simple_tag_v3", {"num_good": 2, "num_adversaries": 1, "num_obstacles": 0}),
    ("simple_world_comm_v3", {"num_good": 1, "num_adversaries": 2, "num_food": 1, "num_forests": 1}),
    ("collect_treasure_v1", {"num_collectors": 1, "num_deposits": 6, "num_treasures": 1}),
]


def problems(name, options):
    with pytest.raises(ValueError) as caught:
        scenarios.complete_options("mpe", name, options)
    return str(caught.value).split("\n")


def test_a_configuration_is_validated_without_what_environments_need():
    code = (
        "import sys\n"
        "from matwm import config, scenarios\n"
        "for name, family in scenarios.families().items():\n"
        "    for scenario in family.scenarios:\n"
        "        config.EnvConfig(family=name, name=scenario, options={})\n"
        "print(*{module.partition('.')[0] for module in sys.modules})"
    )
    imported = set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())
    assert "pydantic" in imported
    assert not imported & {"pettingzoo", "mpe2", "gymnasium", "scipy", "pygame", "pymunk", "jax", "jaxmarl", "smac", "meltingpot", "dm_env"}


def test_every_scenario_of_the_package_is_known():
    installed = {module.name for module in pkgutil.iter_modules(mpe2.__path__) if module.name.rpartition("_v")[2].isdigit()}
    assert set(scenarios.names("mpe")) == installed
    assert len(installed) == 12


@pytest.mark.parametrize("name", scenarios.names("mpe"))
def test_options_and_defaults_are_those_of_the_package(name):
    parameters = inspect.signature(importlib.import_module(f"mpe2.{name}").raw_env.__init__).parameters
    expected = {key: parameter.default for key, parameter in parameters.items() if key not in NOT_OPTIONS}
    complete = scenarios.complete_options("mpe", name, {})
    assert complete == expected
    assert [type(value) for value in complete.values()] == [type(expected[key]) for key in complete]
    kinds = {"int": int, "int | None": int | None, "float": float, "bool": bool}
    fields = scenarios.family("mpe").scenarios[name].options.model_fields
    assert {key: field.annotation for key, field in fields.items()} == {key: kinds[parameters[key].annotation] for key in expected}


@pytest.mark.parametrize(("name", "options"), [(name, {}) for name in scenarios.names("mpe")] + OTHER_TEAMS)
def test_the_number_of_agents_is_the_real_one(name, options):
    complete = scenarios.complete_options("mpe", name, options)
    env = importlib.import_module(f"mpe2.{name}").parallel_env(**complete)
    assert scenarios.num_agents("mpe", name, complete) == len(env.possible_agents)


def test_one_more_kind_of_treasure_than_the_table_admits_breaks_the_package():
    deposits = scenarios.family("mpe").scenarios["collect_treasure_v1"].options.model_fields["num_deposits"]
    (most,) = [mark.le for mark in deposits.metadata if hasattr(mark, "le")]
    module = importlib.import_module("mpe2.collect_treasure_v1")
    with pytest.raises(ValueError):
        module.parallel_env(num_deposits=int(most) + 1)


def test_given_options_stay_and_their_order_does_not_matter():
    one = scenarios.complete_options("mpe", "simple_tag_v3", {"max_cycles": 50, "num_good": 2})
    other = scenarios.complete_options("mpe", "simple_tag_v3", {"num_good": 2, "max_cycles": 50})
    assert list(one.items()) == list(other.items())
    assert (one["max_cycles"], one["num_good"], one["num_adversaries"]) == (50, 2, 3)


def test_completing_twice_changes_nothing():
    once = scenarios.complete_options("mpe", "simple_spread_v3", {"local_ratio": 1})
    assert scenarios.complete_options("mpe", "simple_spread_v3", once) == once
    assert isinstance(once["local_ratio"], float)


def test_an_unknown_scenario_gets_the_nearest_and_all_names():
    (sentence,) = problems("simple_tagg_v3", {})
    assert sentence.startswith("env.name 'simple_tagg_v3' is unknown, did you mean simple_tag_v3?")
    assert all(name in sentence for name in scenarios.names("mpe"))


def test_every_problem_has_its_own_sentence_with_the_full_path():
    sentences = problems("simple_tag_v3", {"num_goood": 1, "max_cycles": 0, "curriculum": 1, "num_obstacles": True, "max_cycle": 3})
    assert [sentence.split()[0] for sentence in sentences] == [
        "env.options.num_goood",
        "env.options.max_cycles",
        "env.options.curriculum",
        "env.options.num_obstacles",
        "env.options.max_cycle",
    ]
    assert "did you mean num_good?" in sentences[0]
    assert "at least 1" in sentences[1]
    assert "true or false" in sentences[2]
    assert "did you mean max_cycles?" in sentences[4]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("simple_v3", {"max_cycles": "25"}),
        ("simple_v3", {"max_cycles": 25.0}),
        ("simple_v3", {"max_cycles": None}),
        ("simple_v3", {7: 1}),
        ("simple_tag_v3", {"num_agent_neighbors": 0}),
        ("simple_spread_v3", {"local_ratio": "5e-1"}),
        ("simple_spread_v3", {"local_ratio": 1.5}),
        ("simple_spread_v3", {"local_ratio": math.nan}),
        ("simple_spread_v3", {"local_ratio": False}),
        ("simple_tag_v3", {"render_mode": None}),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(name, options):
    (sentence,) = problems(name, options)
    assert sentence.startswith(f"env.options.{next(iter(options))} is ")


@pytest.mark.parametrize(
    ("family", "name", "options", "expected"),
    [
        ("smax", "3m", {"max_steps": 3 * 10**9}, "a whole number of at most 2147483647 (environment steps an episode)"),
        ("smac", "3m", {"max_steps": 10**21}, "a whole number of at most 2147483647 (environment steps an episode)"),
        ("meltingpot", "coop_mining", {"max_cycles": 2**31}, "a whole number of at most 2147483647 (environment steps an episode"),
        ("mpe", "simple_tag_v3", {"num_agent_neighbors": 2**31}, "a whole number of at most 2147483647 (nearest agents"),
        ("butterfly", "cooperative_pong_v6", {"max_reward": 10**350}, "a finite number of at most 308 digits (return"),
        ("butterfly", "cooperative_pong_v6", {"max_reward": math.inf}, "a finite number of at most 308 digits (return"),
        ("butterfly", "pistonball_v6", {"time_penalty": math.nan}, "a finite number of at most 308 digits (reward of each step)"),
    ],
)
def test_a_number_that_no_environment_can_hold_is_refused(family, name, options, expected):
    ((key, value),) = options.items()
    with pytest.raises(ValueError) as caught:
        scenarios.complete_options(family, name, options)
    assert str(caught.value).startswith(f"env.options.{key} is {value!r}, expected {expected}")


def test_the_largest_numbers_that_can_be_held_are_taken():
    assert scenarios.complete_options("smax", "3m", {"max_steps": 2**31 - 1})["max_steps"] == 2**31 - 1
    assert scenarios.complete_options("butterfly", "cooperative_pong_v6", {"max_reward": 10**308})["max_reward"] == 1e308


def test_a_team_of_nobody_is_refused():
    nobody = {"num_archers": 0, "num_knights": 0}
    with pytest.raises(ValueError) as caught:
        scenarios.complete_options("butterfly", "knights_archers_zombies_v11", nobody)
    assert str(caught.value) == "env.options.num_archers and env.options.num_knights are 0: expected at least one agent"
    alone = scenarios.complete_options("butterfly", "knights_archers_zombies_v11", {**nobody, "num_knights": 1})
    assert scenarios.num_agents("butterfly", "knights_archers_zombies_v11", alone) == 1


def test_options_that_are_no_section_are_refused():
    assert problems("simple_v3", [1]) == ["env.options is [1]: expected a section with keys"]


def test_continuous_actions_are_refused_and_their_absence_is_not():
    (sentence,) = problems("simple_v3", {"continuous_actions": True})
    assert sentence == "env.options.continuous_actions is True, but MATWM has discrete actions only: remove it"
    assert scenarios.complete_options("mpe", "simple_v3", {"continuous_actions": False}) == {"max_cycles": 25}


def test_null_means_all_neighbors():
    assert scenarios.complete_options("mpe", "simple_adversary_v3", {"num_agent_neighbors": None})["num_agent_neighbors"] is None
    assert scenarios.complete_options("mpe", "simple_adversary_v3", {"num_agent_neighbors": 1})["num_agent_neighbors"] == 1


def test_the_documentation_lists_what_each_scenario_is_judged_by() -> None:
    text = (Path(__file__).parents[2] / "docs/environments.md").read_text(encoding="utf-8")
    table = text.split("<!-- objectives -->")[1].split("<!-- /objectives -->")[0]
    listed: dict[str, tuple[str, ...]] = {}
    for first, second, *_ in (line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| `")):
        listed |= dict.fromkeys(re.findall(r"`(\w+)`", first), tuple(re.findall(r"`([\w/]+)`", second)))
    declared = {(family, name): scenarios.objectives(family, name) for family in scenarios.FAMILIES for name in scenarios.names(family)}
    for (family, name), found in declared.items():
        assert tuple(map(str, found)) == listed.get(name, ("win",) if family in ("smax", "smac") else ()), name
    assert set(listed) <= {name for _, name in declared}


def test_objectives_are_of_match_ups_that_are_judged() -> None:
    for family in scenarios.FAMILIES:
        for name in scenarios.names(family):
            env = EnvConfig.model_validate({"family": family, "name": name, "options": {}})
            known = learners(env)
            for objective in scenarios.objectives(family, name):
                roles = known[objective.matchup]
                assert objective.is_metric or roles is None or objective.role in roles, (name, str(objective))
