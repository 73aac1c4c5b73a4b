"""`matwm init`: makes a project in a folder, for an installed matwm: a checkout of matwm is a project already."""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from matwm import durable
from matwm.params_yaml import preset_text
from matwm.version import NUMERICS
from pipeline import project as places
from pipeline.commands.preset import for_scenario
from pipeline.project import ProjectError

TEMPLATE = Path(__file__).parents[1] / "template"
"""The files of a project, a name that begins with a dot being written `dot_NAME` here: the checkout's own, but for what dvc.yaml asks for
the version of the numerics (a test compares them)."""
STAGES = "stages.yaml"
"""What the template calls dvc.yaml, which DVC would take for a pipeline of the checkout."""
FIRST_PRESET = "cpu-small"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="of the project; it is made if need be")
    parser.add_argument(
        "--preset", default=FIRST_PRESET, metavar="NAME", help=f"of params.yaml (default: {FIRST_PRESET}; see matwm preset)"
    )
    parser.add_argument("--env", metavar="SCENARIO", help="for this scenario of `matwm envs`, or your own package.module:parallel_env")


def run(options: argparse.Namespace) -> int:
    """Write the project's files; nothing that is there is overwritten.

    Raises:
        ConfigError: there is no such preset or scenario, or they do not fit each other.
        ProjectError: the folder has a file of that name, or git cannot be run.
    """
    folder = options.folder.absolute()
    params = preset_text(options.preset)
    files = {**dict(_template()), places.PARAMS: (for_scenario(params, options.env, options.preset) if options.env else params).encode()}
    if there := [name for name in files if os.path.lexists(folder / name)]:
        raise ProjectError(f"{folder} has {there[0]} already: nothing is written; choose another folder, or move that away")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / ".git").exists():
        _init_git(folder)
    for name, content in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        durable.replace(target, content)
    (folder / "bin/python").chmod(0o755)
    sys.stdout.write(f"{options.folder} is a project; next: cd {options.folder} && git add -A && git commit -m begin && matwm repro\n")
    return 0


def _template() -> Iterator[tuple[str, bytes]]:
    """Yield the files of a project by their names, but for params.yaml."""
    for path in sorted(path for path in TEMPLATE.rglob("*") if path.is_file()):
        name = "/".join(part.replace("dot_", ".", 1) if part.startswith("dot_") else part for part in path.relative_to(TEMPLATE).parts)
        yield "dvc.yaml" if name == STAGES else name, path.read_bytes()
    head = (
        "# The version of matwm's numerics that the segments are trained by: dvc.yaml reads it, and another one trains to other numbers.\n"
    )
    yield places.NUMERICS_FILE, f"{head}NUMERICS: {NUMERICS}\n".encode()
    head = "# For `mlflow run` without --env-manager local.\n"
    yield "python_env.yaml", f"{head}dependencies:\n  - matwm[pipeline]=={metadata.version('matwm')}\n".encode()


def _init_git(folder: Path) -> None:
    try:
        done = subprocess.run(["git", "init", "-q", str(folder)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ProjectError("git is not installed, which DVC needs: install it") from None
    if done.returncode:
        raise ProjectError(f"git init {folder} failed: {' '.join(done.stderr.split())}")
