"""Decides which checkpoints of runs go, and removes them; what is needed, pinned, published or the last sound one stays."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from matwm.checkpoint import Checkpoint
from matwm.config import RetentionConfig
from matwm.manifest import FormatError
from pipeline.params.retention import Policy, history_of, reasons, retained_by, scores
from pipeline.process import exclusive
from pipeline.segments import ResolvedSegment
from pipeline.storage.holdings import PINNED, Held, LocalPlace, RemotePlace, name_of

KEEP_ALL = RetentionConfig(keep_last=None, keep_every=None, keep_best=0)


NAMES = {"needed": "newest", "last": "keep_last", "every": "keep_every", "best": "keep_best"}
"""What the rules are called where people read them: as in params.yaml, and `all` where keep_last is null."""
TO_BE_PUBLISHED = "to be published"


@dataclass(frozen=True)
class Decision:
    """What becomes of one checkpoint, wherever it lies."""

    run: Held
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


def decide(run: Held, needs: Needs, policy: Policy | None, segment: ResolvedSegment | None) -> list[Decision]:
    """Return what becomes of each checkpoint of a run, newest last; `segment` is what params.yaml says of this very training.

    Sound checkpoints are looked for only where something would go.
    """
    why: dict[int, list[str]] = {step: list(_claims(run, step, found, needs)) for step, found in run.steps.items()}
    if policy is None:
        return _decisions(run, {step: ["no policy"] for step in why} if why else {}, why, {})
    found = reasons(why, policy, [], {}, start=run.parent_step)
    if any(step not in found and not why[step] for step in why):
        found = _rules(run, policy, segment)
    return _decisions(run, found, why, NAMES if policy.keep_last is not None else {**NAMES, "last": "all"})


def current(run: Held, graph: Mapping[str, ResolvedSegment]) -> ResolvedSegment | None:
    """Return the segment of params.yaml that describes this very training, None if there is none."""
    segment = graph.get(run.segment or "")
    return segment if segment and run.parent_digest and segment.key(run.parent_digest) == run.key else None


def execute(decisions: Iterable[Decision]) -> None:
    """Remove what goes, run by run, and what an interrupted removal has left.

    Raises:
        ProjectError: a process has begun to train the run since.
    """
    gone: dict[str, tuple[Held, list[int]]] = {}
    for decision in decisions:
        _, steps = gone.setdefault(decision.run.name, (decision.run, []))
        steps += [] if decision.is_kept else [decision.step]
    for run, steps in gone.values():
        with _held_still(run):
            for place in run.places:
                place.remove(steps, is_live=run.is_live)


def foreign(decisions: Iterable[Decision]) -> LocalPlace | None:
    """Return a place from which something would go that is not this project's own, None if there is none."""
    touched = (place for one in decisions if not one.is_kept for place in one.run.where[one.step])
    return next((place for place in touched if isinstance(place, LocalPlace) and not place.is_own), None)


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


def weigh(decisions: Iterable[Decision]) -> Bytes:
    """Count what the removal frees: bytes go when the last name of a file does."""
    names: dict[tuple[int, int], int] = {}
    files: dict[tuple[int, int], tuple[int, int]] = {}
    staying: set[tuple[int, int]] = set()
    remote: dict[str, tuple[RemotePlace, list[int]]] = {}
    for decision in decisions:
        for place in decision.run.where[decision.step]:
            if isinstance(place, RemotePlace) and not decision.is_kept:
                remote.setdefault(decision.run.name, (place, []))[1].append(decision.step)
            for stat in place.files([decision.step]) if isinstance(place, LocalPlace) else ():
                inode = (stat.st_dev, stat.st_ino)
                if decision.is_kept:
                    staying.add(inode)
                else:
                    names[inode] = names.get(inode, 0) + 1
                    files[inode] = (stat.st_nlink, stat.st_blocks * 512)
    freed = sum(size for inode, (links, size) in files.items() if names[inode] >= links)
    shared = sum(size for inode, (_, size) in files.items() if inode in staying)
    return Bytes(
        freed,
        sum(place.size_of(steps) for place, steps in remote.values()),
        shared,
        sum(size for _, size in files.values()) - freed - shared,
    )


def _claims(run: Held, step: int, found: Checkpoint | Exception, needs: Needs) -> Iterator[str]:
    if isinstance(found, FormatError):
        yield "another format"
    names = [name_of(run.name, step), *([found.digest] if isinstance(found, Checkpoint) else [])]
    if children := dict.fromkeys(needs.ancestors[name] for name in names if name in needs.ancestors):
        yield f"ancestor of {', '.join(children)}"
    if isinstance(found, Checkpoint) and found.digest in needs.published:
        yield "published"
    if step in run.pins:
        yield "pinned" if run.pins[step] == PINNED else f"pinned: {run.pins[step]}"
    if step in run.pending:
        yield "waits for its upload"
    if run.is_live and step == max(run.steps):
        yield "newest of a live run"


def _rules(run: Held, policy: Policy, segment: ResolvedSegment | None) -> dict[int, list[str]]:
    """Return what the rules keep, and the newest sound one; all if there is none, since nobody knows what the others are worth."""
    newest = next((checkpoint for step in reversed(run.steps) if (checkpoint := run.sound(step))), None)
    if newest is None:
        return {step: ["none is sound"] for step in run.steps}
    known = [step for step in run.steps if step <= newest.step]
    scored = scores(history_of(newest), known) if policy.keep_best else {}
    found = reasons(run.steps, policy, [], scored, start=run.parent_step)
    found.setdefault(newest.step, []).append("newest sound")
    if segment:
        for step in retained_by(segment, newest):
            found.setdefault(step, []).append(TO_BE_PUBLISHED)
    return found


def _decisions(run: Held, rules: Mapping[int, list[str]], why: Mapping[int, list[str]], names: Mapping[str, str]) -> list[Decision]:
    return [
        Decision(run, step, tuple(dict.fromkeys([*(names.get(rule, rule) for rule in rules.get(step, [])), *claims])))
        for step, claims in why.items()
    ]


@contextmanager
def _held_still(run: Held) -> Iterator[None]:
    """Keep processes from beginning to train a run; one that lives already never looks at what goes."""
    with ExitStack() as stack:
        for place in run.places:
            if isinstance(place, LocalPlace) and place.work is not None and not run.is_live:
                stack.enter_context(exclusive(place.work / "lock", f"run {run.name[:12]}", wait_seconds=1.0))
        yield
