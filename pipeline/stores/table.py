"""Lists the stores of a project, the quickest first."""

from pathlib import Path

from pipeline.stores.dvc_cache import DvcCacheStore
from pipeline.stores.folders import ImportedStore, PublishedStore, WorkStore
from pipeline.stores.mlflow import MlflowStore
from pipeline.stores.protocol import CheckpointStore
from pipeline.stores.remote import Remote

STORES: tuple[type[CheckpointStore], ...] = (
    PublishedStore,
    ImportedStore,
    WorkStore,
    DvcCacheStore,
    Remote,
    MlflowStore,
)
"""The first that has a checkpoint is asked for it."""


def commonly_asked(project: Path) -> list[CheckpointStore]:
    """Return the stores that commands look into; resume opens every one, by itself, as one may keep it waiting."""
    opened = (store.of(project) for store in STORES if not store.is_only_for_resume)
    return [store for store in opened if store is not None]
