"""`matwm fingerprint`: prints the fingerprint of a checkpoint's training state."""

import argparse
import os
import sys

from matwm.checkpoint import open_checkpoint
from pipeline import lookup
from pipeline import project as places
from pipeline.provenance.whereabouts import is_folder


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("checkpoint", metavar=f"{lookup.REFERENCE}|DIR", help=lookup.REFERENCE_HELP)


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
        raise places.ProjectError(f"{reference!r} is neither a checkpoint's folder nor {lookup.REFERENCE}")
    project = places.root()
    prefix, wanted = lookup.split_reference(reference)
    run = lookup.find(prefix, *lookup.runs_of(project))
    with places.scratch_folder(project) as scratch:
        checkpoint = lookup.bring(run, lookup.choose_step(run, wanted), scratch)
    sys.stdout.write(f"{checkpoint.fingerprint}\n")
    return 0
