"""Gives stores folders for what is on its way."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from matwm import durable


@contextmanager
def beside(target_dir: Path) -> Iterator[Path]:
    """Yield a folder on the file system of `target_dir`, gone afterwards; without making `target_dir`, which may never be needed."""
    nearest = next(folder for folder in (target_dir, *target_dir.absolute().parents) if folder.is_dir())
    with durable.new_folder(nearest) as scratch:
        yield scratch


def for_manifest(*names: str) -> Path:
    """Return a folder for the manifest of a checkpoint that is not here; it is gone when the process ends, not before."""
    folder = Path(_manifests().name, *names)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@cache
def _manifests() -> "TemporaryDirectory[str]":
    return TemporaryDirectory(prefix="matwm-")
