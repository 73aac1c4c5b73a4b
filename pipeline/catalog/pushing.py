"""Says which finished checkpoints of a training lie on this machine, and brings them to the DVC remote in the order of their steps.

In that order, and not the newest first: a machine that goes on trains again from the first checkpoint that is missing.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.run import Run
from pipeline.stores.folders import PublishedStore, WorkStore
from pipeline.stores.remote import Remote, Sent


def checkpoints_of(project: Path, run: Run) -> dict[int, Path]:
    """Return a run's checkpoints on this machine by step."""
    stores = (PublishedStore(project), WorkStore(project))
    return {step: folder for store in stores for step in store.steps(run) if (folder := store.folder(run, step))}


def push_new(project: Path, run: Run, remote: Remote, steps: Iterable[int]) -> Iterator[tuple[int, Sent]]:
    """Send those of these checkpoints that have no entry on the remote yet, or none that can be read; yield each with what was sent.

    Raises:
        RemoteError, ProjectError: as `Remote.put`; what was yielded before is there.
    """
    there, here = remote.steps(run), {*steps} & {*checkpoints_of(project, run)}
    missing = here - remote.readable(run, here & {*there})
    yield from _push(project, run, remote, sorted(missing), verify=False)


def push_all(project: Path, run: Run, remote: Remote, *, verify: bool = False) -> Iterator[tuple[int, Sent]]:
    """Send what the remote lacks of every checkpoint, whether or not it has an index of it (see `push_new`)."""
    yield from _push(project, run, remote, sorted(checkpoints_of(project, run)), verify=verify)


def _push(project: Path, run: Run, remote: Remote, steps: list[int], *, verify: bool) -> Iterator[tuple[int, Sent]]:
    here = checkpoints_of(project, run)
    for step in steps:
        yield step, remote.put(run, here[step], verify=verify)
