"""Makes a project's first MLflow database whole or not at all, and tells one that was killed half-made from an old one.

MLflow makes the tables by some 60 migrations, each committed by itself: killed in between, it can neither use nor upgrade the file.
"""

import contextlib
import fcntl
import glob
import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from pipeline.addresses import TrackingError, sqlite_address

MAKING = ".making-"
"""In the names of files that are not finished; they are ignored by git, as all of `mlflow.db*`."""


def ensure(database: Path) -> None:
    """Make a database if it is not there yet; processes that come at once wait for the first.

    Raises:
        TrackingError: there is a half-made one.
    """
    if not database.exists():
        database.parent.mkdir(parents=True, exist_ok=True)
        with _locked(database):
            if not database.exists():
                _make(database)
    if is_half_made(database):
        raise TrackingError(
            f'{database} is half-made: whoever made it was killed. "matwm doctor --fix" sets it aside, and the next command makes another'
        )


def is_half_made(database: Path) -> bool:
    """Return whether MLflow began to make a database and did not end: the experiment Default is what it makes last."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)) as connection:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables:
                return False  # MLflow fills an empty file as if it were none.
            return "experiments" not in tables or connection.execute("SELECT 1 FROM experiments LIMIT 1").fetchone() is None
    except sqlite3.Error:
        return False  # Not to be read at this moment, or no database at all: MLflow's own words are better.


def set_aside(database: Path) -> Path | None:
    """Rename a half-made database; return its new name, None if it is whole by now."""
    with _locked(database):
        if not is_half_made(database):
            return None
        aside = database.with_name(f"{database.name}.half-made-{time.strftime('%Y%m%d-%H%M%S')}")
        for suffix in ("-journal", "-wal", "-shm"):  # They belong to it, and would be taken for the next one's.
            with contextlib.suppress(FileNotFoundError):
                database.with_name(f"{database.name}{suffix}").rename(f"{aside}{suffix}")
        return database.rename(aside)


def _make(database: Path) -> None:
    """Make a database under another name; the lock is held, so whatever has such a name is left by somebody who was killed."""
    from mlflow import MlflowClient

    for left in database.parent.glob(f"{glob.escape(database.name)}{MAKING}*"):
        left.unlink(missing_ok=True)
    made = database.with_name(f"{database.name}{MAKING}{uuid.uuid4().hex}")
    whole = made.with_name(f"{made.name}.whole")
    try:
        MlflowClient(tracking_uri=sqlite_address(made))
        # MLflow keeps connections to what it has made, so a copy gets the name: nobody else's connection leads to that.
        shutil.copyfile(made, whole)
        with whole.open("rb") as file:
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # `mlflow ui`, which knows of no lock, was quicker.
            os.link(whole, database)
    finally:  # A full disk gets its room back, too.
        for file in (made, whole):
            file.unlink(missing_ok=True)


@contextmanager
def _locked(database: Path) -> Iterator[None]:
    with database.with_name(f"{database.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
