"""Append-only files of JSON lines, each behind its checksum."""

import errno
import json
import logging
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matwm import durable

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]


class Read(NamedTuple):
    """The sound lines of a file, each with the position at which it ends."""

    rows: list[tuple[Row, int]]
    sound: int
    """How many of them come before the first damaged one."""
    is_damaged: bool


class CheckedLines:
    """A file that is appended to. The caller has a lock; what a full disk refuses is held in memory until it can be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: list[Row] = []
        self._file: Any = None
        self._is_refused = False

    def append(self, rows: Sequence[Row]) -> list[int]:
        """Write rows, and those held before them; return the positions at which the written ones end, nothing if the disk refuses."""
        self._held += rows
        try:
            return self._write_held()
        except OSError as error:
            if not self._is_refused:
                logger.error("%s cannot be written: %s. Metric points are held in memory until it can", self.path, error)
            self._is_refused = True
            return []

    def flush(self) -> list[int]:
        """Return, as `append` does, when everything is on the disk itself.

        Raises:
            OSError: a full disk still refuses some.
        """
        ends = self._write_held()
        if self._file is not None:
            os.fsync(self._file.fileno())
        return ends

    def replace(self, rows: Sequence[Row]) -> None:
        """Give the file other contents in one move.

        Raises:
            OSError: the disk refuses; the file is as it was.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        durable.replace(self.path, b"".join(map(_line, rows)))
        self._held = []
        self.close()

    def close(self) -> None:
        """Close the file; it is opened again when it is written to."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write_held(self) -> list[int]:
        if not self._held:
            return []
        file = self._opened()
        size = os.fstat(file.fileno()).st_size
        lines = [_line(row) for row in self._held]
        data = b"".join(lines)
        try:
            written = file.write(data)
            if written != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        except OSError:
            os.ftruncate(file.fileno(), size)  # The next line must not be glued to half of this one.
            raise
        if self._is_refused:
            logger.warning("%s can be written again", self.path)
        self._held, self._is_refused = [], False
        ends: list[int] = []
        for line in lines:
            size += len(line)
            ends.append(size)
        return ends

    def _opened(self) -> Any:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab+", buffering=0)
            size = self._file.seek(0, os.SEEK_END)
            if size:
                self._file.seek(size - 1)
                if self._file.read(1) != b"\n":  # A crash tore the last line.
                    self._file.write(b"\n")
        return self._file


def read(path: Path) -> Read:
    """Return the sound lines of a file, whoever may be writing to it; none if there is no such file."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Read([], 0, is_damaged=False)
    rows: list[tuple[Row, int]] = []
    sound, position = None, 0
    for line in data.splitlines(keepends=True):
        position += len(line)
        row = _row(line)
        if row is not None:
            rows.append((row, position))
        elif line != b"\n" and sound is None:
            sound = len(rows)
            logger.warning("%s: left out a damaged line: %r", path, line[:80])
    return Read(rows, len(rows) if sound is None else sound, sound is not None)


def last_row(path: Path) -> Row | None:
    """Return the last sound line without reading the whole file; None if there is none near the end."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 65536))
            lines = file.read().splitlines(keepends=True)
    except OSError:
        return None
    return next((row for line in reversed(lines) if (row := _row(line)) is not None), None)


def number(value: float) -> float | str:
    """Return a value as JSON holds it, which has no NaN and no infinity: as the text that `float` reads."""
    return value if math.isfinite(value) else str(value)


def _line(row: Row) -> bytes:
    text = json.dumps(row, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _row(line: bytes) -> Row | None:
    checksum, _, text = line.partition(b" ")
    if not text.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text[:-1]):
        return None
    row = json.loads(text)
    return row if isinstance(row, dict) else None
