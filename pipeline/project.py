"""Finds the project a command was typed in, its folders and what lies in them."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from matwm import durable, step_names
from matwm.errors import UserError

PARAMS = "params.yaml"
NUMERICS_FILE = "numerics.yaml"
"""Says the version of the numerics where matwm is installed, and not a part of the project (see `numerics_file`)."""
CHECKOUT_NUMERICS = "matwm/version.py"
ROOT_CHECKPOINT = "checkpoints/root"
MANIFEST = "manifest.json"
EXPERIMENTS = "/.dvc/tmp/exps/"
EVERY = "*"
RECORDED: Mapping[str, Any] = {
    "run_id": str,
    "segment": str,
    "key": str,
    "parent": {"run_id": str, "step": int, "digest": str},
    "git": {"commit": str, "dirty": bool, "code": str},
    "numerics": int,
    "libraries": {EVERY: str},
    "device": str,
    "threads": int,
    "resumed_at": [int],
    "not_reproduced": {"points": int, "first": str},
    "experiment": str,
    "tags": {EVERY: str},
    "started": str,
    "finished": str,
}
"""The fields of `metrics/<segment>/run.json` and their types, those of every other field of a mapping under `EVERY`."""

step_folder, step_of = step_names.step_name, step_names.step_of


class ProjectError(UserError):
    """A person asked for something that is not there; the message is one sentence that says what is."""


def root(start: Path | None = None) -> Path:
    """Return the project: the nearest folder at or above `start` (default: here) with a dvc.yaml.

    Not the folder of this file: one environment may serve several clones.

    Raises:
        ProjectError: there is none, or the folder that the command was typed in is gone.
    """
    try:
        here = (start or Path.cwd()).absolute()
    except FileNotFoundError:
        raise ProjectError("the folder that this command was typed in is deleted: change to one that is there (cd)") from None
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise ProjectError(f'{here} is not inside a MATWM project: no folder at or above it has a dvc.yaml; "matwm init DIR" makes one')


def numerics_file(project: Path) -> str:
    """Return the file in which DVC finds the version of the numerics: the code in a checkout, else `NUMERICS_FILE`."""
    return CHECKOUT_NUMERICS if (project / CHECKOUT_NUMERICS).is_file() else NUMERICS_FILE


def make_importable(project: Path) -> None:
    """Let a project's own environments, which lie beside its params.yaml, be found wherever the command was typed."""
    if str(project) not in sys.path:
        sys.path.append(str(project))


def home(project: Path) -> Path:
    """Return where runs and the MLflow store live: a queued experiment's copy of the project shares those of the project itself."""
    return Path(project.as_posix().split(EXPERIMENTS)[0])


def steps_in(folder: Path) -> list[int]:
    """Return the steps of the checkpoints that lie in a folder, ascending."""
    return step_names.steps_in(folder, MANIFEST)


def named(steps: Iterable[int], at_most: int = 8) -> str:
    """Return steps for a sentence, of many the first two and the last: `40, 80, … 2680 (67 in all)`."""
    texts = [str(step) for step in steps]
    return ", ".join(texts) if len(texts) <= at_most else f"{texts[0]}, {texts[1]}, … {texts[-1]} ({len(texts)} in all)"


def state_folder(project: Path) -> Path:
    """Return where live runs are, and what else is kept on this machine only: neither git nor DVC looks into it."""
    return home(project) / ".matwm"


def work_folder(project: Path, segment: str, key: str) -> Path:
    """Return where the live run of a segment keeps its state."""
    return state_folder(project) / "work" / f"{segment.replace('/', '~')}-{key[:12]}"


def work_folders(project: Path, holding: str = "") -> list[Path]:
    """Return the folders of all live runs in order of their names, or only of those that hold this file or folder."""
    return [folder for folder in sorted((state_folder(project) / "work").glob("*/")) if os.path.lexists(folder / holding)]


@contextmanager
def scratch_folder(project: Path) -> Iterator[Path]:
    """Yield a folder for what is brought from a server, gone afterwards."""
    work = state_folder(project)
    with suppress(OSError):  # a project that can only be read can still be looked at
        work.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=work if os.access(work, os.W_OK) else None) as scratch:
        yield Path(scratch)


def published_folder(project: Path, segment: str) -> Path:
    """Return where a segment's finished checkpoints lie."""
    return project / "checkpoints" / segment


def published_folders(project: Path, above: str = "checkpoints") -> list[Path]:
    """Return the folders below `checkpoints/` that hold checkpoints, those of trials one level deeper, in order of their names."""
    return sorted({path.parent for depth in ("*", "*/*") for path in (project / above).glob(f"{depth}/{step_names.GLOB}")})


def segment_of(project: Path, folder: Path) -> str:
    """Return the segment, or the trial, whose published folder this is."""
    return folder.relative_to(project / "checkpoints").as_posix()


def metrics_folder(project: Path, segment: str) -> Path:
    """Return where the facts and figures of a segment lie."""
    return project / "metrics" / segment


def run_record(project: Path, segment: str) -> dict[str, Any]:
    """Return what git records of the run that trained a segment (`metrics/<segment>/run.json`); nothing if it is not to be read.

    People and git write there, too: a field that is null or of another type than `RECORDED` says counts as absent (see `check_records`).
    """
    return record_in(metrics_folder(project, segment))


def record_in(metrics: Path) -> dict[str, Any]:
    """Return the `run_record` of a segment whose folder of metrics this is."""
    return _fitting(read_json(metrics / "run.json") or {}, RECORDED)[0]


def run_records(project: Path) -> dict[str, dict[str, Any]]:
    """Return the `run_record` of each segment and trial that has one, in order of their names."""
    metrics = project / "metrics"
    found = sorted(path for depth in ("*", "*/*") for path in metrics.glob(f"{depth}/run.json"))
    return {path.parent.relative_to(metrics).as_posix(): record_in(path.parent) for path in found}


def check_records(project: Path, segments: Iterable[str]) -> None:
    """See that each `run_record` is whole: for commands that do harm with half of one.

    Raises:
        ProjectError: one cannot be read, names no training, or has a field of another type.
    """
    for segment in segments:
        path = metrics_folder(project, segment) / "run.json"
        data = read_json(path)
        record, wrong = _fitting(data or {}, RECORDED)
        if wrong or "key" not in record:
            name = path.relative_to(project)
            why = "is no JSON object that can be read" if data is None else f"has a wrong {wrong[0]}" if wrong else "has no key"
            raise ProjectError(
                f'{name} {why}: restore it with "git checkout HEAD -- {name}", or remove it and run "matwm repro", which makes it anew'
            )


def _fitting(data: Mapping[str, Any], kinds: Mapping[str, Any], above: str = "") -> tuple[dict[str, Any], list[str]]:
    """Return the fields that are as `kinds` says, or of which it says nothing, and the names of those that are neither that nor null."""
    found: dict[str, Any] = {}
    wrong: list[str] = []
    for name, value in data.items():
        kind = kinds.get(name, kinds.get(EVERY, object))
        if isinstance(kind, Mapping) and isinstance(value, dict):
            found[name], deeper = _fitting(value, kind, f"{above}{name}.")
            wrong += deeper
        elif kind is object or type(value) is kind or (isinstance(kind, list) and _is_list_of(value, kind[0])):
            found[name] = value
        elif value is not None:
            wrong.append(f"{above}{name}")
    return found, wrong


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(type(one) is kind for one in value)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object, None if the file is absent or no JSON object."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON object for people to read, whole or not at all."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.replace(path, text.encode())


def environment() -> dict[str, str]:
    """Return the environment for tools that the project calls: this interpreter and its neighbours first, nothing that calls home."""
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "MATWM_PYTHON": sys.executable,
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def tool(name: str) -> str:
    """Return the path of a program that is installed beside the interpreter, else its bare name."""
    path = Path(sys.executable).with_name(name)
    return str(path) if path.is_file() else name
