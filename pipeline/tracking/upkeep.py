"""Brings MLflow up to date with what processes here have left behind when they died or when it did not answer."""

import time
from collections.abc import Container
from pathlib import Path

from matwm.errors import REFUSING, refusal
from pipeline import project as places
from pipeline import runs
from pipeline.addresses import database_of
from pipeline.process import if_free, is_held
from pipeline.run import Run
from pipeline.tracking.local_run import FACTS, LocalRun
from pipeline.tracking.tracker import Tracker

RUNNING = "attributes.status = 'RUNNING' AND tags.`matwm.segment` LIKE '%'"


def work_folders(project: Path) -> list[Path]:
    """Return the work directories that know of a run in MLflow, or of one to be created."""
    return [work for work in places.work_folders(project) if (work / FACTS).is_file() or (work / "outbox.json").is_file()]


def settle(project: Path, timeout: float = 10.0, sparing: Container[Path] = (), *, recreates: bool = False) -> list[str]:
    """Sync the runs of all work directories here, and close those of dead processes; return sentences to print.

    Gives up after `timeout` seconds, and at once if the store does not answer. Live trainers sync their runs themselves; work
    directories in `sparing` are skipped. With `recreates`, runs that were lost from an experiment that is still there are created again.
    """
    end = time.monotonic() + timeout
    said: list[str] = []
    try:
        runs.ping()
        free = [work for work in work_folders(project) if work not in sparing and not is_held(work / "lock")]
        known = {work: _run_id(work) for work in free}
        lost = runs.lost(run_id for run_id in known.values() if run_id) if free else set()
        for work in free:
            if known[work] in lost:
                _forget_store(work, recreates)
            missing, closed = _settle_one(work, max(0.1, end - time.monotonic()), min(timeout / 2, 30.0))
            said += ([missing] if missing else []) + ([_closed(closed)] if closed else [])
        said += [_closed(run) for run in _close_orphans(project)]
    except runs.TrackingError as error:
        said.append(str(error))
    except OSError as error:  # Somebody else's project, or a full disk, can be looked at all the same.
        if error.errno not in REFUSING:
            raise
        said.append(f"{refusal(error)}: what MLflow lacks of earlier runs is not sent")
    return said


def send_again(project: Path, work: Path) -> str:
    """Compare every point of a run with MLflow's, and send those that it lacks; return what came of it."""
    _forget_store(work, recreates=True)
    return " ".join(settle(project, timeout=600)) or "everything is sent"


def has_work(project: Path, sparing: Container[Path] = ()) -> bool:
    """Return whether `settle` may find something to do: seen on this disk alone, without MLflow, which takes seconds to import."""
    return any(_is_dead(work) or is_pending(project, work) for work in work_folders(project) if work not in sparing)


def is_pending(project: Path, work: Path) -> bool:
    """Return whether MLflow may lack something of a run that nobody trains."""
    return not is_held(work / "lock") and LocalRun(work).has_pending(runs.tracking_uri(project))


def live(project: Path) -> set[str]:
    """Return the IDs of the runs that processes here train at this moment."""
    return {run_id for work in work_folders(project) if is_held(work / "lock") and (run_id := _run_id(work))}


def close_dead(project: Path) -> list[Run]:
    """Close the runs that are RUNNING and whose process here is dead; return them.

    Raises:
        TrackingError: the store does not answer.
    """
    closed = [_settle_one(work, 60.0, 10.0)[1] for work in work_folders(project) if _is_dead(work)]
    return [run for run in closed if run is not None] + _close_orphans(project)


def _close_orphans(project: Path) -> list[Run]:
    """Close runs of this folder's own database of which no work directory here knows and whose process is silent; return them.

    Raises:
        TrackingError: the store does not answer.
    """
    uri, home = runs.configured_uri(), places.home(project)
    database = database_of(uri)
    if database is None or not database.is_relative_to(home):
        return []
    here = {_run_id(work) for work in work_folders(project)}
    found = [run for run in runs.list_runs(RUNNING) if run.run_id not in here and run.heartbeat is not None and run.heartbeat.is_silent]
    for run in found:
        runs.close_run(run)
    return found


def _forget_store(work: Path, recreates: bool) -> None:
    """Take nothing for granted of what MLflow has of a run; with `recreates`, not even that it was created."""
    with if_free(work / "lock") as is_free:
        state = LocalRun(work).state
        if is_free and state.now.name is not None:
            with state.change() as contents:
                contents.forget_store()
                contents.created_in = "" if recreates else contents.created_in


def _settle_one(work: Path, timeout: float, patience: float) -> tuple[str | None, Run | None]:
    """Return the sentence that says what is missing, if anything is, and the run if it was RUNNING and is KILLED now."""
    with if_free(work / "lock") as is_free:
        if not is_free:
            return None, None
        run, uri = LocalRun(work), runs.configured_uri()
        was_running = run.mark_killed()
        if not run.has_pending(uri):
            return None, None
        tracker = Tracker(run, uri)
        tracker.start(wait_seconds=0)
        missing = tracker.close(timeout, patience)
        found = runs.get_run(str(run.run_id)) if was_running and not missing else None
        return missing, found if found is not None and found.status == "KILLED" else None


def _is_dead(work: Path) -> bool:
    """Return whether a run is RUNNING of which nobody holds the lock."""
    return (places.read_json(work / FACTS) or {}).get("status") == "RUNNING" and not is_held(work / "lock")


def _closed(run: Run) -> str:
    return f"run {run.id[:12]} ({run.segment}) was RUNNING, but its process is dead: it is KILLED now"


def _run_id(work: Path) -> str | None:
    facts = places.read_json(work / FACTS) or places.read_json(work / "outbox.json") or {}
    run_id = facts.get("run_id")
    return run_id if isinstance(run_id, str) else None
