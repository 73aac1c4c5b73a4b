"""`matwm validate`: checks params.yaml and says what it describes."""

import argparse
import sys

from pipeline import project as places
from pipeline.validate import validate


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments: none."""


def run(options: argparse.Namespace) -> int:
    """Say that params.yaml is valid, and what it describes.

    Raises:
        ConfigError: it is not.
    """
    for segment in validate(places.root()).values():
        sys.stdout.write(f"{segment.name}: from {segment.origin.folder} to step {segment.until}\n")
    return 0
