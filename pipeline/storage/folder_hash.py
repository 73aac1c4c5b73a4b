"""Hashes a folder as DVC does, and a checkpoint's against its own manifest in the same reading."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from pipeline.project import ProjectError


def hashed_files(folder: Path) -> dict[str, str]:
    """Return the md5 of each file of a checkpoint by name; torch is not needed for it.

    Raises:
        ProjectError: a file is not what the manifest says.
    """
    manifest = folder / "manifest.json"
    try:
        listed = json.loads(manifest.read_bytes())["files"]
        found = {name: _digests(folder / name) for name in [*listed, manifest.name]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProjectError(f"{folder} is no sound checkpoint: {error}") from None
    for name, facts in listed.items():
        if found[name][1] != facts["sha256"]:
            raise ProjectError(f"{folder / name} is damaged: it has sha256 {found[name][1]}, expected {facts['sha256']}")
    return {name: md5 for name, (md5, _) in found.items()}


def md5s_of(folder: Path) -> dict[str, str]:
    """Return the md5 of each file in a folder, by relative path."""
    found: dict[str, str] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "md5").hexdigest()
    return found


def tree_of(files: Mapping[str, str]) -> tuple[str, bytes]:
    """Return DVC's hash of a folder with these files (name: md5), and the list that it is the hash of."""
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    tree = Tree()
    for name, md5 in files.items():
        tree.add(tuple(name.split("/")), None, HashInfo("md5", md5))
    tree.digest()
    assert tree.oid
    return tree.oid, tree.as_bytes()


def _digests(path: Path) -> tuple[str, str]:
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            md5.update(data)
            sha256.update(data)
    return md5.hexdigest(), sha256.hexdigest()
