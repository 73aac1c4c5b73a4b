"""The checkpoints of a run in an MLflow store, by the run's ID."""

from pathlib import Path

from matwm.checkpoint import Checkpoint
from pipeline import runs
from pipeline.run import Run
from pipeline.stores.mlflow import MlflowStore


def run_of(run_id: str, uri: str | None = None) -> Run:
    """Return the run as MLflow knows it, else one of which nothing is known."""
    return runs.get_run(run_id, uri) or Run(run_id)


def steps(run_id: str, uri: str | None = None) -> list[int]:
    """Return the steps of its checkpoints."""
    return MlflowStore(uri).steps(run_of(run_id, uri))


def pull(run_id: str, step: int, target_dir: Path, uri: str | None = None) -> Checkpoint:
    """Bring a checkpoint here."""
    return MlflowStore(uri).pull(run_of(run_id, uri), step, target_dir)


def put(run_id: str, path: Path, uri: str | None = None) -> None:
    """Add a checkpoint."""
    MlflowStore(uri).put(run_of(run_id, uri), path)
