"""Decides which checkpoints of runs go, and removes them; what is needed, pinned, published or the last sound one stays."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from matwm.checkpoint import Checkpoint, CheckpointError, read_manifest
from matwm.manifest import FormatError
from matwm.step_names import GLOB
from pipeline import project as places
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.checkpoints import Checkpoints
from pipeline.metrics.best import objectives
from pipeline.params.retention import Policy, reasons, retained_by, scored
from pipeline.params.segments import ResolvedSegment
from pipeline.process import exclusive
from pipeline.run import PINNED, Run
from pipeline.stores.protocol import CanDelete, ForeignError
from pipeline.stores.table import commonly_asked

logger = logging.getLogger(__name__)

NAMES = {"needed": "newest", "last": "keep_last", "every": "keep_every", "best": "keep_best"}
"""What the rules are called where people read them: as in params.yaml, and `all` where keep_last is null."""
TO_BE_PUBLISHED = "to be published"


@dataclass(frozen=True)
class Decision:
    """What becomes of one checkpoint, wherever it lies."""

    run: Run
    step: int
    why: tuple[str, ...]
    """What keeps it; nothing: it goes."""

    @property
    def is_kept(self) -> bool:
        """Whether anything keeps it."""
        return bool(self.why)


@dataclass(frozen=True)
class Needs:
    """What the project and the runs need of each other: digests of checkpoints, each with who needs it."""

    ancestors: Mapping[str, str]
    published: Mapping[str, str]


def prunable(catalog: Catalog) -> Checkpoints:
    """Return the checkpoints in the stores that commands look into and that can remove them."""
    stores = [store for store in commonly_asked(catalog.project) if isinstance(store, CanDelete)]
    return Checkpoints(catalog, stores, is_strict=True)


def needs_of(checkpoints: Checkpoints, runs: Iterable[Run]) -> Needs:
    """Return the checkpoints from which something that is known here goes on, and those that are published.

    Ancestors are named by digest and by `name_of` run and step: a damaged manifest has no digest to be known by.
    """
    project, found = checkpoints.project, dict[str, str]()
    published, imported = (_outputs(project, folder) for folder in ("checkpoints", "imports"))
    for folder, checkpoint in [*published.items(), *imported.items()]:
        found[checkpoint.parent.digest] = folder
    found |= {checkpoint.digest: folder for folder, checkpoint in imported.items()}
    for run in runs:
        who = f"{run.id[:12]} ({run.segment})" if run.segment else run.id[:12]
        manifests = [checkpoints.manifest(run, step) for step in checkpoints.where(run)]
        whole = [one.checkpoint if isinstance(one, ForeignError) else one for one in manifests]
        found |= {one.parent.digest: who for one in whole if isinstance(one, Checkpoint)}
        found |= dict.fromkeys([run.parent_digest or "", name_of(run.parent_run_id, run.parent_step or 0)], who)
        if parent := run.record.get("parent"):  # by the ID that git knows
            found.setdefault(name_of(parent.get("run_id"), parent.get("step", 0)), who)
    return Needs(found, {checkpoint.digest: folder for folder, checkpoint in published.items()})


def name_of(run_id: str | None, step: int) -> str:
    """Return the name by which `needs_of` knows a run's checkpoint."""
    return f"{run_id}@{step}"


def decide(
    run: Run, checkpoints: Checkpoints, needs: Needs, policy: Policy | None, segment: ResolvedSegment | None, scratch: Path
) -> list[Decision]:
    """Return what becomes of each checkpoint of a run, newest last; `segment` is what params.yaml says of this very training.

    Sound checkpoints are looked for only where something would go; `scratch` gets what is brought from a server for that.
    """
    there = checkpoints.where(run)
    foreign = {step for step in there if checkpoints.is_foreign(run, step)}
    steps = [step for step in there if step not in foreign]
    why = {
        step: ["of another training"] if step in foreign else list(_claims(run, step, checkpoints.manifest(run, step), needs, steps[-1]))
        for step in there
    }
    if policy is None:
        return _decisions(run, {step: ["no policy"] for step in why}, why, {})
    found = reasons(steps, policy, [], [], start=run.parent_step or 0)
    if any(step not in found and not why[step] for step in why):
        found = _rules(run, steps, lambda step: checkpoints.sound(run, step, scratch), policy, segment)
    return _decisions(run, found, why, NAMES if policy.keep_last is not None else {**NAMES, "last": "all"})


def current(run: Run, graph: Mapping[str, ResolvedSegment]) -> ResolvedSegment | None:
    """Return the segment of params.yaml whose retention is the run's, None if there is none.

    That is not `Catalog.planned` alone: a run of the same training that another machine made has it, too, and so has one that began with
    a checkpoint of the same parameters that has been trained anew since.
    """
    segment = graph.get(run.segment or "")
    return segment if segment and run.parent_digest and segment.key(run.parent_digest) == run.key else None


def execute(decisions: Iterable[Decision], checkpoints: Checkpoints) -> None:
    """Remove what goes, run by run, and what an interrupted removal has left.

    Raises:
        ProjectError: a process has begun to train the run since, or its checkpoints are not the project's.
        TrackingError: MLflow does not answer.
    """
    for run, steps in _going(decisions):
        is_live = run.is_live  # before the lock is ours
        # No process begins to train the run meanwhile; one that lives already never looks at what goes.
        with exclusive(run.work / "lock", f"run {run.id[:12]}", wait_seconds=1.0) if run.work and not is_live else nullcontext():
            for store in _deleting(checkpoints):
                store.delete(run, steps, is_live=is_live)


def refusal(decisions: Iterable[Decision], checkpoints: Checkpoints) -> str | None:
    """Say why a store refuses to give up something that goes, None if none does."""
    for one in decisions:
        for store in () if one.is_kept else checkpoints.where(one.run)[one.step]:
            if isinstance(store, CanDelete) and (why := store.refusal(one.run)):
                return why
    return None


@dataclass(frozen=True)
class Bytes:
    """What the removal comes to."""

    freed: int
    """On this machine's disks: files whose every name goes."""
    freed_on_server: int
    shared: int
    """Files that checkpoints which stay have, too."""
    elsewhere: int
    """Files that go on under names outside of runs: in DVC's cache, `checkpoints/` or `imports/`."""


def weigh(decisions: Sequence[Decision], checkpoints: Checkpoints) -> Bytes:
    """Count what the removal frees: bytes go when the last name of a file does."""
    names: dict[tuple[int, int], int] = {}
    files: dict[tuple[int, int], tuple[int, int]] = {}
    staying: set[tuple[int, int]] = set()
    for decision in decisions:
        for copy in checkpoints.copies(decision.run, decision.step):
            for stat in (path.lstat() for path in copy.path.rglob("*") if path.is_file()) if copy.path else ():
                inode = (stat.st_dev, stat.st_ino)
                if decision.is_kept:
                    staying.add(inode)
                else:
                    names[inode] = names.get(inode, 0) + 1
                    files[inode] = (stat.st_nlink, stat.st_blocks * 512)
    freed = sum(size for inode, (links, size) in files.items() if names[inode] >= links)
    shared = sum(size for inode, (_, size) in files.items() if inode in staying)
    on_servers = sum(store.freed(run, steps) for run, steps in _going(decisions) if steps for store in _deleting(checkpoints))
    return Bytes(freed, on_servers, shared, sum(size for _, size in files.values()) - freed - shared)


def _claims(run: Run, step: int, found: Checkpoint | Exception, needs: Needs, newest: int) -> Iterator[str]:
    if isinstance(found, FormatError):
        yield "another format"
    names = [name_of(run.id, step), *([found.digest] if isinstance(found, Checkpoint) else [])]
    if children := dict.fromkeys(needs.ancestors[name] for name in names if name in needs.ancestors):
        yield f"ancestor of {', '.join(children)}"
    if isinstance(found, Checkpoint) and found.digest in needs.published:
        yield "published"
    if (note := run.pins.get(step)) is not None:
        yield "pinned" if note == PINNED else f"pinned: {note}"
    if step in run.pending:
        yield "waits for its upload"
    if step == newest and run.is_live:
        yield "newest of a live run"


def _rules(
    run: Run, steps: list[int], sound: Callable[[int], Checkpoint | None], policy: Policy, segment: ResolvedSegment | None
) -> dict[int, list[str]]:
    """Return what the rules keep, and the newest sound one; all if there is none, since nobody knows what the others are worth."""
    newest = next((checkpoint for step in reversed(steps) if (checkpoint := sound(step))), None)
    if newest is None:
        return {step: ["none is sound"] for step in steps}
    known = [step for step in steps if step <= newest.step]
    scores = scored(newest, segment.config.objectives if segment else objectives(run.tags), known) if policy.keep_best else []
    found = reasons(steps, policy, [], scores, start=run.parent_step or 0)
    found.setdefault(newest.step, []).append("newest sound")
    if segment:
        for step in retained_by(segment, newest):
            found.setdefault(step, []).append(TO_BE_PUBLISHED)
    return found


def _decisions(run: Run, rules: Mapping[int, list[str]], why: Mapping[int, list[str]], names: Mapping[str, str]) -> list[Decision]:
    return [
        Decision(run, step, tuple(dict.fromkeys([*(names.get(rule, rule) for rule in rules.get(step, [])), *claims])))
        for step, claims in why.items()
    ]


def _going(decisions: Iterable[Decision]) -> list[tuple[Run, list[int]]]:
    """Return each run with its steps that go, which may be none."""
    found: dict[str, tuple[Run, list[int]]] = {}
    for decision in decisions:
        _, steps = found.setdefault(decision.run.id, (decision.run, []))
        steps += [] if decision.is_kept else [decision.step]
    return list(found.values())


def _deleting(checkpoints: Checkpoints) -> list[CanDelete]:
    return [store for store in checkpoints.stores if isinstance(store, CanDelete)]


def _outputs(project: Path, folder: str) -> dict[str, Checkpoint]:
    """Return the checkpoints in `checkpoints/` or `imports/` by folder."""
    found: dict[str, Checkpoint] = {}
    for path in (path for home in places.published_folders(project, folder) for path in sorted(home.glob(GLOB))):
        try:
            found[path.relative_to(project).as_posix()] = read_manifest(path)
        except CheckpointError as error:
            logger.warning("%s", error)
    return found
