"""`matwm preset`: writes a complete parameter file."""

import argparse
import sys
from pathlib import Path

from matwm.params_yaml import PRESETS, preset_text
from pipeline import project as places


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("name", help=", ".join(sorted(path.stem for path in PRESETS.glob("*.yaml"))))
    parser.add_argument("--force", action="store_true", help="overwrite a params.yaml that was changed, without asking")


def run(options: argparse.Namespace) -> int:
    """Write a preset to params.yaml; one that was edited is overwritten only if a person says so.

    Raises:
        ConfigError: there is no such preset.
        ProjectError: params.yaml was edited, and there is nobody to ask.
    """
    text, target = preset_text(options.name), places.root() / places.PARAMS
    if not options.force and _is_edited(target) and not _may_overwrite(target):
        sys.stderr.write(f"{places.PARAMS} is left as it was\n")
        return 1
    places.write_text(target, text)
    sys.stdout.write(f'{places.PARAMS} holds the preset {options.name}; next: "make repro" or "matwm repro"\n')
    return 0


def _is_edited(path: Path) -> bool:
    if not path.exists():
        return False
    data = path.read_bytes()
    return all(preset_text(preset.stem).encode() != data for preset in PRESETS.glob("*.yaml"))


def _may_overwrite(path: Path) -> bool:
    if not sys.stdin.isatty():
        raise places.ProjectError(f"{path.name} has been changed and would be overwritten: add --force, or keep a copy of it first")
    sys.stderr.write(f"{path.name} has been changed. Overwrite it? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
