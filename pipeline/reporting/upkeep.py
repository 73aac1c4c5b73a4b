"""Brings MLflow up to date with what processes here have left behind when they died or when it did not answer."""

import time
from collections.abc import Container, Mapping
from pathlib import Path

from pipeline import project as places
from pipeline import runs, tracking
from pipeline.addresses import database_of
from pipeline.process import if_free, is_held
from pipeline.reporting import life
from pipeline.reporting.outbox import Outbox
from pipeline.run import Run

RUNNING = "attributes.status = 'RUNNING' AND tags.`matwm.segment` LIKE '%'"
FOREIGN_SILENCE_SECONDS = 600.0
"""After so long, a process of another machine (the folder may lie on a network) is taken for dead."""


def work_folders(project: Path) -> list[Path]:
    """Return the work directories that know of a run in MLflow, or of one to be made."""
    return places.work_folders(project, "outbox.json")


def settle(project: Path, timeout: float = 10.0, sparing: Container[Path] = ()) -> list[str]:
    """Send MLflow what the work directories here still owe it, and close the runs of dead processes; return what there is to say.

    Gives up after `timeout` seconds, and at once if the store does not answer. Live trainers are left alone, and so is what work
    directories in `sparing` owe.
    """
    end = time.monotonic() + timeout
    said: list[str] = []
    try:
        runs.knock()
        for work in work_folders(project):
            if work in sparing:
                continue
            missing = tracking.send_missed(project, work, max(0.1, end - time.monotonic()), patience=timeout / 2)
            said += [missing] if missing else []
        for run in close_dead(project):
            said.append(f"run {run.id[:12]} ({run.segment}) was RUNNING, but its process is dead: it is KILLED now")
    except tracking.TrackingError as error:
        said.append(str(error))
    return said


def has_work(project: Path, sparing: Container[Path] = ()) -> bool:
    """Return whether `settle` may find something to do: seen on this disk alone, without MLflow, which takes seconds to import."""
    left = [work for work in work_folders(project) if work not in sparing]
    return any(tracking.owes(work) or Outbox(work / "outbox.json").contents.is_running for work in left)


def close_dead(project: Path) -> list[Run]:
    """Mark runs that MLflow shows as RUNNING and whose process here is dead as KILLED at their last sign of life; return them.

    Dead is what nobody holds the lock of. Runs that another machine trains, or took over, are left alone; but in a database of this
    folder there are none of these, so that a run whose work directory is gone is dead too, unless its process shows that it is not.

    Raises:
        TrackingError: the store does not answer.
    """
    here = _outboxes(project)
    closed: list[Run] = []
    for run in tracking.list_runs(RUNNING):
        outbox = _outbox(run, here)
        if _close_if_dead(run, outbox) if outbox else _close_if_orphaned(project, run):
            closed.append(run)
    return closed


def is_alive(project: Path, run: Run) -> bool:
    """Return whether a process here trains a run at this moment."""
    outbox = _outbox(run, _outboxes(project))
    return outbox is not None and is_held(outbox.path.with_name("lock"))


def _outboxes(project: Path) -> dict[str, Outbox]:
    """Return the outboxes here by every name under which MLflow may know where points came from."""
    outboxes = [Outbox(work / "outbox.json") for work in work_folders(project)]
    return {writer: outbox for outbox in outboxes for writer in outbox.writers}


def _outbox(run: Run, here: Mapping[str, Outbox]) -> Outbox | None:
    """Return the outbox of the directory that a run's points came from last; another machine may have gone on with it since."""
    return here.get(run.tags.get("matwm.writer", ""))


def _close_if_dead(run: Run, outbox: Outbox) -> bool:
    with if_free(outbox.path.with_name("lock")) as is_free:
        if not is_free or Outbox(outbox.path).contents.status not in (None, "RUNNING"):
            return False  # Somebody trains it, or how it really ended is still to be sent.
        now = tracking.get_run(run.id)  # In between it may have ended, or moved to another machine.
        if now is None or now.status != "RUNNING" or now.tags.get("matwm.writer") not in outbox.writers:
            return False
        tracking.close_run(now)
        with outbox.change() as contents:
            contents.is_running = False
        return True


def _close_if_orphaned(project: Path, run: Run) -> bool:
    """Close a run of this folder's own database of which no work directory here knows, unless it may be alive."""
    uri, home = runs.configured_uri(), places.home(project)
    database = database_of(uri)
    if database is None or not database.is_relative_to(home):
        return False
    lives = life.lives_here(run)
    if lives or (lives is None and life.TAG in run.tags and life.age_seconds(run) < FOREIGN_SILENCE_SECONDS):
        return False
    lock = places.work_folder(project, run.segment or "", run.key or "") / "lock"
    if not lock.is_file():
        tracking.close_run(run)
        return True
    with if_free(lock) as is_free:
        if is_free:
            tracking.close_run(run)
        return is_free
