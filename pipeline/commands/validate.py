"""`matwm validate`: checks params.yaml and says what it describes."""

import argparse
import json
import sys

from pipeline import project as places
from pipeline.validate import foresee, validate


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="as one object")


def run(options: argparse.Namespace) -> int:
    """Say that params.yaml is valid, and what it describes.

    With --json: `{"segments": [...], "warnings" [sentences]}`, each segment an object with `segment`, `from`, `until`, `is_trained`,
    `takes` (a sentence) and `estimate` (null if it is trained, else `checkpoints` still to be made, and in bytes `each`, `replay`,
    `disk`, `memory_at_least`, `memory_roughly_more`).

    Raises:
        ConfigError: it is not.
    """
    project = places.root()
    segments = validate(project)
    found = foresee(project, segments)
    if options.json:
        rows = [
            {
                "segment": segment.name,
                "from": segment.origin.folder,
                "until": segment.until,
                "is_trained": segment.name not in found.takes,
                "takes": found.takes.get(segment.name),
                "estimate": found.bytes.get(segment.name),
            }
            for segment in segments.values()
        ]
        sys.stdout.write(json.dumps({"segments": rows, "warnings": found.warnings}, indent=2) + "\n")
        return 0
    for segment in segments.values():
        sys.stdout.write(
            f"{segment.name}: from {segment.origin.folder} to step {segment.until}: {found.takes.get(segment.name, 'trained')}\n"
        )
    for warning in found.warnings:
        sys.stderr.write(f"{warning}\n")
    return 0
