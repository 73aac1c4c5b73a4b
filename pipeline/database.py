"""Makes a project's first MLflow database whole or not at all, and tells one that was killed half-made from an old one.

MLflow makes the tables by some 60 migrations, each committed by itself: killed in between, it can neither use nor upgrade the file. What
it cannot open, whose tables it finds there and would make, is half-made; no table is looked into.
"""

import contextlib
import fcntl
import glob
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.addresses import TrackingError, sqlite_address

if TYPE_CHECKING:
    from mlflow import MlflowClient

MAKING = ".making-"
"""In the names of files that are not finished; they are ignored by git, as all of `mlflow.db*`."""


class HalfMadeError(TrackingError):
    """MLflow began to make a database and did not end."""


def opened(uri: str, database: Path) -> "MlflowClient":
    """Return MLflow's client for a database, which is made if it is not there yet; processes that come at once wait for the first.

    Raises:
        HalfMadeError: there is a half-made one.
        Exception: MLflow cannot open it for another reason, such as that another version of MLflow has made it.
    """
    import sqlalchemy.exc
    from mlflow import MlflowClient

    ensure(database)
    try:
        return MlflowClient(tracking_uri=uri)
    except sqlalchemy.exc.OperationalError as error:
        if "already exists" not in str(error):
            raise
        raise HalfMadeError(
            f'{database} is half-made: whoever made it was killed. "matwm doctor --fix" sets it aside, and the next command makes another'
        ) from None


def ensure(database: Path) -> None:
    """Make a database if it is not there yet."""
    if not database.exists():
        database.parent.mkdir(parents=True, exist_ok=True)
        with _locked(database):
            if not database.exists():
                _make(database)


def set_aside(database: Path) -> Path | None:
    """Rename a half-made database; return its new name, None if it is whole by now."""
    with _locked(database):
        try:
            opened(sqlite_address(database), database)
            return None
        except HalfMadeError:
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
