"""Lists the stores of a project, the quickest first."""

from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline import runs
from pipeline.stores import folders, remote
from pipeline.stores.dvc_cache import DvcCacheStore
from pipeline.stores.mlflow import MlflowStore
from pipeline.stores.protocol import CheckpointStore

STORES: Mapping[str, Callable[[Path], CheckpointStore | None]] = {
    "published": folders.published,
    "imported": folders.imported,
    "work": folders.WorkStore,
    "dvc_cache": DvcCacheStore,
    "remote": remote.default,
    "mlflow": lambda project: MlflowStore(runs.tracking_uri(project)),
}
"""Kind: what opens the store of a project, or returns None if the project has none. The first that has a checkpoint is asked for it."""

ONLY_FOR_RESUME = {"dvc_cache", "remote"}
"""Kinds that the commands which look at checkpoints leave out: their bytes are DVC's to bring, or lie across a network."""

WAITED_FOR = {"remote", "mlflow"}
"""Kinds that may keep a process waiting: resume asks them last, for things that nothing on this machine has, and not for ever."""


def commonly_asked(project: Path) -> list[CheckpointStore]:
    """Return the stores that commands look into; resume opens every one, by itself, as one may keep it waiting."""
    opened = (open_store(project) for kind, open_store in STORES.items() if kind not in ONLY_FOR_RESUME)
    return [store for store in opened if store is not None]
