"""Finds the runs that params.yaml describes: as much as can be known, also in a clone, or while params.yaml is being edited."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from matwm.changes import changes
from matwm.checkpoint import CheckpointError, read_manifest
from matwm.config import ConfigError, SegmentConfig
from matwm.manifest import MANIFEST, ROOT
from matwm.params_yaml import parse_config, read_params
from pipeline import project as places
from pipeline.keys import manifest_key
from pipeline.params import sweeps
from pipeline.params.segments import CHECKPOINT, ResolvedSegment, resolve_all
from pipeline.run import Run


@dataclass
class Described:
    """The segments of params.yaml: as written, and resolved if everything in it is valid."""

    project: Path
    entries: Mapping[str, SegmentConfig] = field(default_factory=dict)
    graph: Mapping[str, ResolvedSegment] = field(default_factory=dict)
    error: ConfigError | None = None
    """Why that is not all."""

    @property
    def trouble(self) -> str | None:
        """The first thing that is wrong, in a sentence."""
        ending = "" if self.entries else ": only what is trained is known"
        return f"{self.error.problems[0]}{ending}" if self.error else None


def described(project: Path) -> Described:
    """Read params.yaml. What segments from the root changed is said against the base sections: several would look the same otherwise."""
    try:
        params = read_params(project / places.PARAMS)
        entries = sweeps.entries(params, project)
    except ConfigError as error:
        return Described(project, error=error)
    try:
        graph, base = resolve_all(params, project), parse_config(params)
        roots = {name: tuple(changes(base, one.config)) for name, one in graph.items() if one.origin.folder == places.ROOT_CHECKPOINT}
        return Described(project, entries, {name: replace(one, changed=roots.get(name, one.changed)) for name, one in graph.items()})
    except ConfigError as error:
        return Described(project, entries, error=error)


def origin(text: str) -> tuple[str | None, str | None, int]:
    """Return segment or run, and the step, of the checkpoint that a segment starts from."""
    match = CHECKPOINT.fullmatch(text.rstrip("/"))
    if match is None:
        return None, None, 0
    step = places.step_of(match[3]) or 0
    return (match[2], None, step) if match[1] == "checkpoints" else (None, match[2], step)


def current_runs(params: Described, runs: Iterable[Run]) -> dict[str, Run]:
    """Return the run of each segment that has one: that with its key, as far as the key can be known."""
    candidates: dict[str, list[Run]] = {}
    for run in runs:
        candidates.setdefault(str(run.segment), []).append(run)
    found: dict[str, Run] = {}
    for name in parents_first(params.graph):
        if (run := _run_of(params, name, found, candidates.get(name, []))) is not None:
            found[name] = run
    for name, entry in params.entries.items():
        if name not in params.graph:  # The run that git records, if it begins where a params.yaml says that is otherwise not valid.
            step = origin(entry.from_)[2]
            for run in candidates.get(name, []):
                if run.published and (run.parent_step or 0) == step:
                    found.setdefault(name, run)
    return found


def unbroken(params: Described, records: Mapping[str, Mapping[str, object]]) -> set[str]:
    """Return the segments of which git records the training that params.yaml describes, ancestors included.

    By segment keys: what shapes no training (`retention`, `until`, `tracking`) may have been edited since.
    """
    found: set[str] = set()
    for name in parents_first(params.graph):
        segment, record = params.graph[name], records.get(name, {})
        parent = record.get("parent")
        if not isinstance(parent, dict) or not isinstance(digest := parent.get("digest"), str):
            continue
        if segment.key(digest) != record.get("key") or parent.get("step") != segment.origin.step:
            continue
        if segment.origin.segment is None:
            is_right = segment.origin.folder != places.ROOT_CHECKPOINT or digest == ROOT.digest
        else:
            is_right = segment.origin.segment in found and may_be(params.project / segment.origin.folder, digest)
        if is_right:
            found.add(name)
    return found


def parents_first(graph: Mapping[str, ResolvedSegment]) -> list[str]:
    """Return the names of segments, each after that which it starts from."""
    order: dict[str, None] = {}
    for name in graph:
        line = [name]
        while (parent := graph[line[-1]].origin.segment) is not None and parent not in order:
            line.append(parent)
        order |= dict.fromkeys(reversed(line))
    return list(order)


def _run_of(params: Described, name: str, found: Mapping[str, Run], candidates: list[Run]) -> Run | None:
    segment = params.graph[name]
    digest = _parent_digest(params.project, segment, found)
    if digest is not None:
        key = segment.key(digest)
        fitting = [run for run in candidates if run.key == key]
    elif segment.origin.segment and segment.origin.segment not in found:
        fitting = []
    else:  # The parent's files are not here: take the word of the run for the digest.
        fitting = [
            run
            for run in candidates
            if run.parent_digest and run.parent_step == segment.origin.step and run.key == segment.key(run.parent_digest)
        ]
    return next((run for run in fitting if run.published), fitting[0] if fitting else None)


def _parent_digest(project: Path, segment: ResolvedSegment, found: Mapping[str, Run]) -> str | None:
    start = segment.origin
    if start.folder == places.ROOT_CHECKPOINT:
        return ROOT.digest
    try:
        checkpoint = read_manifest(project / start.folder)
    except CheckpointError:
        return None
    if start.segment is None:
        return checkpoint.digest
    parent = found.get(start.segment)
    return checkpoint.digest if parent and parent.key == manifest_key(checkpoint.manifest) else None


def may_be(folder: Path, digest: str) -> bool:
    """Return whether a folder holds the checkpoint of a digest, as far as that can be known: a clone may not have it yet."""
    try:
        return not (folder / MANIFEST).is_file() or read_manifest(folder).digest == digest
    except CheckpointError:
        return False
