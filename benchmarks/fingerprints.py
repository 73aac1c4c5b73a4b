"""Prints what four short trainings end with, to hold a change that must not change a bit against the commit before it.

    .venv/bin/python benchmarks/fingerprints.py

`ci-tiny` on Simple Tag, Speaker Listener, Knights Archers Zombies and 3m (`make smax`), 450 environment steps each. Fingerprints compare
only on one kind of machine: instruction set, and versions of constraints.txt.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from matwm.checkpoint import fingerprint_of
from matwm.errors import run_program
from matwm.params_yaml import parse_config, preset_path, read_params
from matwm.trainer import build_trainer

RECIPES = (
    ("mpe", "simple_tag_v3"),
    ("mpe", "simple_speaker_listener_v4"),
    ("butterfly", "knights_archers_zombies_v11"),
    ("smax", "3m"),
)
STEPS = 450


def main() -> None:
    """Train each recipe and print its fingerprint."""
    for family, name in RECIPES:
        data = read_params(preset_path("ci-tiny")) | {"env": {"family": family, "name": name, "options": {}}}
        trainer = build_trainer(parse_config(data))
        for _ in range(STEPS):
            trainer.step()
        sys.stdout.write(f"{name} {fingerprint_of(trainer.parts())}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(run_program(main))
