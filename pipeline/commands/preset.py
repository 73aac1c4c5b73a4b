"""`matwm preset`: writes a complete parameter file."""

import argparse
import sys
from pathlib import Path
from textwrap import indent

from matwm.config import ConfigError
from matwm.params_yaml import PRESETS, parse_config, preset_text
from matwm.spelling import nearest
from matwm.yaml_text import overlaid, read_yaml, to_yaml
from pipeline import project as places


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("name", help=", ".join(sorted(path.stem for path in PRESETS.glob("*.yaml"))))
    parser.add_argument("--env", metavar="SCENARIO", help="for this scenario of `matwm envs`, or your own package.module:parallel_env")
    parser.add_argument("--force", action="store_true", help="overwrite a params.yaml that was changed, without asking")


def run(options: argparse.Namespace) -> int:
    """Write a preset to params.yaml; one that was edited is overwritten only if a person says so.

    Raises:
        ConfigError: there is no such preset or scenario, or they do not fit each other.
        ProjectError: params.yaml was edited, and there is nobody to ask.
    """
    text, target = preset_text(options.name), places.root() / places.PARAMS
    if options.env:
        text = for_scenario(text, options.env, options.name)
    if not options.force and _is_edited(target) and not _may_overwrite(target):
        sys.stderr.write(f"{places.PARAMS} is left as it was\n")
        return 1
    places.write_text(target, text)
    env = f" for {options.env}" if options.env else ""
    sys.stdout.write(f'{places.PARAMS} holds the preset {options.name}{env}; next: "make repro" or "matwm repro"\n')
    return 0


def for_scenario(text: str, name: str, preset: str) -> str:
    """Return a preset's text with another scenario: its own options, those that the preset's scenario has too as the preset has them.

    Raises:
        ConfigError: there is no such scenario, or the preset's other values do not fit it.
    """
    from matwm import scenarios

    families = [family for family in scenarios.FAMILIES if name in scenarios.names(family)] or [scenarios.OWN] * (":" in name)
    if not families:
        known = [one for family in scenarios.FAMILIES for one in scenarios.names(family)]
        raise ConfigError([f"there is no scenario {name!r}{nearest(name, known)}"])
    family, given = families[0], read_yaml(text)["env"].get("options", {})
    options = {key: given.get(key, value) for key, value in scenarios.complete_options(family, name, {}).items()}
    changed = overlaid(text, f"env:\n{indent(to_yaml({'family': family, 'name': name, 'options': options}), '  ')}")
    parse_config(read_yaml(changed), source=f"preset {preset} for {name}")
    return changed


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
