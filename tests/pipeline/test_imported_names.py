"""What `pipeline/` takes from MLflow and DVC: public names alone, so that an upgrade is no gamble, and no way into MLflow's tables."""

import ast
from collections.abc import Iterator
from pathlib import Path

PIPELINE = Path(__file__).parents[2] / "pipeline"
PUBLIC = {
    "mlflow",
    "mlflow.MlflowClient",
    "mlflow.entities.Metric",
    "mlflow.entities.Param",
    "mlflow.entities.RunTag",
    "mlflow.entities.ViewType",
    "mlflow.exceptions.MlflowException",
    # The interface of MLflow's plugins for artifacts, which lists and deletes, as its client does not.
    "mlflow.store.artifact.artifact_repo.ArtifactRepository",
    "mlflow.store.artifact.artifact_repository_registry.get_artifact_repository",
    # Addresses and errors: with no engine, connection or table there is no SQL.
    "sqlalchemy.URL",
    "sqlalchemy.make_url",
    "sqlalchemy.exc",
    "sqlalchemy.exc.ArgumentError",
}
PRIVATE = {"_tracking_client", "_metric_objs", "_tracking_store", "_registry_client"}
TOOLS = ("mlflow", "dvc", "dvc_data", "dvc_objects", "dvc_s3", "dvc_ssh", "dvc_http", "scmrepo", "sqlalchemy", "sqlite3", "alembic")


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PIPELINE.rglob("*.py")):
        yield path.relative_to(PIPELINE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_only_names_of_the_list_are_imported() -> None:
    found = {name for _, tree in modules() for name in imported(tree) if name.split(".")[0] in TOOLS}
    assert found == PUBLIC, "a name that is gone belongs off the list"


def test_no_private_attribute_of_mlflow_is_read() -> None:
    reads = {(name, node.attr) for name, tree in modules() for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not {(name, attribute) for name, attribute in reads if attribute in PRIVATE}
