"""Reads YAML as params.yaml means it: plain data, no key twice, and numbers also as DVC writes them."""

import re
from typing import Any

import yaml


def read_yaml(text: str) -> Any:
    """Return what a YAML document says.

    Raises:
        yaml.YAMLError: it is none, says a key twice, or refers to itself.
    """
    return yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)


class _Loader(yaml.SafeLoader):
    """Refuses a mapping that says a key twice, of which YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key is a list or a section, expected a name", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# `dvc exp run -S …=2.0e-5` rewrites params.yaml with Python's 2e-05, which PyYAML would read as text. What people write,
# 3e-5, stays text: the schema tells them that other readers of YAML would not see a number either.
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"-?[0-9]e[-+][0-9]{2,}$"), list("-0123456789"))
