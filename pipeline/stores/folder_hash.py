"""Hashes a folder as DVC does, and a checkpoint's against its own manifest."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from matwm import durable
from pipeline.project import ProjectError


def hashed_files(folder: Path) -> dict[str, str]:
    """Return the md5 of each file of a checkpoint by name; torch is not needed for it.

    Raises:
        ProjectError: a file is not what the manifest says.
    """
    manifest = folder / "manifest.json"
    try:
        listed = json.loads(manifest.read_bytes())["files"]
        expected = {name: facts["sha256"] for name, facts in listed.items()}
        found = {name: (durable.sha256_once(folder / name), durable.md5_once(folder / name)) for name in [*expected, manifest.name]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProjectError(f"{folder} is no sound checkpoint: {error}") from None
    for name, digest in expected.items():
        if found[name][0] != digest:
            raise ProjectError(f"{folder / name} is damaged: it has sha256 {found[name][0]}, expected {digest}")
    return {name: md5 for name, (_, md5) in found.items()}


def md5s_of(folder: Path) -> dict[str, str]:
    """Return the md5 of each file in a folder, by relative path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): durable.md5_once(path) for path in paths}


def tree_of(files: Mapping[str, str]) -> tuple[str, bytes]:
    """Return DVC's hash of a folder with these files (name: md5), and the list that it is the hash of."""
    rows = [{"md5": files[name], "relpath": name} for name in sorted(files)]
    listing = json.dumps(rows, sort_keys=True).encode()
    return f"{hashlib.md5(listing, usedforsecurity=False).hexdigest()}.dir", listing
