"""Reads DVC's configuration files without starting DVC, which takes a second: the settings of all levels, merged as DVC merges them.

The format is ConfigObj's INI dialect; its places, levels and options are in DVC's documentation (`dvc config`, `dvc remote modify`).
"""

import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from matwm import durable

LEVELS = ("system", "global", "repo", "local")
"""A later one overrides an earlier one."""
PATHS = ("url", "credentialpath", "configpath", "keyfile", "cert_path", "key_path")
"""Options of a remote that are relative to the folder of the file they stand in."""
_NAMED = re.compile(r'\s*(remote|machine|db)\s*"(.*)"\s*')


def settings(project: Path) -> Mapping[str, Any]:
    """Return DVC's configuration by section and option, remotes by name; nothing if it cannot be read. Unchanged files are parsed once."""
    files = config_files(project)
    return _parsed(files, tuple(map(mark, files)))


def config_files(project: Path) -> tuple[Path, ...]:
    """Return where DVC looks for its configuration, one file a level, whether or not it is there."""
    import platformdirs

    shared = os.environ.get("DVC_SYSTEM_CONFIG_DIR") or platformdirs.site_config_dir("dvc", "iterative")
    user = os.environ.get("DVC_GLOBAL_CONFIG_DIR") or platformdirs.user_config_dir("dvc", "iterative")
    return Path(shared, "config"), Path(user, "config"), project / ".dvc" / "config", project / ".dvc" / "config.local"


def is_on(value: Any) -> bool:
    """Return whether an option is switched on."""
    return str(value).lower() == "true"


def mark(path: Path) -> tuple[int, ...] | None:
    """Return what changes when a file is written to, None if it is not there."""
    try:
        return durable.mark(path)
    except OSError:
        return None


@lru_cache(maxsize=4)
def _parsed(files: tuple[Path, ...], _: tuple[tuple[int, ...] | None, ...]) -> Mapping[str, Any]:
    from configobj import ConfigObj, ConfigObjError

    merged: dict[str, Any] = {"core": {}, "cache": {}, "remote": {}}
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
            level = ConfigObj(text.splitlines()).dict()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, UnicodeDecodeError, ConfigObjError):  # DVC's own message is better.
            return {}
        _merge(merged, dict(_sections(level, file.absolute().parent)))
    core = merged["core"]
    return {**merged, "core": {**core, "remote": str(core["remote"]).lower()} if "remote" in core else core}


def _sections(level: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield a file's sections with their options; `['remote "NAME"']` becomes `remote: {NAME: …}`. Names are in lower case."""
    remotes: dict[str, Any] = {}
    for name, options in level.items():
        if not isinstance(options, Mapping):
            continue
        own = {key.lower(): value for key, value in options.items()}
        found = _NAMED.fullmatch(name.lower())
        if found is None:
            yield name.lower(), own | ({"dir": _resolved(own["dir"], folder)} if name.lower() == "cache" and "dir" in own else {})
        elif found[1] == "remote":
            remotes[found[2]] = {key: _resolved(value, folder) if key in PATHS else value for key, value in own.items()}
    yield "remote", remotes


def _resolved(value: Any, folder: Path) -> Any:
    """Return a path as an absolute one; a URL stays as it is."""
    if not isinstance(value, str) or re.match(r"\w+://", value):
        return value
    return os.path.normpath(folder / Path(value).expanduser())


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
