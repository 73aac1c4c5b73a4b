"""Nested mappings are compared value by value."""

from matwm.tree_diff import differing


def test_every_leaf_that_differs_has_its_path_and_both_values() -> None:
    before = {"seed": 0, "env": {"name": "a", "options": {"size": 1}}, "modes": [1, 2], "gone": None}
    after = {"seed": 0, "env": {"name": "b", "options": {"size": 1, "more": 2}}, "modes": [1, 3], "new": 5}
    assert differing(before, after) == {"env.name": ("a", "b"), "env.options.more": (None, 2), "modes": ([1, 2], [1, 3]), "new": (None, 5)}


def test_values_of_other_types_differ_and_a_section_may_become_a_value() -> None:
    assert differing({"a": 1, "b": True, "c": {"d": 1}}, {"a": 1.0, "b": 1, "c": 2}) == {"a": (1, 1.0), "b": (True, 1), "c": ({"d": 1}, 2)}


def test_a_prefix_begins_every_path() -> None:
    assert differing({"a": {"b": 1}}, {"a": {"b": 2}}, "env.") == {"env.a.b": (1, 2)}
