"""The first MLflow database: whole or absent whatever kills who makes it, and told from an old one."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from pipeline import database, doctor, runs
from pipeline.addresses import TrackingError
from tests.pipeline.projects import until

MAKE = "import sys; from pathlib import Path; from pipeline import database; database.ensure(Path(sys.argv[1]))"
SIZES = (1, 200_000, 400_000)
"""Bytes that the file has when who makes it is killed; in the end it has more."""


def started(path: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", MAKE, str(path)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def works(path: Path) -> bool:
    uri = f"sqlite:///{path}"
    return bool(runs.client(uri).create_run(runs.experiment_id(uri, "works")).info.run_id)


@pytest.mark.parametrize("size", SIZES)
def test_a_kill_in_the_midst_leaves_no_database(tmp_path: Path, size: int) -> None:
    path = tmp_path / "mlflow.db"
    process = started(path)
    try:
        until(lambda: any(file.stat().st_size >= size for file in tmp_path.glob(f"*{database.MAKING}*[0-9a-f]")))
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not path.exists()
    assert list(tmp_path.glob(f"*{database.MAKING}*"))
    database.ensure(path)
    assert names(tmp_path) == {"mlflow.db", "mlflow.db.lock"}
    assert works(path)


def test_two_that_come_at_once_make_one(tmp_path: Path) -> None:
    processes = [started(tmp_path / "mlflow.db") for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert names(tmp_path) == {"mlflow.db", "mlflow.db.lock"}


@pytest.fixture
def half_made(tmp_path: Path, store_template: Path) -> Path:
    """What a kill leaves of MLflow's own way: tables, a schema on the way, and no experiment."""
    path = tmp_path / "mlflow.db"
    path.write_bytes(store_template.read_bytes())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM experiments")
        connection.execute("DROP TABLE spans")
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
        connection.commit()
    return path


def test_a_half_made_one_is_refused_and_set_aside(half_made: Path, tmp_path: Path) -> None:
    runs.configure(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    with pytest.raises(TrackingError, match=r'mlflow.db is half-made: .* "matwm doctor --fix" sets it aside'):
        runs.list_runs()
    (finding,) = doctor.CHECKS["database-version"](doctor.Patient(tmp_path, {}))
    assert "half-made" in finding.what
    assert finding.mend is not None
    assert finding.mend().startswith("mlflow.db is mlflow.db.half-made-")
    assert not half_made.exists()
    assert runs.list_runs() == []


def test_an_old_one_is_not_half_made(tmp_path: Path, store_template: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(store_template.read_bytes())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
        connection.commit()
    runs.configure(tmp_path)
    (finding,) = doctor.CHECKS["database-version"](doctor.Patient(tmp_path, {}))
    assert "found version 451aebb31d03" in finding.what
    assert "mlflow db upgrade" in finding.remedy
    assert finding.mend is None


def test_a_whole_one_is_not_set_aside(tmp_path: Path, store_template: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(store_template.read_bytes())
    assert database.set_aside(path) is None


def test_what_is_no_database_is_left_to_mlflows_own_words(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"no database at all" * 100)
    runs.configure(tmp_path)
    (finding,) = doctor.CHECKS["database-version"](doctor.Patient(tmp_path, {}))
    assert "file is not a database" in finding.what
    assert finding.mend is None


def test_an_empty_file_is_filled(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    assert works(tmp_path / "mlflow.db")
