"""Reads what DVC knows without asking it: the lock (which parameters made which output) and the bytes in its cache.

For use where DVC cannot be called: inside a stage, and before it builds its graph.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from matwm.version import NUMERICS
from pipeline import project as places

ABSENT = object()


def lock(project: Path) -> dict[str, Any]:
    """Return the stages of dvc.lock by name, empty before the first `dvc repro`."""
    try:
        data = yaml.load((project / "dvc.lock").read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except (OSError, yaml.YAMLError):
        return {}
    return dict((data or {}).get("stages") or {})


def locked_output(entry: Mapping[str, Any], path: str) -> str | None:
    """Return the md5 that a stage's lock entry has for an output."""
    return next((out.get("md5") for out in entry.get("outs", []) if out["path"] == path), None)


def is_trained(stages: Mapping[str, Any], segment: str, params: Mapping[str, Any]) -> bool:
    """Return whether the lock holds this segment as these parameters describe it, so that DVC will not train it."""
    entry = stages.get(f"train@{segment}")
    if entry is None:
        return False
    recorded = entry.get("params", {})
    code = recorded.get("matwm/version.py", {})
    return code == {"NUMERICS": NUMERICS} and all(_at(params, path) == value for path, value in recorded.get("params.yaml", {}).items())


def files_of(project: Path, md5: str | None) -> dict[str, Path] | None:
    """Return the files of a cached directory by relative path, None if any of it is not in the cache."""
    if md5 is None:
        return None
    cache = _cache(project)
    try:
        entries = json.loads(_object(cache, md5).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    files = {entry["relpath"]: _object(cache, entry["md5"]) for entry in entries}
    return files if all(path.is_file() for path in files.values()) else None


def imported(project: Path, folder: str) -> dict[str, Path] | None:
    """Return the files of an imported checkpoint that only DVC's cache holds (see `files_of`)."""
    try:
        data = yaml.safe_load((project / f"{folder}.dvc").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return None
    return files_of(project, data["outs"][0].get("md5"))


def restore_steps(files: Mapping[str, Path], target: Path, at_most: int) -> list[int]:
    """Hard-link the checkpoints of a cached `checkpoints/<segment>` into a store's folder and return their steps.

    Nothing is verified here: the store does that when it opens them.
    """
    steps: set[int] = set()
    for relative, source in sorted(files.items()):
        folder, _, name = relative.partition("/")
        step = places.step_of(folder)
        if step is None or step > at_most or not name:
            continue
        destination = target / f".{folder}.restored" / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(source, destination)
        steps.add(step)
    for step in sorted(steps):
        folder = places.step_folder(step)
        if not (target / folder).exists():
            (target / f".{folder}.restored").rename(target / folder)
        shutil.rmtree(target / f".{folder}.restored", ignore_errors=True)
    return sorted(steps)


def link_or_copy(source: Path, destination: Path) -> None:
    """Give a file a second name; copy it where the file system cannot."""
    try:
        os.link(source, destination)
    except FileExistsError:
        pass
    except OSError:
        shutil.copyfile(source, destination)


def _object(cache: Path, md5: str) -> Path:
    return cache / "files" / "md5" / md5[:2] / md5[2:]


def _cache(project: Path) -> Path:
    from dvc.config import Config

    try:
        configured = Config(str(project / ".dvc")).get("cache", {}).get("dir")
    except Exception:  # noqa: BLE001 (whatever is wrong with DVC's settings, DVC says it better)
        configured = None
    return Path(project / ".dvc", configured) if configured else project / ".dvc" / "cache"


def _at(params: Mapping[str, Any], path: str) -> Any:
    node: Any = params
    for key in path.split("."):
        if not isinstance(node, Mapping) or key not in node:
            return ABSENT
        node = node[key]
    return node
