"""What a sweep has decided while it ran: which trial begins with which values, where one ends, what came of it.

trials.jsonl    a line a decision, on the disk itself before anything acts on it; lines are only appended, later ones add to earlier ones

    {"sweep": "tune", "definition": "4f…", "start": "9a…"}                           of which search, from the checkpoint of which digest
    {"trial": "000-learning_rate=0.0012", "values": {…}, "floors": {"40": -9.1}}     it begins with these values
    {"trial": "000-learning_rate=0.0012", "until": 40, "pruned": true}               its last checkpoint is that of step 40
    {"trial": "000-learning_rate=0.0012", "value": -8.7, "curve": {"40": -9.2}}      it is finished, and how good it was
    {"boundary": 5000, "trials": [{…}, {…}]}                                         several at once, of a population

What counts is `.matwm/sweeps/<sweep>-<definition>/trials.jsonl`: DVC deletes a stage's outputs before it calls the stage. The copy in
`metrics/<sweep>/` is for git, from which a clone goes on.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matwm import durable
from matwm.config import SweepConfig
from matwm.params_yaml import parse_config
from matwm.version import NUMERICS
from pipeline import project as places
from pipeline import source_code

FILE = "trials.jsonl"
Row = dict[str, Any]


@dataclass(frozen=True)
class Log:
    """The decisions about one sweep as params.yaml defines it."""

    path: Path
    """Where more are appended."""
    rows: tuple[Row, ...] = ()

    @property
    def trials(self) -> dict[str, Row]:
        """All that is decided about each trial, in the order in which they began."""
        found: dict[str, Row] = {}
        for row in self.rows[1:]:
            for one in row.get("trials", [row]):
                found.setdefault(str(one["trial"]), {}).update(one)
        return found


def definition(params: Mapping[str, Any], name: str, sweep: SweepConfig) -> str:
    """Return the digest of all that shapes the decisions about a sweep: another one is another search, and begins anew.

    How many trials a search has, and how far a population trains, is no part of it, and so more goes on with the same one.

    Raises:
        ConfigError: the sections of params.yaml are not valid.
    """
    base = parse_config(params)
    own = sweep.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"skip": True, "keep": True, "search": {"trials"}})
    if sweep.population:
        del own["until"]  # Another boundary is reached, and those before it stay.
    judging = base.evaluation
    judged = [judging.episodes, judging.seed, judging.modes, judging.interval, [str(one) for one in base.objectives]]
    return _digest([NUMERICS, name, base.shaping(), base.run.save_interval, judged, own])


def read(project: Path, params: Mapping[str, Any], name: str, sweep: SweepConfig) -> Log:
    """Return what is decided about a sweep: as this machine or git has it, whichever knows more.

    Raises:
        ConfigError: the sections of params.yaml are not valid.
    """
    wanted = definition(params, name, sweep)
    path = _folder(project, name, wanted) / FILE
    found = [_parsed(_bytes(place)) for place in (path, places.metrics_folder(project, name) / FILE)]
    return Log(path, _longest(found, wanted))


def open_log(project: Path, params: Mapping[str, Any], name: str, sweep: SweepConfig, start: str) -> Log:
    """Return the decisions about a sweep whose trials start from the checkpoint of a digest, for more to be appended.

    They are those of this machine or of git, the last commit included; where none fit, the log begins here. The caller has the lock.

    Raises:
        ConfigError: the sections of params.yaml are not valid.
    """
    wanted = definition(params, name, sweep)
    path = _folder(project, name, wanted) / FILE
    here = _parsed(_bytes(path))
    committed = source_code.git_output(project, "show", f"HEAD:./metrics/{name}/{FILE}") or b""
    offered = [here, _parsed(_bytes(places.metrics_folder(project, name) / FILE)), _parsed(committed)]
    rows = _longest([one for one in offered if one and one[0].get("start") == start], wanted)
    rows = rows or ({"sweep": name, "definition": wanted, "start": start},)
    if rows != here:
        path.parent.mkdir(parents=True, exist_ok=True)
        if here and here[0].get("start") != start:  # of a parent that came out otherwise
            path.replace(path.with_name(f"{str(here[0].get('start'))[:12]}-{FILE}"))
        durable.replace(path, "".join(map(_line, rows)).encode())
    return Log(path, rows)


def append(path: Path, rows: Iterable[Row]) -> None:
    """Add decisions; they are on the disk itself when this returns. Several processes may do so at a time."""
    text = "".join(map(_line, rows)).encode()
    if not text:
        return
    with path.open("r+b") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        file.seek(file.read().rfind(b"\n") + 1)  # What a power cut has left of a line goes.
        file.truncate()
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def copy_for_git(project: Path, name: str, log: Log) -> None:
    """Write `metrics/<sweep>/trials.jsonl` anew."""
    places.write_text(places.metrics_folder(project, name) / FILE, "".join(map(_line, _parsed(_bytes(log.path)))))


def lock_of(log: Log) -> Path:
    """Return the file that whoever decides holds locked."""
    return log.path.with_name("lock")


def _folder(project: Path, name: str, wanted: str) -> Path:
    return places.state_folder(project) / "sweeps" / f"{name}-{wanted[:12]}"


def _longest(found: Iterable[tuple[Row, ...]], wanted: str) -> tuple[Row, ...]:
    fitting = [rows for rows in found if rows and rows[0].get("definition") == wanted]
    return max(fitting, key=len, default=())


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _parsed(data: bytes) -> tuple[Row, ...]:
    """Return the whole lines of a log; a line that is none ends it, for what follows it may rest on it."""
    rows: list[Row] = []
    for line in data.decode(errors="replace").split("\n")[:-1]:
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not isinstance(row, dict) or (rows and not isinstance(row.get("trial"), str) and not isinstance(row.get("trials"), list)):
            break
        rows.append(row)
    return tuple(rows)


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _digest(decides: Any) -> str:
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
