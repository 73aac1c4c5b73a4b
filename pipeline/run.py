"""One training of a segment, as far as MLflow, git and a work directory here record it."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline import project as places
from pipeline.process import is_held

CHANGED = "matwm.changed."
"""A tag that says what a segment changed is this and the path of a value; it reads `before -> after`."""
PIN = "matwm.pin."
"""The tag that pins a checkpoint is this and the name of its folder; its value is a note, or else:"""
PINNED = "pinned"
ORIGINAL = "matwm.original_run"
"""The tag with the ID that a run had before it was imported, or before its store was lost: git knows it by that."""
PARENT = "matwm.parent_run"
"""The tag with the ID of the run whose checkpoint a run starts from."""
SHOWN_BELOW = "mlflow.parentRunId"
"""The tag with the ID of the run below which MLflow shows a run: its parent, or that of its sweep."""
SWEEP = "matwm.sweep"
"""The tag with the name of the sweep that a trial belongs to."""
SWEEP_RUN = "matwm.sweep_run"
"""The same on the run of a sweep, below which MLflow shows the runs of its trials."""
HEARTBEAT = "matwm.heartbeat"
"""The tag by which the process that trains a run shows that it lives."""
WATERMARK = "matwm.step"
"""The tag with the step up to which a run has all training points; written after them."""
NOT_TRAINED = "not trained yet"
UNKNOWN = "not known here"
NUMBER = re.compile(r"[0-9]{1,12}")


def git_of(tags: Mapping[str, str]) -> dict[str, Any]:
    """Return the code that a run's tags name: `commit`, `dirty` and `code`, the digest of the source files; None for what is not known."""
    dirty = {"true": True, "false": False}.get(tags.get("matwm.git_dirty", ""))
    return {"commit": tags.get("matwm.git_commit"), "dirty": dirty, "code": tags.get("matwm.code")}


@dataclass(frozen=True)
class Beat:
    """What the tag `HEARTBEAT` holds: who owns the run, when it last said so, and after which silence it may be taken for dead."""

    owner: str
    time_ms: int
    quiet_ms: int

    def __str__(self) -> str:
        return f"{self.owner} {self.time_ms} {self.quiet_ms}"

    @property
    def age_seconds(self) -> float:
        """How long ago that was, by this machine's clock."""
        return time.time() - self.time_ms / 1000

    @property
    def is_silent(self) -> bool:
        """Whether the owner may be taken for dead."""
        return self.age_seconds * 1000 > self.quiet_ms


@dataclass
class Run:
    """One training of a segment.

    `pipeline.runs` fills it with what MLflow knows; `pipeline.catalog` merges what git and the work directory record, and what params.yaml
    says of it. Besides trained runs there are two kinds with nothing recorded: a segment of params.yaml that is not trained yet, and a run
    that is known only as the parent of another.
    """

    run_id: str | None = None
    """None if it is trained without MLflow, or not at all."""
    segment: str | None = None
    key: str | None = None
    """Which training it is, whatever the segment is called."""
    experiment: str | None = None
    status: str | None = None
    """MLflow's, None where it does not know the run."""
    step: int = 0
    """The furthest step that is known to be reached."""
    until: int | None = None
    parent_run_id: str | None = None
    parent_step: int | None = None
    """The step of the checkpoint that it starts from, None at a root."""
    parent_digest: str | None = None
    artifact_uri: str | None = None
    """Where MLflow keeps its artifacts, None where it does not know the run."""
    tags: Mapping[str, str] = field(default_factory=dict, repr=False)
    metrics: frozenset[str] = field(default=frozenset(), repr=False)
    """Keys of its metrics in MLflow."""
    started_ms: int = 0
    ended_ms: int | None = None
    """None while it runs."""
    last_sign_ms: int = 0
    """When it began, or the time of its heartbeat in MLflow: it was alive then."""
    started: str | None = None
    finished: str | None = None
    resumed_at: list[int] = field(default_factory=list)
    git: dict[str, Any] = field(default_factory=dict, repr=False)
    """`commit`, `dirty` and `code`, the digest of the source files."""
    numerics: int | None = None
    machine: dict[str, Any] = field(default_factory=dict, repr=False)
    """`libraries`, `device` and `threads`."""
    record: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """`metrics/<segment>/run.json`, if it is this run's."""
    evaluation: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """`metrics/<segment>/evaluation.json`, if it is this run's."""
    published: Path | None = None
    """`checkpoints/<segment>`, present or not, if git says that this run made it."""
    work: Path | None = None
    owner: str | None = None
    """By which name the work directory's last process has trained it."""
    pending: frozenset[int] = frozenset()
    """Steps whose checkpoints wait in the work directory for their upload."""
    is_current: bool = False
    """Whether params.yaml describes this very training under the segment's name."""
    is_imported: bool = False
    """Whether a segment of params.yaml starts from a checkpoint of it under `imports/`."""
    former_id: str | None = None
    """The ID by which git or its children know it where MLflow has it under another one."""
    unknown_as: str | None = None
    """What a run that only its children know is called, if they do not know its ID."""

    @property
    def id(self) -> str:
        """The run's ID, else a name that no other run has."""
        if self.run_id or self.unknown_as:
            return self.run_id or str(self.unknown_as)
        return f"{self.segment}:{self.key[:12]}" if self.key else f"segment {self.segment}"

    def is_called(self, text: str) -> bool:
        """Return whether one of its IDs begins with this text."""
        return bool(text) and (self.id.startswith(text) or (self.former_id or "").startswith(text))

    @property
    def name(self) -> str:
        """What people call it."""
        if self.is_recorded and self.run_id:
            return f"{self.segment or 'run'} ({self.run_id[:12]})"
        return self.segment or self.id[:12]

    @property
    def is_recorded(self) -> bool:
        """Whether MLflow, git or a work directory here knows it."""
        return self.status is not None or self.published is not None or self.work is not None

    @property
    def is_live(self) -> bool:
        """Whether a process trains it: here, which has the lock then, or as MLflow says, on a machine that has gone on with it since."""
        if self.work is not None and is_held(self.work / "lock"):
            return True
        beat = self.heartbeat
        return self.status == "RUNNING" and (beat is None or beat.owner != self.owner)

    @property
    def heartbeat(self) -> Beat | None:
        """The last heartbeat in MLflow, None if there is none that can be read."""
        found = re.fullmatch(r"(\w+) (\d{1,15}) (\d{1,15})", self.tags.get(HEARTBEAT, ""))
        return Beat(found[1], int(found[2]), int(found[3])) if found else None

    @property
    def state(self) -> str:
        """FINISHED, RUNNING, KILLED or FAILED, where a dead process counts as killed; or why there is nothing to say."""
        if not self.is_recorded:
            return NOT_TRAINED if self.is_current else UNKNOWN
        if self.is_live:
            return "RUNNING"
        if self.status in ("FINISHED", "FAILED", "KILLED"):
            return self.status
        if self.published is not None or (self.status is None and self.finished):
            return "FINISHED"
        return "KILLED" if self.status in (None, "RUNNING") else self.status

    @property
    def began(self) -> float:
        """When it began, in seconds since 1970; 0 if nobody knows."""
        if self.started_ms:
            return self.started_ms / 1000
        try:
            return datetime.fromisoformat(self.started or "").timestamp()
        except ValueError:
            return 0.0

    @property
    def changed(self) -> dict[str, str]:
        """What it changed against its parent as MLflow's tags say it, by path: `before -> after`."""
        return {tag.removeprefix(CHANGED): text for tag, text in self.tags.items() if tag.startswith(CHANGED)}

    @property
    def pins(self) -> dict[int, str]:
        """The steps whose checkpoints are pinned, each with the note."""
        pinned = {places.step_of(tag.removeprefix(PIN)): note for tag, note in self.tags.items() if tag.startswith(PIN)}
        return {step: note for step, note in pinned.items() if step is not None}


def moment(milliseconds: int | None) -> str | None:
    """Return one of MLflow's times as text, to the second in UTC; None if it has none."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds") if milliseconds else None


def number(text: str | None) -> int | None:
    """Return the whole number that a tag holds, None if it holds something else: anybody can write tags."""
    return int(text) if text and NUMBER.fullmatch(text) else None
