"""Checks of the MLflow store: version, database, where artifacts are, and the environment that leads to it."""

import os
import shlex
import time
from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.specifiers import SpecifierSet

from pipeline import database, runs
from pipeline.addresses import EXAMPLES, TrackingError, database_of, sqlite_address, store_address
from pipeline.checks.finding import Finding, Patient
from pipeline.process import is_held
from pipeline.stores.mlflow import elsewhere
from pipeline.tracking import upkeep
from pipeline.tracking.difference import difference_of
from pipeline.tracking.local_run import LocalRun
from pipeline.wording import few

PINNED = ">=3.16,<3.18"


def mlflow_version(patient: Patient) -> Iterator[Finding]:
    """MLflow is of the series whose database this project's store has."""
    try:
        found = version("mlflow")
    except PackageNotFoundError:
        found = None
    if found is None or found not in SpecifierSet(PINNED):
        yield Finding(
            f"MLflow {found or 'is not installed'}{' is installed' if found else ''}, but this project needs {PINNED}",
            "another series migrates the database when it opens it, after which this one refuses it",
            f'run "make venv", or: pip install "mlflow{PINNED}"',
        )


def database_version(patient: Patient) -> Iterator[Finding]:
    """The database is whole, and of the MLflow that is installed."""
    if patient.database is None:
        return
    name, address = patient.database.name, runs.configured_uri()
    try:
        with runs.explained(address):
            runs.client(address)
    except database.HalfMadeError:
        yield Finding(
            f"{name} is half-made: whoever made it was killed, and nothing has been logged to it yet",
            "MLflow can neither use nor upgrade it, so nothing can be logged or looked up",
            'run "matwm doctor --fix": it sets the file aside, and the next command makes another',
            mend=lambda: _set_aside(patient),
        )
    except TrackingError as error:
        yield Finding(
            f"MLflow {version('mlflow')} does not open {name}: {error}",
            "nothing can be logged or looked up; a database of another MLflow has another schema",
            f"if an older MLflow made it, keep a copy, then run: mlflow db upgrade '{sqlite_address(patient.database)}'; if a newer one "
            f"has migrated it, restore a copy from before that, or move it away ({patient.database}) and start a new store: checkpoints "
            "and metrics/ do not depend on it",
        )


def artifact_locations(patient: Patient) -> Iterator[Finding]:
    """Runs keep their artifacts in this folder, not where it was before it was moved, renamed or copied."""
    if patient.database is None:
        return
    try:
        places = [elsewhere(location, runs.configured_uri()) for location in runs.artifact_locations()]
    except TrackingError as error:
        yield Finding(str(error), "places of artifacts cannot be compared", "see what the other findings say of the store", is_hint=True)
        return
    old = sorted({place.mlruns for place in places if place and place.mlruns.name == "mlruns" and (place.is_here or not place.is_there)})
    if old:
        former, home, name = old[0].parent, patient.home.absolute(), patient.database.name
        link = f"a link brings all back: ln -s {shlex.quote(str(home))} {shlex.quote(str(former))}; or else " if not former.exists() else ""
        yield Finding(
            f"MLflow keeps artifacts of this project in {few([str(one) for one in old])}, not in {home / 'mlruns'}: it was moved, renamed "
            "or copied",
            "MLflow offers no way to change the places of artifacts: checkpoints of earlier runs are not found there, and nothing is sent",
            f"{link}start a new database: mv {name} {name}.before && matwm doctor --fix && matwm import, which fill it from .matwm/work, "
            f"git and checkpoints/ (pins and notes stay in {name}.before)",
        )


def old_file_store(patient: Patient) -> Iterator[Finding]:
    """No folder of files from an old MLflow takes the place of the database."""
    found = [path.parent.name for path in sorted((patient.home / "mlruns").glob("*/meta.yaml")) if path.parent.name.isdigit()]
    if found:
        yield Finding(
            f"mlruns/ holds an old MLflow store of files (experiment {few(found)})",
            "`mlflow ui` without flags then shows that one, and hides the runs of this project",
            f"move these folders away: mkdir -p ../old-mlruns && mv {' '.join(f'mlruns/{name}' for name in found[:5])} ../old-mlruns/",
        )


def tracking_uri(patient: Patient) -> Iterator[Finding]:
    """MLFLOW_TRACKING_URI, if set, leads to a store that can be used."""
    chosen = patient.environment.get("MLFLOW_TRACKING_URI")
    if not chosen:
        return
    home = patient.home.absolute()
    try:
        address = store_address(chosen, home)
    except TrackingError as error:
        yield Finding(str(error), "every command here refuses it", EXAMPLES)
        return
    if database_of(address) is not None:
        if address != store_address(chosen, home.parent / "elsewhere"):
            yield Finding(
                f"MLFLOW_TRACKING_URI is {chosen!r}, a relative path",
                "MATWM takes it from the project's folder, but `mlflow ui` from wherever it is started: another, empty store appears there",
                f"export MLFLOW_TRACKING_URI={address}, or unset it",
            )
    else:
        try:
            runs.ping(chosen)
        except TrackingError as error:
            yield Finding(str(error), "training goes on without it, but nobody sees it", "start the server, or unset MLFLOW_TRACKING_URI")


def run_id_in_environment(patient: Patient) -> Iterator[Finding]:
    """No run of `mlflow run` is left in the environment."""
    if patient.environment.get("MLFLOW_RUN_ID"):
        yield Finding(
            f"MLFLOW_RUN_ID is {patient.environment['MLFLOW_RUN_ID']!r} in this environment",
            "MLflow logs to that run whatever does not say otherwise, and every run here is tagged as started by it",
            "unset MLFLOW_RUN_ID",
        )


def linked_artifacts(patient: Patient) -> Iterator[Finding]:
    """No artifact folder is a symbolic link."""
    walked = ((Path(place), names) for place, folders, files in os.walk(patient.home / "mlruns") for names in (folders, files))
    found = [place / name for place, names in walked for name in names if (place / name).is_symlink()]
    if found:
        yield Finding(
            f"{few([str(path.relative_to(patient.home)) for path in found])} is a symbolic link",
            "MLflow lists what is behind it and refuses to hand it out: those checkpoints cannot be fetched",
            "replace it by what it leads to: cp -rL LINK COPY && rm LINK && mv COPY LINK",
        )


def pending(patient: Patient) -> Iterator[Finding]:
    """MLflow has everything that was logged here."""
    late = [work.name for work in upkeep.work_folders(patient.project) if upkeep.is_pending(patient.project, work)]
    if late:
        yield Finding(
            f"MLflow lacks something of {few(late)} (in .matwm/work)",
            "curves or checkpoints are not to be seen, or not to be fetched from another machine",
            'start the server if there is one, then run "matwm doctor --fix", which waits until all is sent',
            is_hint=True,
            mend=lambda: " ".join(upkeep.settle(patient.project, timeout=600, recreates=True)) or "everything is sent",
        )


def points(patient: Patient) -> Iterator[Finding]:
    """MLflow has every metric point of the runs trained here, each once."""
    uri = runs.configured_uri()
    for work in upkeep.work_folders(patient.project):
        if is_held(work / "lock") or upkeep.is_pending(patient.project, work):
            continue  # What is on its way is another check's.
        run = LocalRun(work)
        try:
            found = difference_of(run, uri)
        except TrackingError as error:
            yield Finding(str(error), "curves cannot be compared", "see what the other findings say of the store", is_hint=True)
            return
        if found and (wrong := found.sentences(str(run.run_id))):
            yield Finding(
                "; ".join(wrong),
                "its curves in MLflow are not those of its checkpoints",
                'run "matwm doctor --fix", which sends what is missing; MLflow itself takes no point back',
                is_hint=not found.missing,
                mend=partial(upkeep.send_again, patient.project, work) if found.missing else None,
            )


def running(patient: Patient) -> Iterator[Finding]:
    """No run is RUNNING that nobody trains: what died here is closed, what ran elsewhere is named."""
    from pipeline import tracking

    try:
        closed = upkeep.close_dead(patient.project)
        left = tracking.list_runs(upkeep.RUNNING)
        live = upkeep.live(patient.project)  # Later than the list: a process takes the lock before it begins a run.
    except TrackingError as error:
        yield Finding(str(error), "runs cannot be looked up", "see what the other findings say of the store", is_hint=True)
        return
    for run in closed:
        yield Finding(
            f"run {run.id[:12]} ({run.segment}) was RUNNING though its process is dead",
            "a list of runs that are not running helps nobody",
            "nothing: it is KILLED now, at its last sign of life",
            is_hint=True,
        )
    for run in [run for run in left if run.run_id not in live]:
        silent = max(0, time.time() - run.last_sign_ms / 1000) / 3600
        yield Finding(
            f"run {run.id[:12]} ({run.segment}) is RUNNING, not in this folder, silent for {silent:.1f} hours",
            "its process may be alive on another machine, or have died with it",
            f"if it is dead: matwm runs --close {run.id[:12]}",
            is_hint=True,
        )


def _set_aside(patient: Patient) -> str:
    assert patient.database is not None
    aside = database.set_aside(patient.database)
    return f"{patient.database.name} is {aside.name} now" if aside else f"{patient.database.name} is whole by now"
