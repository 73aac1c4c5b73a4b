"""Clears what a dvc that died has left in `.dvc/tmp/rwlock`, DVC's list of who reads and writes which path.

DVC writes it in place, so that a power cut leaves half of it, with which DVC does nothing any more; and it takes an entry of a dead process
for a live one where its number belongs to another process by now, as in every new container.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import project as places

PATH = ".dvc/tmp/rwlock"


def stale(project: Path) -> str | None:
    """Return what a dead dvc has left there, None if there is nothing."""
    listed, kept = _read(project)
    if kept is None:
        return f"{PATH}, in which DVC lists what it works on, is damaged"
    return None if kept == listed else f"{PATH} names processes of DVC that are dead by now"


def clear(project: Path) -> str:
    """Keep what processes of DVC that live have in the list, and return what was done.

    Another dvc may edit it at this very moment, as any two may: DVC reports that by itself.
    """
    _, kept = _read(project)
    if kept:
        places.write_json(project / PATH, kept)
        return f"{PATH} has what processes of DVC have that live"
    (project / PATH).unlink(missing_ok=True)
    return f"{PATH} is deleted"


def _read(project: Path) -> tuple[Any, dict[str, Any] | None]:
    """Return the list, and what processes have there that live; None if it is damaged."""
    try:
        listed = {mode: paths for mode, paths in json.loads((project / PATH).read_bytes()).items() if paths}
        return listed, {mode: found for mode, paths in listed.items() if (found := _of_the_living(paths))}
    except FileNotFoundError:
        return {}, {}
    except (ValueError, AttributeError, TypeError, KeyError):
        return None, None


def _of_the_living(paths: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of one mode: of readers a list by path, of writers one."""
    kept: dict[str, Any] = {}
    for path, entry in paths.items():
        if isinstance(entry, list):
            if alive := [one for one in entry if _is_dvc(int(one["pid"]))]:
                kept[path] = alive
        elif _is_dvc(int(entry["pid"])):
            kept[path] = entry
    return kept


def _is_dvc(pid: int) -> bool:
    """Return whether this process may be DVC: where that cannot be looked up, whether it exists."""
    try:
        return b"dvc" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        if Path("/proc/self/cmdline").exists():
            return False
    except OSError:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
