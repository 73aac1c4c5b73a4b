"""Addresses of MLflow stores: taken apart and built by rules, and refused where they can never work."""

from pathlib import Path

import pytest

from pipeline import runs
from pipeline.addresses import TrackingError, database_of, sqlite_address, store_address
from pipeline.validate import unusable_store

HOME = Path("/home/project")


@pytest.mark.parametrize(
    ("chosen", "address"),
    [
        (None, "sqlite:////home/project/mlflow.db"),
        ("", "sqlite:////home/project/mlflow.db"),
        ("sqlite:///other.db", "sqlite:////home/project/other.db"),
        ("sqlite:////there/other.db", "sqlite:////there/other.db"),
        ("sqlite+pysqlite:///a b ü.db", "sqlite:////home/project/a b ü.db"),
        ("sqlite:///mlflow.db?timeout=60", "sqlite+pysqlite:////home/project/mlflow.db?timeout=60"),
        ("sqlite:///a%3Fb.db", "sqlite+pysqlite:////home/project/a%3Fb.db"),
    ],
)
def test_a_database_is_named_by_its_absolute_path(chosen: str | None, address: str) -> None:
    assert store_address(chosen, HOME) == address
    assert store_address(address, Path("/elsewhere")) == address


@pytest.mark.parametrize("query", [{}, {"timeout": "60"}])
@pytest.mark.parametrize("name", ["plain", "what?now", "50%", "50%25", "a#b", "a b", "ü&=+", "file:x", "a@b:c"])
def test_whatever_characters_a_path_has_it_comes_back(name: str, query: dict[str, str]) -> None:
    path = HOME / name / "mlflow.db"
    assert database_of(sqlite_address(path, **query)) == path
    assert database_of(store_address(None, HOME / name)) == path


def test_an_address_of_sqlites_own_is_taken_apart_too() -> None:
    address = store_address("sqlite:///file:mlflow.db?mode=ro&uri=true", HOME)
    assert database_of(address) == HOME / "mlflow.db"
    assert "mode=ro" in address


@pytest.mark.parametrize(
    "address",
    ["http://host:5000", "http://me:pw@127.0.0.1:1", "https://me:pa/ss@host:5000/path?token=a", "postgresql://me:pw@host/db", "mysql+pymysql://host/db"]
    + ["mssql+pyodbc:///?odbc_connect=DRIVER", "http://[::1]:5000", "databricks://profile"],
)  # fmt: skip
def test_what_may_work_is_taken_as_it_is(address: str) -> None:
    assert store_address(address, HOME) == address
    assert database_of(address) is None


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ("localhost:5000", "write http://localhost:5000"),
        ("localhost", "write http://localhost"),
        ("127.0.0.1:5000/path", "write http://127.0.0.1:5000/path"),
        ("me:hidden@host:5000", r"write http://\*\*\*@host:5000"),
        ("http:/host", "write http://host"),
        ("http:host:5000", "write http://host:5000"),
        ("https://", "write https://host:5000"),
        ("http://host:port", "write http://host:5000"),
        ("sqlite://mlflow.db", "write sqlite:///mlflow.db"),
        ("sqlite:mlflow.db", "write sqlite:///mlflow.db"),
        ("sqlite:/mlflow.db", "write sqlite:///mlflow.db"),
        ("sqlite://", "in memory.*write sqlite:///mlflow.db"),
        ("sqlite:///:memory:", "in memory.*write sqlite:///mlflow.db"),
        ("sqlite:///mlflow.db?mode=ro", "mode is nothing that a database file is opened with"),
        ("sqlite:///file:a.db?mode=memory&uri=true", "mode=memory is nothing"),
        ("postgres://me:hidden@host/db", "postgresql://"),
        ("postgresql://me:hidden@host", "without a database"),
        ("postgresql:/host/db", "without a database"),
        ("gopher://host", r"kind \(gopher://\) that MLflow does not know"),
        ("./mlruns", "a folder of files"),
        ("file:///mlruns", "a folder of files"),
    ],
)
def test_what_can_never_work_is_refused_with_what_was_meant(
    chosen: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrackingError, match=rf"^MLFLOW_TRACKING_URI is '[^\n]*{said}[^\n]*$") as refused:
        store_address(chosen, HOME)
    assert "hidden" not in str(refused.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", chosen)
    assert unusable_store(tmp_path) == [str(refused.value)]
    with pytest.raises(TrackingError):
        runs.configure(tmp_path)


@pytest.mark.parametrize("name", ["what?now", "50%25 #ü"])
def test_a_project_with_odd_characters_in_its_path_keeps_its_store(
    name: str, tmp_path: Path, store_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / name
    root.mkdir()
    (root / "mlflow.db").write_bytes(store_template.read_bytes())
    runs.configure(root)
    uri = runs.configured_uri()
    run_id = runs.client(uri).create_run(runs.experiment_id(uri, "odd"), tags={"matwm.segment": "s00", "matwm.key": "a"}).info.run_id
    (tmp_path / "file.txt").write_text("x")
    runs.client(uri).log_artifact(run_id, str(tmp_path / "file.txt"))
    found = runs.find_by_key("s00", "a")
    assert found is not None
    assert found.run_id == run_id
    assert [path.parent.parent.name for path in (root / "mlruns").rglob("file.txt")] == [run_id]
    assert {path.name for path in tmp_path.iterdir()} == {name, "file.txt"}, "nothing is made beside the project"


def test_a_run_is_found_again_through_an_address_with_a_query(
    tmp_path: Path, store_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlflow.db").write_bytes(store_template.read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db?timeout=60")
    runs.configure(tmp_path)
    uri = runs.configured_uri()
    run_id = runs.client(uri).create_run(runs.experiment_id(uri, "query")).info.run_id
    found = runs.get_run(run_id)
    assert found is not None
    assert str(found.artifact_uri).startswith(str(tmp_path / "mlruns"))


def test_of_trainings_in_several_experiments_one_in_this_comes_first(tmp_path: Path, store_template: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(store_template.read_bytes())
    runs.configure(tmp_path)
    uri = runs.configured_uri()

    def make(experiment: str) -> str:
        tags = {"matwm.segment": "s00", "matwm.key": "a"}
        return runs.client(uri).create_run(runs.experiment_id(uri, experiment), tags=tags).info.run_id

    def find(experiment: str) -> str | None:
        found = runs.find_by_key("s00", "a", experiment=experiment)
        return found and found.run_id

    first, second = make("one"), make("two")
    assert [find(name) for name in ("one", "two", "three")] == [first, second, second]
