"""Makes checkpoints of environments without training: what commands that only play need."""

from pathlib import Path
from typing import Any

from matwm.checkpoint import Checkpoint
from matwm.manifest import ROOT
from matwm.params_yaml import parse_config
from matwm.store import LocalStore
from matwm.trainer import build_trainer
from tests.pipeline.projects import tiny_params


def untrained(folder: Path, name: str, options: dict[str, Any], family: str = "pettingzoo", **changes: Any) -> Checkpoint:
    """Save the checkpoint of step 0 of an environment; `changes` are sections of params.yaml."""
    trainer = build_trainer(parse_config(tiny_params({"env": {"family": family, "name": name, "options": options}, **changes})))
    try:
        parts, shaping = trainer.parts(), trainer.config.shaping()
        return LocalStore(folder).save(0, parts, parent=ROOT, config=shaping, spec=trainer.spec, policies=trainer.policies())
    finally:
        trainer.close()
