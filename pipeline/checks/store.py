"""Checks of the MLflow store: version, database, where artifacts are, and the environment that leads to it."""

import os
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from packaging.specifiers import SpecifierSet

from pipeline import database, runs
from pipeline.addresses import EXAMPLES, TrackingError, database_of, sqlite_address, store_address
from pipeline.checks.finding import Finding, Patient
from pipeline.process import is_held
from pipeline.stores.mlflow import former_home
from pipeline.tracking import upkeep
from pipeline.tracking.difference import difference_of
from pipeline.tracking.local_run import LocalRun
from pipeline.wording import few

PINNED = ">=3.17.2,<3.18"
OURS = "(experiment_id != 0 OR experiment_id IN (SELECT experiment_id FROM runs JOIN tags USING (run_uuid) WHERE key = 'matwm.segment'))"
"""MLflow's own experiment Default lies where somebody once happened to start MLflow: it matters only if a run of ours is in it."""
LOCATIONS = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"))


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
    """The database is whole, and has not been migrated by another MLflow."""
    if patient.database is not None and database.is_half_made(patient.database):
        yield Finding(
            f"{patient.database.name} is half-made: whoever made it was killed, and nothing has been logged to it yet",
            "MLflow can neither use nor upgrade it, so nothing can be logged or looked up",
            'run "matwm doctor --fix": it sets the file aside, and the next command makes another',
            mend=lambda: _set_aside(patient),
        )
        return
    if patient.database is None or (at := _revision(patient.database)) is None:
        return
    below, heads = _revisions()
    if at not in below | heads:
        yield Finding(
            f"{patient.database.name} was migrated by a newer MLflow (its schema is {at})",
            "the MLflow installed here refuses to open it, so nothing can be logged or looked up",
            f"restore a copy from before that, or move it away ({patient.database}) and start a new store: checkpoints and "
            "metrics/ do not depend on it",
        )
    elif at not in heads:
        yield Finding(
            f"{patient.database.name} was made by an older MLflow (its schema is {at})",
            "the MLflow installed here refuses to open it until it is upgraded",
            f"keep a copy, then run: mlflow db upgrade '{sqlite_address(patient.database)}'",
        )


def artifact_locations(patient: Patient) -> Iterator[Finding]:
    """Runs keep their artifacts in this folder, not where it was before it was moved, renamed or copied."""
    if patient.database is None:
        return
    old = sorted({place for _, _, text in _locations(patient.database) if (place := former_home(text, patient.home))})
    if old:
        yield Finding(
            f"MLflow keeps artifacts of this project in {few(old)}, not in {patient.home / 'mlruns'}: it was moved, renamed or copied",
            "checkpoints of earlier runs are not found, and new ones go to the old place",
            'run "matwm doctor --fix": it changes the locations in the database, and keeps a copy of it first',
            mend=lambda: _relocate(patient),
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
            runs.knock(chosen)
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


def owed(patient: Patient) -> Iterator[Finding]:
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
        left = [run for run in tracking.list_runs(upkeep.RUNNING) if not upkeep.is_alive(patient.project, run)]
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
    for run in left:
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


def _revision(file: Path) -> str | None:
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error:
        return None
    return row[0] if row else None


def _revisions() -> tuple[set[str], set[str]]:
    """Return the schemas that the installed MLflow comes from, and those that it makes; without importing it."""
    spec = find_spec("mlflow")
    folder = Path(spec.origin or "").parent / "store" / "db_migrations" / "versions" if spec else Path()
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("*.py")]
    made = {found[1] for text in texts if (found := re.search(r"^revision(?:: str)? = [\"'](\w+)", text, re.MULTILINE))}
    below = {found[1] for text in texts if (found := re.search(r"^down_revision[^=]*= [\"'](\w+)", text, re.MULTILINE))}
    return below, made - below


def _locations(file: Path) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as connection:
        there = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for table, column in LOCATIONS:
            if table in there:
                rows = connection.execute(f"SELECT DISTINCT {column} FROM {table} WHERE {column} IS NOT NULL AND {OURS}")
                found += [(table, column, row[0]) for row in rows]
    return found


def _relocate(patient: Patient) -> str:
    assert patient.database is not None
    file = patient.database
    if busy := [work.name for work in upkeep.work_folders(patient.project) if is_held(work / "lock")]:
        return f"not mended: {few(busy)} is being trained; stop it first"
    copy = file.with_name(f"{file.name}.before-doctor-{time.strftime('%Y%m%d-%H%M%S')}")
    try:
        changed = _move(patient, file, copy)
    except sqlite3.OperationalError as error:
        copy.unlink(missing_ok=True)
        return f"not mended: {file} or a copy beside it cannot be written ({error}): see to that disk and its permissions"
    shutil.copymode(file, copy)
    return f"{changed} locations changed in {file.name}; as it was: {copy.name}"


def _move(patient: Patient, file: Path, copy: Path) -> int:
    """Copy the database, and have what leads to the project's former place lead to where it is; return the number of locations."""
    with closing(sqlite3.connect(file)) as connection:
        with closing(sqlite3.connect(copy)) as target:
            connection.backup(target)
        changed = 0
        for table, column, text in _locations(file):
            if (old := former_home(text, patient.home)) is not None:
                is_uri = bool(urlsplit(text).scheme)
                path = str(patient.home / "mlruns") + (unquote(urlsplit(text).path) if is_uri else text)[len(old) :]
                new = Path(path).as_uri() if is_uri else path
                changed += connection.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (new, text)).rowcount
        connection.commit()
    return changed
