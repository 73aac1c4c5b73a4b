"""`matwm repro`: validates, then hands over to `dvc repro`."""

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from matwm.checkpoint import MANIFEST, CheckpointError, read_manifest
from matwm.params_yaml import read_params
from pipeline import dvc_files, dvc_leftovers, tracking
from pipeline import project as places
from pipeline.catalog import numerics
from pipeline.commands.outcome import outcome, recorded
from pipeline.commands.table import printable
from pipeline.job import Job, open_start
from pipeline.params import params_file, sweeps
from pipeline.params.segments import ResolvedSegment, resolve_all
from pipeline.process import OWNED_NOTE, run_to_the_end
from pipeline.stopping import declare, told
from pipeline.tracking import upkeep
from pipeline.tracking.heartbeat import EXIT_CODE
from pipeline.tracking.run_facts import is_of_another_run, restore_run_facts
from pipeline.validate import VALIDATED, digest, foresee, validate

FETCHING = {"--pull", "--allow-missing", "--dry"}
IDLE = {"--dry", "-h", "--help"}
"""With these, DVC does nothing that there would be something to say of."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments; all others are DVC's."""
    declare(parser)
    parser.add_argument("--retrain", action="store_true", help="train again what is not here any more, or was trained by another NUMERICS")


def run(options: argparse.Namespace) -> int:
    """Run `dvc repro` with these arguments, after params.yaml has been found valid; return its exit code, or 75 (see `heartbeat`).

    Raises:
        ConfigError: it is not, or segments would be trained again that another version of the numerics has trained.
        ProjectError: finished training would be done again because its outputs were not pulled.
    """
    project = places.root()
    _upgrade(project / places.PARAMS)
    with told(options):
        return _reproduce(project, options)


def _upgrade(path: Path) -> None:
    """Add the keys to params.yaml that files of earlier versions lack, and without which DVC would not read dvc.yaml."""
    text = params_file.read(path) if path.is_file() else ""
    try:
        changed = params_file.upgraded(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return  # Validation says what is wrong.
    if changed != text:
        places.write_text(path, changed)
        sys.stderr.write("params.yaml got what this version asks for and means what it meant: evaluation.objective: null, sweeps: {}\n")


def _reproduce(project: Path, options: argparse.Namespace) -> int:
    found_valid = digest(project)
    segments = validate(project, retrains=options.retrain)
    for warning in foresee(project, segments).warnings:
        sys.stderr.write(f"{warning}\n")
    _restore_facts(project, segments)
    _settle(project, segments)
    if not options.retrain and not FETCHING & set(options.rest):
        _look_for_outputs(project, read_params(project / places.PARAMS))
    with Path(os.devnull).open("rb") as nothing:  # DVC would ask, and nobody would answer.
        os.dup2(nothing.fileno(), 0)
    os.chdir(project)
    if said := dvc_leftovers.stale(project):
        sys.stderr.write(f"{said}: {dvc_leftovers.clear(project)}\n")
    _write_beside_dvc(project)
    sys.stdout.flush()
    dvc, before = places.tool("dvc"), recorded(project)
    with places.scratch_folder(project) as scratch:
        environment = {**places.environment(), VALIDATED: found_valid, OWNED_NOTE: str(scratch / "owned")}
        environment |= {numerics.RETRAINS: "1"} if options.retrain else {}
        code = run_to_the_end([dvc, "repro", *options.rest], environment)
        code = EXIT_CODE if code and (scratch / "owned").exists() else code
    if not code:
        segments = resolve_all(read_params(project / places.PARAMS), project)  # Some may have ended early, or be new trials of a search.
    _restore_facts(project, segments)  # Of what DVC's run cache has brought back just now.
    if not code and not IDLE & set(options.rest):
        sys.stdout.write(printable(outcome(project, segments, before)))
    return code


def _write_beside_dvc(project: Path) -> None:
    """Write where DVC will have its locks: of a disk that refuses it says "unexpected error".

    Raises:
        OSError: the disk refuses.
    """
    folder = project / ".dvc/tmp"
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except FileNotFoundError:
        return  # It is no DVC project, which DVC says.
    except OSError as error:
        error.filename = str(folder)
        raise


def _settle(project: Path, graph: Mapping[str, ResolvedSegment]) -> None:
    """Bring MLflow up to date with what earlier processes left, but for what this pipeline trains on: its trainers do that themselves."""
    trained_next: set[Path] = set()
    for segment in graph.values():
        with contextlib.suppress(places.ProjectError, CheckpointError):
            work = Job(project, segment, open_start(project, segment, graph), None).work
            if not places.published_folder(project, segment.name).is_dir():
                trained_next.add(work)
    if upkeep.has_work(project, trained_next):
        tracking.configure(project)
        for sentence in upkeep.settle(project, sparing=trained_next):
            sys.stderr.write(f"{sentence}\n")


def _restore_facts(project: Path, graph: Mapping[str, ResolvedSegment]) -> None:
    """Write `run.json` anew where it is not of the training that DVC has brought back."""
    for name, segment in graph.items():
        last = places.published_folder(project, name) / places.step_folder(segment.until)
        with contextlib.suppress(CheckpointError):
            if (last / MANIFEST).is_file() and is_of_another_run(project, name, checkpoint := read_manifest(last)):
                tracking.configure(project)
                restore_run_facts(project, name, checkpoint)


def _look_for_outputs(project: Path, params: Mapping[str, Any]) -> None:
    """Stop before DVC trains again what is only not pulled; where there is nothing to pull from, say what will happen."""
    lost = [name for name in sweeps.entries(params, project) if _is_lost(project, name, params)]
    if not lost:
        return
    named = ", ".join(lost)
    if dvc_files.has_remote(project):
        raise places.ProjectError(
            f'segment {named} is trained (dvc.lock), but its checkpoints are not here: run "dvc pull", or add --retrain to train it again'
        )
    sys.stderr.write(f"segment {named} is trained (dvc.lock), but its checkpoints are not here and no DVC remote is set: it trains again\n")


def _is_lost(project: Path, name: str, params: Mapping[str, Any]) -> bool:
    stages = dvc_files.lock(project)
    if places.published_folder(project, name).is_dir() or not dvc_files.is_trained(stages, name, params):
        return False
    return dvc_files.checkpoint_files(project, name) is None
