"""Starts the `matwm` command, also as `python -m matwm`."""

import re
import sys
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

PIPELINE = "pipeline"
EXTRA = "pipeline"
"""The extra with what stages and commands need; importing and playing policies needs none of it."""


def main() -> int:
    """Run the command; return its exit code: 1 where it cannot be started, in one sentence."""
    if sys.platform == "win32":
        sys.stderr.write("matwm runs on Linux and macOS: on Windows, install it in WSL\n")
        return 1
    if found := in_the_way():
        sys.stderr.write(f"{found} is imported in the place of MATWM's package {PIPELINE}: rename it, or take its folder from PYTHONPATH\n")
        return 1
    try:
        return import_module(f"{PIPELINE}.cli").main()
    except ModuleNotFoundError as error:
        if error.name is None or is_installed(EXTRA):
            raise
        command = sys.argv[1] if len(sys.argv) > 1 else "matwm"
        sys.stderr.write(f'matwm {command} needs {error.name}, which comes with MLflow and DVC: pip install "matwm[{EXTRA}]"\n')
        return 1


def is_installed(extra: str) -> bool:
    """Return whether all is there that an extra of the package asks for."""
    for text in metadata.requires("matwm") or ():
        requirement, _, marker = text.partition(";")
        if f'extra == "{extra}"' not in marker.replace("'", '"'):
            continue
        try:
            metadata.version(re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0])
        except metadata.PackageNotFoundError:
            return False
    return True


def in_the_way() -> str | None:
    """Return the file or folder that Python takes for the package of stages and commands, None if it is the one beside this package."""
    spec = find_spec(PIPELINE)
    places = [Path(place).resolve() for place in (spec.submodule_search_locations or [str(spec.origin)])] if spec else []
    return None if not places or Path(__file__).resolve().parents[1] / PIPELINE in places else str(places[0])


if __name__ == "__main__":
    sys.exit(main())
