"""Reads what DVC knows without asking it: the lock (which parameters made which output) and the bytes in its cache.

For use where DVC cannot be called: inside a stage, and before it builds its graph.
"""

import filecmp
import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from matwm import durable
from matwm.version import NUMERICS
from matwm.yaml_text import read_dvc_yaml
from pipeline import project as places
from pipeline.dvc_config import mark, settings

ABSENT = object()
"""The value of a parameter that is not there, which is not null."""


def lock(project: Path) -> Mapping[str, Any]:
    """Return the stages of dvc.lock by name, empty before the first `dvc repro`; a file that stays as it is is parsed once."""
    path = project / "dvc.lock"
    return _parsed_lock(path, mark(path))[0]


def damage(project: Path) -> str | None:
    """Return a sentence if there is a dvc.lock that neither this program nor DVC can read."""
    path = project / "dvc.lock"
    what = _parsed_lock(path, mark(path))[1]
    return what and f'{path} cannot be read ({what}): restore it with "git checkout dvc.lock"; what it had of trained segments is lost else'


def listed(entry: Mapping[str, Any], what: str) -> list[dict[str, Any]]:
    """Return the `deps` or `outs` of a stage's lock entry."""
    found = entry.get(what)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def locked_output(entry: Mapping[str, Any], path: str) -> str | None:
    """Return the md5 that a stage's lock entry has for an output."""
    return next((out.get("md5") for out in listed(entry, "outs") if out.get("path") == path), None)


def stage_of(segment: str) -> str:
    """Return the stage that trains a segment: that of its sweep for a trial."""
    sweep, slash, _ = segment.partition("/")
    return f"sweep@{sweep}" if slash else f"train@{segment}"


def output_of(segment: str) -> tuple[str, str]:
    """Return the output of DVC with a segment's checkpoints, and what begins the names of its files there."""
    owner, slash, trial = segment.partition("/")
    return f"checkpoints/{owner}", f"{trial}/" * bool(slash)


def locked_checkpoints(stages: Mapping[str, Any], segment: str) -> str | None:
    """Return the md5 that the lock has for the output with a segment's checkpoints."""
    return locked_output(stages.get(stage_of(segment), {}), output_of(segment)[0])


def listed_checkpoints(project: Path, segment: str) -> dict[str, str] | None:
    """Return the md5 of each file of a segment's checkpoints, by its path below its folder, None if the cache does not know them."""
    start, found = output_of(segment)[1], listing(project, locked_checkpoints(lock(project), segment))
    return None if found is None else {name.removeprefix(start): md5 for name, md5 in found.items() if name.startswith(start)}


def is_trained(stages: Mapping[str, Any], segment: str, params: Mapping[str, Any]) -> bool:
    """Return whether the lock holds this segment as these parameters describe it, so that DVC will not train it."""
    entry = stages.get(stage_of(segment))
    return entry is not None and next(changed_params(entry, params), None) is None


def changed_params(entry: Mapping[str, Any], params: Mapping[str, Any], numerics: int = NUMERICS) -> Iterator[tuple[str, Any, Any]]:
    """Yield each parameter that a stage's lock entry has otherwise than it is now: path, what the lock says, what is, or `ABSENT`."""
    found = entry.get("params")
    recorded = found if isinstance(found, dict) else {}
    code = recorded.get(places.CHECKOUT_NUMERICS) or recorded.get(places.NUMERICS_FILE) or {}
    if code != {"NUMERICS": numerics}:
        yield "NUMERICS", code.get("NUMERICS"), numerics
    for path, value in (recorded.get("params.yaml") or {}).items():
        if (now := _at(params, path)) != value:
            yield path, value, now


def checkpoint_files(project: Path, segment: str) -> dict[str, Path] | None:
    """Return the files of a segment's checkpoints in the cache by path below its folder, None if any of them is not there."""
    cache, listed = cache_folder(project), listed_checkpoints(project, segment)
    if not listed:
        return None
    files = {name: _object(cache, file_md5) for name, file_md5 in listed.items()}
    return files if all(path.is_file() for path in files.values()) else None


def listing(project: Path, md5: str | None) -> dict[str, str] | None:
    """Return the md5 of each file of a cached directory by relative path, None if the cache has no sound listing of it."""
    try:
        data = _object(cache_folder(project), md5 or "").read_bytes()
        if f"{hashlib.md5(data, usedforsecurity=False).hexdigest()}.dir" != md5:
            return None
        return {entry["relpath"]: entry["md5"] for entry in json.loads(data)}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def discard_damaged(project: Path, folder: Path) -> list[Path]:
    """Remove from DVC's cache what claims to be a file of `folder` and is not, and return it.

    A read-only object in the cache is never looked into again: DVC would replace the sound file by it.
    """
    cache = cache_folder(project)
    found: list[Path] = []
    for path in (path for path in folder.rglob("*") if path.is_file()):
        kept = _object(cache, durable.md5_once(path))
        if kept.is_file() and not kept.samefile(path) and not filecmp.cmp(kept, path, shallow=False):
            kept.unlink()
            found.append(kept)
    return found


def _object(cache: Path, md5: str) -> Path:
    return cache / "files" / "md5" / md5[:2] / md5[2:]


def has_remote(project: Path) -> bool:
    """Return whether a DVC remote is configured."""
    return bool(settings(project).get("remote"))


def links(project: Path) -> bool:
    """Return whether DVC gives a cached file a second name instead of copying it."""
    kinds = settings(project).get("cache", {}).get("type") or []
    return "hardlink" in (kinds.split(",") if isinstance(kinds, str) else kinds)


def cache_folder(project: Path) -> Path:
    """Return where DVC keeps its objects."""
    configured = settings(project).get("cache", {}).get("dir")
    return Path(project / ".dvc", configured) if configured else project / ".dvc" / "cache"


@lru_cache(maxsize=4)
def _parsed_lock(path: Path, _: tuple[int, ...] | None) -> tuple[Mapping[str, Any], str | None]:
    """Return the stages, and what is wrong with the file, if anything is."""
    try:
        data = read_dvc_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, None
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        return {}, " ".join(str(error).split())[:200]
    stages = data.get("stages") if isinstance(data, dict) else None
    if not isinstance(stages, dict):
        return {}, "it holds no stages"
    return {name: entry for name, entry in stages.items() if isinstance(entry, dict)}, None


def _at(params: Mapping[str, Any], path: str) -> Any:
    node: Any = params
    for key in path.split("."):
        if not isinstance(node, Mapping) or key not in node:
            return ABSENT
        node = node[key]
    return node
