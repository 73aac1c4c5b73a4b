"""`matwm export R@S`: writes policies as one file that runs without MATWM, with torch or with ONNX Runtime alone."""

import argparse
import sys
from pathlib import Path

from matwm import durable
from matwm.checkpoint import read_manifest
from pipeline import project as places
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.checkpoints import Checkpoints
from pipeline.catalog.references import REFERENCE, REFERENCE_HELP

FORMATS = {"pt2": "torch", "onnx": "ONNX Runtime"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("checkpoint", metavar=f"{REFERENCE}|DIR", help=REFERENCE_HELP)
    parser.add_argument("--format", choices=FORMATS, required=True, help="pt2 runs with torch alone, onnx with ONNX Runtime alone")
    parser.add_argument("--agents", nargs="+", default=[], metavar="AGENT", help="only these, in this order")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: policies.pt2 or policies.onnx; what is there is replaced")


def run(options: argparse.Namespace) -> int:
    """Write the file.

    Raises:
        ProjectError: there is no such run or step.
        CheckpointError: it is damaged.
        UserError: there is no such agent, or what ONNX needs is not installed.
    """
    from matwm.export import export

    project = places.root()
    output = options.output or Path(f"policies.{options.format}")
    with places.scratch_folder(project) as scratch:
        target = Checkpoints(Catalog(project)).target(options.checkpoint)
        checkpoint = read_manifest(target.first().whole(scratch))
        data, about = export(checkpoint, options.format, agents=options.agents, run_id=target.run.run_id if target.run else None)
    output.parent.mkdir(parents=True, exist_ok=True)
    durable.replace(output, data)
    names = ", ".join(agent["name"] for agent in about["agents"])
    sys.stdout.write(f"{output}: {names} of step {checkpoint.step}, {len(data):,} bytes, for {FORMATS[options.format]} alone\n")
    return 0
