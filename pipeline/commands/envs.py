"""`matwm envs`: lists the scenarios."""

import argparse
import sys

from matwm import scenarios


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments: none."""


def run(options: argparse.Namespace) -> int:
    """List them."""
    sys.stdout.write("".join(f"{name}\n" for name in scenarios.names("mpe")))
    return 0
