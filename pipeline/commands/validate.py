"""`matwm validate`: checks params.yaml and says what it describes."""

import argparse
import sys

from pipeline import project as places
from pipeline.validate import foresee, validate


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments: none."""


def run(options: argparse.Namespace) -> int:
    """Say that params.yaml is valid, and what it describes.

    Raises:
        ConfigError: it is not.
    """
    project = places.root()
    segments = validate(project)
    found = foresee(project, segments)
    for segment in segments.values():
        sys.stdout.write(
            f"{segment.name}: from {segment.origin.folder} to step {segment.until}: {found.takes.get(segment.name, 'trained')}\n"
        )
    for warning in found.warnings:
        sys.stderr.write(f"{warning}\n")
    return 0
