"""`matwm fingerprint`: prints the fingerprint of a checkpoint's training state."""

import argparse
import os
import sys

from matwm.checkpoint import open_checkpoint
from pipeline import project as places
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.checkpoints import Checkpoints, is_folder
from pipeline.catalog.references import REFERENCE, REFERENCE_HELP


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("checkpoint", metavar=f"{REFERENCE}|DIR", help=REFERENCE_HELP)


def run(options: argparse.Namespace) -> int:
    """Print it; every byte of the checkpoint is verified on the way.

    Raises:
        CheckpointError: it is damaged.
        ProjectError: there is none.
    """
    reference = options.checkpoint
    if is_folder(reference):
        sys.stdout.write(f"{open_checkpoint(reference).fingerprint}\n")
        return 0
    if os.sep in reference:
        raise places.ProjectError(f"{reference!r} is neither a checkpoint's folder nor {REFERENCE}")
    project = places.root()
    with places.scratch_folder(project) as scratch:
        checkpoint = open_checkpoint(Checkpoints(Catalog(project)).target(reference).first().whole(scratch))
    sys.stdout.write(f"{checkpoint.fingerprint}\n")
    return 0
