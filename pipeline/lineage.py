"""Builds the lineage: every run and every segment of params.yaml, each below the run whose checkpoint it starts from.

A graph of nodes from params.yaml, metrics/*/run.json, work directories and MLflow; `matwm tree`, `verify` and `diff` only draw and walk it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from matwm.changes import changes
from matwm.checkpoint import CheckpointError, read_manifest
from matwm.config import ConfigError, SegmentConfig
from matwm.manifest import ROOT
from matwm.params_yaml import parse_config, parse_segments, read_params
from pipeline import project as places
from pipeline.project import ProjectError
from pipeline.provenance.sources import Facts, collect
from pipeline.segments import CHECKPOINT, ResolvedSegment, manifest_key, resolve_all
from pipeline.wording import few

ROOT_ID = "root"
NOT_TRAINED = "not trained yet"
UNKNOWN = "not known here"


@dataclass
class Node:
    """One run, or one segment of params.yaml that has none yet."""

    id: str
    """The run's ID, else a name that no other node has."""
    segment: str | None
    facts: Facts | None = None
    resolved: ResolvedSegment | None = None
    """Set while params.yaml is valid and describes this very training."""
    is_current: bool = False
    """True if it is what a segment of params.yaml stands for."""
    is_imported: bool = False
    """True if a segment starts from a checkpoint of it under `imports/`."""
    parent: str = ROOT_ID
    start: int = 0
    """The step it starts from."""
    until: int | None = None
    changed: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """How it ended, or whether it runs."""
        return self.facts.state if self.facts else (NOT_TRAINED if self.is_current else UNKNOWN)

    @property
    def step(self) -> int | None:
        """The furthest step reached, None if that is not known."""
        return (self.facts.step or None) if self.facts else None

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.segment or 'run'} ({self.facts.run_id[:12]})" if self.facts and self.facts.run_id else (self.segment or self.id[:12])


@dataclass
class Lineage:
    """All nodes by ID; `trouble` says in sentences what could not be asked."""

    project: Path
    nodes: dict[str, Node]
    trouble: list[str]

    def children(self, node_id: str) -> list[Node]:
        """Return what starts from a node's checkpoints, by step; the order is that of params.yaml, then that of time."""
        below = [node for node in self.nodes.values() if node.parent == node_id]
        return sorted(below, key=lambda node: (node.start, not node.is_current))

    def ancestors(self, node: Node) -> list[Node]:
        """Return the nodes from a root down to this one."""
        line = [node]
        while (parent := self.nodes.get(line[0].parent)) is not None:
            line.insert(0, parent)
        return line

    def walk(self, node_id: str = ROOT_ID, depth: int = 0) -> Iterator[tuple[Node, int]]:
        """Yield everything below a node with its depth, parents first."""
        for child in self.children(node_id):
            yield child, depth
            yield from self.walk(child.id, depth + 1)

    def find(self, text: str, *, is_trained: bool = False) -> Node:
        """Return the node that a segment's name or the beginning of a run's ID stands for.

        A name stands for what params.yaml describes; if that must be trained and is not, for the run that git records under it.

        Raises:
            ProjectError: there is none, or more than one; the message names what there is.
        """
        named = [node for node in self.nodes.values() if node.segment == text]
        current = [node for node in named if node.is_current]
        recorded = [node for node in named if node.facts and node.facts.published]
        named = (recorded if is_trained and recorded and not any(node.facts for node in current) else current) or named
        matching = named or [node for node in self.nodes.values() if text and node.id.startswith(text)]
        if len(matching) == 1:
            return matching[0]
        excuse = f" ({'; '.join(self.trouble)})" if self.trouble else ""
        if matching:
            raise ProjectError(f"{len(matching)} runs go by {text!r}: {_listed(matching)}: give more of the ID{excuse}")
        what = "no run begins with that, and no segment is called so"
        raise ProjectError(
            f"{text!r}: {what}; there {'is' if len(self.nodes) == 1 else 'are'} {_listed(list(self.nodes.values()))}{excuse}"
        )


def read_lineage(project: Path) -> Lineage:
    """Return the lineage of a project, as much of it as can be read: with MLflow down, in a clone, with a broken params.yaml."""
    facts, trouble = collect(project)
    lineage = Lineage(project, {}, [trouble] if trouble else [])
    entries, graph = _described(project, lineage.trouble)
    current = _Matching(project, graph, facts).runs(entries)
    for name, entry in entries.items():
        node = _segment_node(name, entry, graph.get(name), current.get(name))
        lineage.nodes[node.id] = node
    for run in facts:
        if run.id not in lineage.nodes:
            changed = run.changed
            lineage.nodes[run.id] = Node(run.id, run.segment, run, start=run.parent_step or 0, until=run.until, changed=changed)
    _connect(lineage, {name: _origin(entry.from_) for name, entry in entries.items()})
    return lineage


def _described(project: Path, trouble: list[str]) -> tuple[Mapping[str, SegmentConfig], Mapping[str, ResolvedSegment]]:
    """Return the segments of params.yaml: as written, and resolved if everything in it is valid.

    Those from the root count as changed against the base sections: several of them would look the same otherwise.
    """
    try:
        params = read_params(project / places.PARAMS)
        entries = parse_segments(params)
    except ConfigError as error:
        trouble.append(f"{error.problems[0]}: only what is trained is known")
        return {}, {}
    try:
        graph, base = resolve_all(params, project), parse_config(params)
        roots = {name: tuple(changes(base, one.config)) for name, one in graph.items() if one.origin.folder == places.ROOT_CHECKPOINT}
        return entries, {name: replace(one, changed=roots.get(name, one.changed)) for name, one in graph.items()}
    except ConfigError as error:
        trouble.append(error.problems[0])
        return entries, {}


@dataclass
class _Matching:
    """Finds the run of each segment of params.yaml: the one with its key, as far as the key can be known."""

    project: Path
    graph: Mapping[str, ResolvedSegment]
    facts: list[Facts]
    found: dict[str, Facts | None] = field(default_factory=dict)

    def runs(self, entries: Mapping[str, SegmentConfig]) -> dict[str, Facts | None]:
        """Return the run of each segment, None for one that is not trained."""
        return {name: self._run(name) if name in self.graph else self._recorded(name, entry) for name, entry in entries.items()}

    def _run(self, name: str) -> Facts | None:
        if name not in self.found:
            segment = self.graph[name]
            candidates = [run for run in self.facts if run.segment == name]
            digest = self._parent_digest(segment)
            if digest is not None:
                fitting = [run for run in candidates if run.key == segment.key(digest)]
            elif segment.origin.segment and self._run(segment.origin.segment) is None:
                fitting = []
            else:  # the parent's files are not here: take the word of the run for the digest
                told = [run for run in candidates if run.parent_digest and run.parent_step == segment.origin.step]
                fitting = [run for run in told if run.key == segment.key(str(run.parent_digest))]
            self.found[name] = next((run for run in fitting if run.published), fitting[-1] if fitting else None)
        return self.found[name]

    def _parent_digest(self, segment: ResolvedSegment) -> str | None:
        origin = segment.origin
        if origin.folder == places.ROOT_CHECKPOINT:
            return ROOT.digest
        try:
            checkpoint = read_manifest(self.project / origin.folder)
        except CheckpointError:
            return None
        if origin.segment is None:
            return checkpoint.digest
        parent = self._run(origin.segment)
        return checkpoint.digest if parent and parent.key == manifest_key(checkpoint.manifest) else None

    def _recorded(self, name: str, entry: SegmentConfig) -> Facts | None:
        """Return the run that git records for a segment, if it begins where a params.yaml says that is otherwise not valid."""
        step = _origin(entry.from_)[2]
        return next((run for run in self.facts if run.segment == name and run.published and (run.parent_step or 0) == step), None)


def _segment_node(name: str, entry: SegmentConfig, resolved: ResolvedSegment | None, run: Facts | None) -> Node:
    node_id = run.id if run else f"segment {name}"
    changed = {change.path: (change.before, change.after) for change in resolved.changed} if resolved else run.changed if run else {}
    return Node(node_id, name, run, resolved, is_current=True, start=_origin(entry.from_)[2], until=entry.until, changed=changed)


def _origin(text: str) -> tuple[str | None, str | None, int]:
    """Return segment or run, and the step, of the checkpoint that a segment starts from."""
    match = CHECKPOINT.fullmatch(text.rstrip("/"))
    if match is None:
        return None, None, 0
    step = places.step_of(match[3]) or 0
    return (match[2], None, step) if match[1] == "checkpoints" else (None, match[2], step)


def _connect(lineage: Lineage, origins: Mapping[str, tuple[str | None, str | None, int]]) -> None:
    """Give every node its parent; a run that only its children know becomes a node too."""
    current = {node.segment: node for node in lineage.nodes.values() if node.is_current}
    for node in list(lineage.nodes.values()):
        segment, run_id, _ = origins.get(str(node.segment), (None, None, 0)) if node.is_current else (None, None, 0)
        if segment in current:
            node.parent = current[segment].id
        elif run_id or (node.facts and node.start and (node.facts.parent_digest or node.facts.parent_run)):
            parent_run = run_id or (node.facts and node.facts.parent_run)
            node.parent = parent_run or f"the run with step {node.start}, {str(node.facts and node.facts.parent_digest)[:12]}"
            if node.parent not in lineage.nodes:
                lineage.nodes[node.parent] = Node(node.parent, None)
        if run_id:
            lineage.nodes[node.parent].is_imported = True
    for node in lineage.nodes.values():  # tags can say anything: what leads back to itself begins at the root
        seen = {node.id}
        above = lineage.nodes.get(node.parent)
        while above is not None and above.id not in seen:
            seen.add(above.id)
            above = lineage.nodes.get(above.parent)
        if above is not None and above.id == node.id:
            node.parent = ROOT_ID


def _listed(nodes: list[Node]) -> str:
    return few([f"{node.id[:12]} ({node.segment}, {node.state})" if node.facts else node.id for node in nodes], at_most=8) or "none"
