"""What differs between two configurations."""

import pytest
import yaml

from matwm.changes import as_yaml, changes
from tests.matwm.tiny import tiny_config

REGIMES = "actor_critic.imagination.regimes"


def test_every_value_that_differs_is_named_with_its_marks():
    found = changes(tiny_config(), tiny_config({"seed": 4, "world_model.latents": 5, "replay.capacity": 50, "run.save_interval": 7}))
    assert [(c.path, c.before, c.after, c.branch, c.shapes) for c in found] == [
        ("seed", 3, 4, "free", True),
        ("world_model.latents", 4, 5, "fixed", True),
        ("replay.capacity", 200, 50, "adapt", True),
        ("run.save_interval", 10, 7, "free", False),
    ]
    assert str(found[0]) == "seed 3 -> 4"
    assert changes(tiny_config(), tiny_config()) == []


def test_an_option_of_the_scenario_is_a_value_of_its_own():
    (found,) = changes(tiny_config(), tiny_config({"env.options": {"max_cycles": 7}}))
    assert (found.path, found.before, found.after, found.branch) == ("env.options.max_cycles", 6, 7, "fixed")
    other = changes(tiny_config(), tiny_config({"env.name": "simple_spread_v3"}))
    assert ("env.options.N", None, 3) in [(c.path, c.before, c.after) for c in other]


def test_an_entry_of_a_list_of_sections_is_named_by_its_number():
    one = [{"max_agents": 3, "starts": 6, "horizon": 3}, {"max_agents": None, "starts": 8, "horizon": 4}]
    (found,) = changes(tiny_config(), tiny_config({REGIMES: one}))
    assert (found.path, found.before, found.after) == (f"{REGIMES}.1.horizon", 3, 4)
    (whole,) = changes(tiny_config(), tiny_config({REGIMES: one[1:]}))
    assert (whole.path, len(whole.before), whole.after) == (REGIMES, 2, one[1:])


@pytest.mark.parametrize("value", [1, 1e-5, 0.1, None, True, "text", "null", [0.9, 0.99], [{"a": None}], "3e-5", "ä: #"])
def test_a_value_is_shown_as_it_may_be_written(value):
    text = as_yaml(value)
    assert "\n" not in text
    assert yaml.safe_load(text) == value
