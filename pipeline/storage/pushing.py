"""Says which finished checkpoints of a training lie on this machine, and brings them to the DVC remote in the order of their steps.

In that order, and not the newest first: a machine that goes on trains again from the first checkpoint that is missing.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline import project as places
from pipeline.metrics.journal import read_points
from pipeline.storage.remote import Remote, Sent


@dataclass(frozen=True)
class Training:
    """One training of a segment, finished or not, by what it left here."""

    segment: str
    key: str
    run_id: str | None
    checkpoints: dict[int, Path]
    journal: Path


def in_work(work: Path) -> Training:
    """Return the training of a work directory.

    Raises:
        ProjectError: it is none.
    """
    facts = places.read_json(work / "run.json")
    if facts is None or not isinstance(facts.get("key"), str):
        raise places.ProjectError(f"{work} is no work directory of a segment: it has no run.json with a key")
    folder = work / "checkpoints"
    checkpoints = {step: folder / places.step_folder(step) for step in places.steps_in(folder)}
    return Training(facts["segment"], facts["key"], facts.get("run_id"), checkpoints, work / "journal.jsonl")


def trainings(project: Path) -> list[Training]:
    """Return every training that has a work directory here or published checkpoints."""
    found = {}
    for work in places.work_folders(project, "run.json"):
        with_key = places.read_json(work / "run.json") or {}
        if isinstance(with_key.get("key"), str):
            training = in_work(work)
            found[training.segment, training.key] = training
    for name, facts in places.run_records(project).items():
        if not isinstance(facts.get("key"), str):
            continue
        work = places.work_folder(project, name, facts["key"])
        training = found.setdefault((name, facts["key"]), Training(name, facts["key"], facts.get("run_id"), {}, work / "journal.jsonl"))
        published = places.published_folder(project, name)
        for step in places.steps_in(published):
            training.checkpoints.setdefault(step, published / places.step_folder(step))
    return [training for training in found.values() if training.checkpoints]


def push_new(training: Training, remote: Remote, steps: Iterable[int]) -> Iterator[tuple[int, Sent]]:
    """Send those of these checkpoints that have no entry on the remote yet, or none that can be read; yield each with what was sent.

    Raises:
        RemoteError, ProjectError: as `Remote.push`; what was yielded before is there.
    """
    there, here = remote.steps(training.key), {*steps} & {*training.checkpoints}
    missing = here - remote.readable(training.key, here & {*there})
    yield from _push(training, remote, sorted(missing), there, verify=False)


def push_all(training: Training, remote: Remote, *, verify: bool = False) -> Iterator[tuple[int, Sent]]:
    """Send what the remote lacks of every checkpoint, whether or not it has an index of it (see `push_new`)."""
    yield from _push(training, remote, sorted(training.checkpoints), remote.steps(training.key), verify=verify)


def _push(training: Training, remote: Remote, steps: list[int], there: list[int], *, verify: bool) -> Iterator[tuple[int, Sent]]:
    points = read_points(training.journal) if steps else []
    known = {0, *there}
    for step in steps:
        before = max(earlier for earlier in known if earlier < step)
        own = [point for point in points if before < point.step <= step or (before == 0 and point.step == 0)]
        about = {"key": training.key, "step": step, "segment": training.segment, "run_id": training.run_id}
        yield step, remote.push(training.checkpoints[step], about, own, verify=verify)
        known.add(step)
