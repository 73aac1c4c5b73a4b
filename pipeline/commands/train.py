"""`matwm train NAME`: trains one segment or trial of params.yaml, without DVC."""

import argparse
import sys

from pipeline import project as places
from pipeline.process import Interruption, follow_parent
from pipeline.stopping import declare, told


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("name", metavar="SEGMENT|SWEEP/TRIAL", help="what to train, by its name in params.yaml")
    parser.add_argument("--follow-parent", action="store_true", help="save and end when the process that started this one dies")
    declare(parser)


def run(options: argparse.Namespace) -> int:
    """Train to the end and publish the checkpoints: `dvc.lock` is left alone, and a later `matwm repro` trains nothing of it again.

    Returns 0, or 75 where another process owns the run.

    Raises:
        ConfigError, ProjectError, CheckpointError, TrackingError: one sentence that a person can act on.
    """
    from pipeline.train import train

    project = places.root()
    follow_parent(is_asked=options.follow_parent)
    with told(options), Interruption() as interruption:
        code = train(project, options.name, interruption)
    if code == 0:
        sys.stdout.write(f"{options.name} is trained: checkpoints/{options.name}\n")
    return code
