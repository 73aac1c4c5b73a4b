"""`matwm continue RUN@STEP --until N --set KEY=VALUE`: appends a segment that goes on from a checkpoint, with other values or not.

The checkpoint comes from this graph, else out of MLflow. Whatever is wrong is said before anything is written.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from matwm.changes import as_yaml, changes
from matwm.checkpoint import Checkpoint, open_checkpoint
from matwm.config import Config, ConfigError, leaves
from matwm.params_yaml import parse_config, read_params
from matwm.version import NUMERICS
from pipeline import project as places
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.checkpoints import Checkpoints
from pipeline.catalog.importing import Import, imported
from pipeline.catalog.references import REFERENCE, REFERENCE_HELP
from pipeline.commands.table import table
from pipeline.estimates.forecast import forecast
from pipeline.params import assignments, effects, imports, overrides, params_file
from pipeline.params.segments import resolve_all
from pipeline.project import ProjectError
from pipeline.run import Run
from pipeline.validate import missing_devices

NEXT_NAME = re.compile(r"s(\d+)$")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run", metavar=f"{REFERENCE}|DIR", help=REFERENCE_HELP)
    parser.add_argument("--until", type=int, required=True, metavar="N", help="environment step to train to")
    parser.add_argument(
        "--set", dest="words", action="append", default=[], metavar="KEY=VALUE",
        help=f"train on with another value, for example {assignments.EXAMPLE}; repeat it for more",
    )  # fmt: skip
    parser.add_argument("--name", help="name of the new segment (default: the next sNN)")
    parser.add_argument("--dry-run", action="store_true", help="check and show the change, and write nothing")
    parser.add_argument("--json", action="store_true", help="as one object, also with --dry-run")


def run(options: argparse.Namespace) -> int:
    """Append the segment; whatever is wrong, nothing has changed afterwards.

    With --json: `{"segment" (the new one's name), "entry" (what params.yaml gets under it), "is_written", "is_imported", "run_id",
    "parent_segment", "step", "changed" {path: {before, after, kind, effect}}, "unchanged" [paths], "files" [what git should get]}`.

    Raises:
        ConfigError, ProjectError, CheckpointError, TrackingError: a sentence for each thing that is wrong.
    """
    project = places.root()
    path = project / places.PARAMS
    params = read_params(path)
    graph = resolve_all(params, project)
    name = _free_name(options.name, {**(params.get("sweeps") or {}), **params["segments"]})
    catalog = Catalog(project)
    checkpoints = Checkpoints(catalog)
    found, wanted = checkpoints.named(options.run)
    step, startable = checkpoints.chosen(found, wanted), catalog.startable(found)
    with ExitStack() as stack:
        brought = None if step in startable else stack.enter_context(imported(checkpoints, found, step))
        checkpoint = brought.checkpoint if brought else open_checkpoint(startable[step])
        base = parse_config(params)
        parent = _trained(checkpoint, base) if brought else graph[places.segment_of(project, checkpoint.path.parent)].config
        config, unchanged = _changed(parent, options.words, options.until, found, checkpoint)
        entry = {"from": checkpoint.path.relative_to(project).as_posix(), "until": options.until}
        if override := _override(config, parent, base if brought else parent):
            entry["override"] = override
        _check(params, name, entry, project, parent)
        text = params_file.with_segment(params_file.read(path), name, entry)
        files = [path, *(brought.files if brought else [])]
        if options.json:
            document = _document(found, checkpoint, parent, config)
            document |= {"segment": name, "entry": entry, "is_written": not options.dry_run, "is_imported": brought is not None}
            document |= {"unchanged": unchanged, "files": [file.relative_to(project).as_posix() for file in files]}
            if not options.dry_run:
                _write(brought, project, text)
            sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
            return 0
        _say_change(name, found, checkpoint, parent, config, options.until, unchanged)
        if brought:
            sys.stdout.write(f"{'would be ' * options.dry_run}imported from {brought.source}: {entry['from']}\n")
        if options.dry_run:
            sys.stdout.write(f"nothing is written: params.yaml would get\n{params_file.lines(name, entry)}")
            return 0
        _write(brought, project, text)
    listed = " ".join(file.relative_to(project).as_posix() for file in files if file.exists())
    sys.stdout.write(f'next: "matwm repro" (or "make repro", "dvc repro"); for git: git add {listed}\n')
    return 0


def _write(brought: Import | None, project: Path, text: str) -> None:
    if brought:
        brought.keep(project)
    places.write_text(project / places.PARAMS, text)


def _document(run: Run, checkpoint: Checkpoint, parent: Config, config: Config) -> dict[str, Any]:
    changed = {
        change.path: {
            "before": change.before,
            "after": change.after,
            "kind": change.branch,
            "effect": effects.effect(change, checkpoint, parent, config),
        }
        for change in changes(parent, config)
    }
    return {"run_id": run.run_id, "parent_segment": run.segment, "step": checkpoint.step, "changed": changed}


def _changed(parent: Config, words: Sequence[str], until: int, run: Run, checkpoint: Checkpoint) -> tuple[Config, list[str]]:
    """Return the parent's configuration with the values asked for, and the paths of those that it has already.

    Raises:
        ConfigError: one sentence for each thing that is wrong.
    """
    problems: list[str] = []
    if until <= checkpoint.step:
        problems.append(f"--until {until} is not beyond step {checkpoint.step} of run {run.id[:12]}")
    asked, named, misnamed = assignments.override_of(words, parent)
    problems += misnamed
    try:
        config = overrides.apply(parent, asked, "--set ")
    except ConfigError as error:
        raise ConfigError(problems + error.problems) from None
    if misfit := effects.misfit(checkpoint, config):
        problems.append(f"--set: {misfit}")
    if problems:
        raise ConfigError(problems)
    before, after = parent.resolved(), config.resolved()
    return config, [path for path in named if assignments.value_at(before, path) == assignments.value_at(after, path)]


def _trained(checkpoint: Checkpoint, base: Config) -> Config:
    """Return the configuration of a checkpoint out of MLflow.

    Raises:
        ProjectError: the base sections differ from it in what a continued segment cannot change.
    """
    try:
        trained = imports.from_manifest(checkpoint.manifest, base, checkpoint.path.name)
    except imports.ImportedError as error:
        raise ProjectError(str(error)) from None
    if fixed := [change for change in changes(trained, base) if change.shapes and change.branch == "fixed"]:
        raise ProjectError(
            f"that checkpoint does not fit this project: {imports.differences(fixed)}: make params.yaml say the same, or use another run"
        )
    return trained


def _override(config: Config, parent: Config, base: Config) -> dict[str, Any]:
    """Return what the segment must say: what it changes, and what the base sections say otherwise than an imported parent."""
    before, general = ({path: value for path, value, _ in leaves(other)} for other in (parent, base))
    override: dict[str, Any] = {}
    for path, value, marks in leaves(config):
        if value != before[path] or (marks["shapes"] and value != general[path]):
            *above, leaf = path.split(".")
            node = override
            for key in above:
                node = node.setdefault(key, {})
            node[leaf] = value
    return override


def _check(params: Mapping[str, Any], name: str, entry: Mapping[str, Any], project: Path, parent: Config) -> None:
    """Raise ConfigError if params.yaml would not be valid with the new segment, here."""
    whole = {**params, "segments": {**params["segments"], name: dict(entry)}}
    graph = resolve_all(whole, project)
    segment = graph[name]
    for warning in forecast(project, graph, whole, remembers=False).warnings:
        sys.stderr.write(f"{warning}\n")
    if segment.config.run.device != parent.run.device and (problems := missing_devices({name: segment})):
        raise ConfigError(problems)


def _free_name(wanted: str | None, segments: Mapping[str, Any]) -> str:
    if wanted is None:
        numbers = [int(found[1]) for name in segments if (found := NEXT_NAME.fullmatch(name))]
        return f"s{max(numbers, default=-1) + 1:02d}"
    if wanted in segments:
        raise ProjectError(f"there is a segment {wanted} already: choose another --name than {', '.join(segments)}")
    return wanted


def _say_change(name: str, run: Run, checkpoint: Checkpoint, parent: Config, config: Config, until: int, unchanged: Sequence[str]) -> None:
    sys.stdout.write(
        f"segment {name} goes on from run {run.id[:12]} ({run.segment}) at step {checkpoint.step} and trains to step {until}\n"
    )
    if (numerics := checkpoint.manifest["numerics"]) != NUMERICS:
        sys.stdout.write(
            f"run {run.id[:12]} is trained by NUMERICS {numerics}, segment {name} will be by {NUMERICS}: both are recorded. Take segments "
            f'of NUMERICS {numerics} out of params.yaml, as "matwm repro" refuses to train them again; their runs stay\n'
        )
    for path in unchanged:
        value = as_yaml(assignments.value_at(config.resolved(), path))
        sys.stdout.write(f"{path} is {value} in the parent already: nothing to change\n")
    rows = [
        (change.path, as_yaml(change.before), as_yaml(change.after), change.branch, effects.effect(change, checkpoint, parent, config))
        for change in changes(parent, config)
    ]
    if rows:
        sys.stdout.write(table([("changed", "parent", "new", "kind", "what becomes of the state"), *rows]))
