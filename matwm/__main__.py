"""Starts the `matwm` command, also as `python -m matwm`."""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

PIPELINE = "pipeline"


def main() -> int:
    """Run the command; return its exit code, 1 if somebody's own `pipeline` would be imported in the place of MATWM's."""
    if found := in_the_way():
        sys.stderr.write(f"{found} is imported in the place of MATWM's package {PIPELINE}: rename it, or take its folder from PYTHONPATH\n")
        return 1
    return import_module(f"{PIPELINE}.cli").main()


def in_the_way() -> str | None:
    """Return the file or folder that Python takes for the package of stages and commands, None if it is the one beside this package."""
    spec = find_spec(PIPELINE)
    places = [Path(place).resolve() for place in (spec.submodule_search_locations or [str(spec.origin)])] if spec else []
    return None if not places or Path(__file__).resolve().parents[1] / PIPELINE in places else str(places[0])


if __name__ == "__main__":
    sys.exit(main())
