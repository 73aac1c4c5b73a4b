"""Writes files and folders that are whole or absent after a crash."""

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

RECENT_NS = 2_000_000_000
"""Coarser than the clock of any file system that is in use."""

_SAVING = ".saving-"
_FRESH = ".fresh-"
_digests: dict[tuple[str, tuple[int, ...]], str] = {}


def mark(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is written to, but not when it gets another name."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def write(path: Path, data: bytes) -> dict[str, Any]:
    """Write a new file, on the disk when this returns; return its size and digest."""
    path.parent.mkdir(exist_ok=True)
    _write_new(path, data)
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def replace(path: Path, data: bytes) -> None:
    """Give a file these contents in one move, on the disk when this returns; a link stays a link, and permissions stay."""
    target = path.resolve()
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        _write_new(temporary, data)
        if target.exists():
            temporary.chmod(target.stat().st_mode & 0o777)
        temporary.replace(target)
    except OSError as error:
        error.filename = str(target)
        raise
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(target.parent)


def sha256(path: Path) -> str:
    """Return the digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_once(path: Path) -> str:
    """Return the digest of a file's bytes, read once in the life of this process however many names it has.

    Later calls know it by its mark: what goes wrong on the disk meanwhile shows when the file is used, for all that is loaded
    is verified then. A file written to a moment ago is read again: another write could leave it with the same time.
    """
    return _once(path, "sha256", sha256)


def md5(path: Path) -> str:
    """Return the md5 of a file's bytes, a name for them and no proof of what they are."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def md5_once(path: Path) -> str:
    """Return the md5 of a file's bytes, read once as by `sha256_once`."""
    return _once(path, "md5", md5)


def link(source: Path, target: Path) -> str | None:
    """Give a file a second name, or copy it where that is impossible; return the digest of what was copied, None if nothing was."""
    try:
        os.link(source, target)
    except OSError:  # another file system, too many names of one file, or not allowed: a copy does as well
        return write(target, source.read_bytes())["sha256"]
    return None


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    with _opened(folder) as handle:
        os.fsync(handle)


@contextlib.contextmanager
def new_folder(parent: Path) -> Iterator[Path]:
    """Give a temporary folder, locked while its process lives and gone afterwards unless renamed; dead processes' go first."""
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{_SAVING}*"):
        with contextlib.suppress(OSError), _opened(left) as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left)
    name = secrets.token_hex(8)
    fresh, temporary = parent / f"{_FRESH}{name}", parent / f"{_SAVING}{name}"
    fresh.mkdir()
    try:
        with _opened(fresh) as handle:
            with contextlib.suppress(OSError):  # a file system that cannot lock folders keeps what dead processes left
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fresh.rename(temporary)  # Only now: another process would take it for a dead one's before it is locked.
            yield temporary
    finally:
        for folder in (fresh, temporary):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield handle
    finally:
        os.close(handle)


def _write_new(path: Path, data: bytes) -> None:
    try:
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = str(path)  # A full disk is reported without it.
        raise


def _once(path: Path, kind: str, digest: Callable[[Path], str]) -> str:
    before = mark(path)
    if (known := _digests.get((kind, before))) is not None:
        return known
    found = digest(path)
    if before == mark(path) and time.time_ns() - before[-1] > RECENT_NS:
        _digests[kind, before] = found
    return found
