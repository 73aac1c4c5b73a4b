"""The Multi-Agent Transformer World Model: the method, without any MLOps tool.

`matwm.train`, `matwm.load_policy`, `matwm.load_policies`, `matwm.load_config` and `matwm.preset_path` are what notebooks and scripts need.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matwm.api import TrainingResult, train
    from matwm.params_yaml import load_config, preset_path
    from matwm.policy import load_policies, load_policy

__all__ = ["TrainingResult", "load_config", "load_policies", "load_policy", "preset_path", "train"]

_HOMES = {
    "TrainingResult": "matwm.api",
    "train": "matwm.api",
    "load_config": "matwm.params_yaml",
    "preset_path": "matwm.params_yaml",
    "load_policies": "matwm.policy",
    "load_policy": "matwm.policy",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the command line must not wait for torch to say its help."""
    if name not in _HOMES:
        raise AttributeError(f"module 'matwm' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
