"""`matwm continue RUN@STEP --until N`: appends a segment that goes on from a checkpoint, imported from MLflow if this graph lacks it."""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matwm.changes import changes
from matwm.checkpoint import Checkpoint, open_checkpoint
from matwm.config import Config, leaves, parse_config, read_params
from pipeline import imports, lookup, params_file, tracking
from pipeline import project as places
from pipeline.project import ProjectError
from pipeline.segments import resolve_all

NEXT_NAME = re.compile(r"s(\d+)$")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run", metavar="RUN[@STEP]", help="beginning of a run's ID; STEP is a number, latest (default) or final")
    parser.add_argument("--until", type=int, required=True, metavar="N", help="environment step to train to")
    parser.add_argument("--name", help="name of the new segment (default: the next sNN)")


def run(options: argparse.Namespace) -> int:
    """Append the segment; whatever is wrong, nothing has changed afterwards.

    Raises:
        ConfigError, ProjectError, CheckpointError, TrackingError: one sentence that names what there is.
    """
    project, until = places.root(), options.until
    tracking.configure(project)
    path = project / places.PARAMS
    params = read_params(path)
    graph = resolve_all(params, project)
    name = _free_name(options.name, params["segments"])
    prefix, wanted = lookup.split_reference(options.run)
    found = lookup.find(prefix, *lookup.known_runs(project, graph, params))
    step = lookup.choose_step(found, wanted)
    if until <= step:
        raise ProjectError(f"--until {until} is not beyond step {step} of run {found.run_id[:12]}")
    if step in found.published:
        checkpoint = lookup.bring(found, step, project)
        text = _with_entry(path, params, name, {"from": checkpoint.path.relative_to(project).as_posix(), "until": until})
        places.write_text(path, text)
        added = []
    else:
        with _imported(project, found, step) as (checkpoint, added):
            override = _override(checkpoint, parse_config(params))
            entry = {"from": checkpoint.path.relative_to(project).as_posix(), "until": until}
            text = _with_entry(path, params, name, entry | ({"override": override} if override else {}))
            _dvc_add(project, checkpoint.path)
            places.write_text(path, text)
    files = " ".join(file.relative_to(project).as_posix() for file in [path, *added] if file.exists())
    _say_next(name, found, step, until, files)
    return 0


def _with_entry(path: Path, params: Mapping[str, Any], name: str, entry: Mapping[str, Any]) -> str:
    """Return the text of params.yaml with the new segment, after checking the graph with it."""
    resolve_all({**params, "segments": {**params["segments"], name: dict(entry)}}, path.parent)
    return params_file.with_segment(path.read_text(encoding="utf-8"), name, entry)


@contextmanager
def _imported(project: Path, run: lookup.Run, step: int) -> Iterator[tuple[Checkpoint, list[Path]]]:
    """Yield the checkpoint in `imports/` and the files for git beside it; if the block fails, what was not there before is removed."""
    parent = project / "imports" / run.run_id
    folder = parent / places.step_folder(step)
    pointer, ignored = folder.with_name(f"{folder.name}.dvc"), parent / ".gitignore"
    if folder.is_dir() and pointer.is_file():
        yield open_checkpoint(folder), [pointer, ignored]
        return
    outermost = next(path for path in (project / "imports", parent, folder) if not path.exists() or path == folder)
    kept = ignored.read_bytes() if ignored.exists() else None
    try:
        yield lookup.bring(run, step, parent), [pointer, ignored]
    except BaseException:
        shutil.rmtree(outermost, ignore_errors=True)
        pointer.unlink(missing_ok=True)
        if kept is not None:
            ignored.write_bytes(kept)
        elif parent.is_dir():
            ignored.unlink(missing_ok=True)
        raise


def _dvc_add(project: Path, folder: Path) -> None:
    """Make an import DVC's business; to repeat it changes nothing."""
    done = subprocess.run(
        [places.tool("dvc"), "add", str(folder.relative_to(project))],
        cwd=project, env=places.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        why = " ".join(done.stderr.split())
        raise ProjectError(f'"dvc add" does not take the imported checkpoint: {why}')


def _override(checkpoint: Checkpoint, base: Config) -> dict[str, Any]:
    """Return what the segment must say so that it trains on with the values of its parent, which the base sections may not have.

    Raises:
        ProjectError: they differ in what a continued segment cannot change.
    """
    try:
        trained = imports.from_manifest(checkpoint.manifest, base, f"{checkpoint.path.name}")
    except imports.ImportedError as error:
        raise ProjectError(str(error)) from None
    differing = [change for change in changes(base, trained) if change.shapes]
    if fixed := [change for change in changes(trained, base) if change.shapes and change.branch == "fixed"]:
        raise ProjectError(
            f"that checkpoint does not fit this project: {imports.differences(fixed)}: make params.yaml say the same, or use another run"
        )
    override: dict[str, Any] = {}
    paths = {change.path for change in differing}
    for path, value, _ in leaves(trained):
        if any(changed == path or changed.startswith(f"{path}.") for changed in paths):
            *above, leaf = path.split(".")
            node = override
            for key in above:
                node = node.setdefault(key, {})
            node[leaf] = value
    return override


def _free_name(wanted: str | None, segments: Mapping[str, Any]) -> str:
    if wanted is None:
        numbers = [int(found[1]) for name in segments if (found := NEXT_NAME.fullmatch(name))]
        return f"s{max(numbers, default=-1) + 1:02d}"
    if wanted in segments:
        raise ProjectError(f"there is a segment {wanted} already: choose another --name than {', '.join(segments)}")
    return wanted


def _say_next(name: str, run: lookup.Run, step: int, until: int, files: str) -> None:
    sys.stdout.write(
        f"segment {name} goes on from run {run.run_id[:12]} ({run.segment}) at step {step} and trains to step {until}\n"
        f'next: "matwm repro" (or "make repro", "dvc repro"); for git: git add {files}\n'
    )
