"""Reads what a DVC remote's index says, and believes nothing of it that could not have been written there."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

_MD5 = re.compile(r"[0-9a-f]{32}")
_TREE = re.compile(r"[0-9a-f]{32}\.dir")


@dataclass(frozen=True)
class Entry:
    """The index of one checkpoint on the remote."""

    key: str
    step: int
    tree: str
    """Hash of the folder as DVC computes it, with `.dir`."""
    manifest: str
    """Digest of the manifest."""
    segment: str | None = None
    run_id: str | None = None


def entry_in(data: bytes, key: str, step: int) -> Entry | None:
    """Return the entry that a file of the index holds, None if it is none of this checkpoint: half of one, for instance."""
    try:
        found: Mapping[str, Any] = json.loads(data)
        entry = Entry(**{name: found.get(name) for name in Entry.__dataclass_fields__})  # type: ignore[arg-type] looked at below
        is_whole = (entry.key, entry.step) == (key, step) and _TREE.fullmatch(entry.tree) and isinstance(entry.manifest, str)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    return entry if is_whole else None


def listed_files(data: bytes) -> dict[str, str]:
    """Return the md5 of each file by its name, as DVC lists a folder.

    Raises:
        ValueError: it is no such list, or a name leads out of the folder.
    """
    try:
        files = {row["relpath"]: row["md5"] for row in json.loads(data)}
        for name, md5 in files.items():
            path = PurePosixPath(name)
            if not _MD5.fullmatch(md5) or not path.parts or path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{name!r} with md5 {md5!r} is no file of a folder")
    except (TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError("it is no list of files") from None
    return files
