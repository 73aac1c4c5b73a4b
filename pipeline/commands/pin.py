"""`matwm pin RUN@STEP`: keeps a checkpoint from ever being pruned, by a tag of its run in MLflow."""

import argparse
import json
import sys

from pipeline import project as places
from pipeline import runs
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.checkpoints import Checkpoints
from pipeline.catalog.references import REFERENCE, REFERENCE_HELP
from pipeline.project import ProjectError
from pipeline.run import NUMBER, PIN, PINNED, Run

LONGEST_NOTE = 500


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("checkpoint", metavar=f"{REFERENCE}|DIR", help=REFERENCE_HELP)
    parser.add_argument("--note", default="", metavar="TEXT", help="why; `matwm prune` shows it")
    parser.add_argument("--remove", action="store_true", help="take the pin away")
    parser.add_argument("--json", action="store_true", help="as one object: run_id, segment, step, is_pinned, note")


def run(options: argparse.Namespace) -> int:
    """Pin a checkpoint, or take its pin away.

    Raises:
        ProjectError, TrackingError: one sentence that names what there is.
    """
    project = places.root()
    if options.remove and options.note:
        raise ProjectError("--note belongs to a pin, and --remove takes one away: use one of them")
    if len(options.note) > LONGEST_NOTE:
        raise ProjectError(f"--note has {len(options.note)} characters: at most {LONGEST_NOTE}")
    catalog = Catalog(project)
    checkpoints = Checkpoints(catalog)
    found, wanted = checkpoints.named(options.checkpoint)
    uri, who = runs.configured_uri(), f"run {found.id[:12]} ({found.segment})"
    if catalog.mlflow_error:
        raise catalog.mlflow_error
    if found.run_id is None or found.status is None:
        raise ProjectError(f"{who} is not in MLflow at {runs.shown(uri)}, and a pin is a tag of the run there")
    note = None if options.remove else " ".join(options.note.split()) or PINNED
    if note is None:
        step = _pinned_step(found, checkpoints, wanted, who)
        with runs.explained(uri):
            runs.client(uri).delete_tag(found.run_id, f"{PIN}{places.step_folder(step)}")
    else:
        step = checkpoints.chosen(found, wanted)
        with runs.explained(uri):
            runs.client(uri).set_tag(found.run_id, f"{PIN}{places.step_folder(step)}", note)
    if options.json:
        facts = {"run_id": found.run_id, "segment": found.segment, "step": step, "is_pinned": note is not None, "note": note}
        sys.stdout.write(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
        return 0
    sys.stdout.write(f"step {step} of {who} is {'no longer pinned' if options.remove else 'pinned: matwm prune keeps it'}\n")
    return 0


def _pinned_step(run: Run, checkpoints: Checkpoints, wanted: str, who: str) -> int:
    """Return the step whose pin is to go, also if its checkpoint is gone."""
    step = int(wanted) if NUMBER.fullmatch(wanted) else checkpoints.chosen(run, wanted)
    if step not in run.pins:
        raise ProjectError(f"step {step} of {who} is not pinned; pinned: {places.named(sorted(run.pins)) or 'none'}")
    return step
