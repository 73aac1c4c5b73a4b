"""Collects what is recorded of every run: in git (metrics/<segment>/run.json), in work directories, in MLflow."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline import lookup, runs, tracking
from pipeline import project as places
from pipeline.metrics.best import Best
from pipeline.process import is_held


@dataclass
class Facts:
    """What is known of one run, wherever that is recorded."""

    segment: str
    key: str | None = None
    run_id: str | None = None
    parent_run: str | None = None
    parent_step: int | None = None
    parent_digest: str | None = None
    status: str | None = None
    """MLflow's, None where it does not know the run."""
    step: int = 0
    """The furthest step that is known to be reached."""
    until: int | None = None
    changed: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    git: dict[str, Any] = field(default_factory=dict)
    """`commit`, `dirty` and `code`, the digest of the source files."""
    numerics: int | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    """`libraries`, `device` and `threads`."""
    started: str | None = None
    finished: str | None = None
    resumed_at: list[int] = field(default_factory=list)
    published: Path | None = None
    """`checkpoints/<segment>`, present or not, if git says that this run made it."""
    work: Path | None = None
    evaluation: dict[str, Any] = field(default_factory=dict, repr=False)
    """What `metrics/<segment>/evaluation.json` says of it."""
    info: tracking.RunInfo | None = field(default=None, repr=False)
    """What MLflow knows, None if it does not know the run."""

    @property
    def id(self) -> str:
        """The run's ID, else (trained without MLflow) segment and key."""
        return self.run_id or f"{self.segment}:{(self.key or '')[:12]}"

    @property
    def record(self) -> Path | None:
        """`metrics/<segment>/run.json`, if it is this run's."""
        return self.published and self.published.parents[1] / "metrics" / self.segment / "run.json"

    def best(self) -> Best | None:
        """Return its best evaluation.

        Raises:
            TrackingError: MLflow does not answer.
        """
        start = self.parent_step
        return lookup.Run(self.id, self.segment, self.state, self.step, parent_step=start, info=self.info, evaluation=self.evaluation).best

    @property
    def state(self) -> str:
        """FINISHED, RUNNING, KILLED or FAILED; a process that died without a word counts as killed."""
        if self.work is not None and is_held(self.work / "lock"):
            return "RUNNING"
        if self.status in ("FINISHED", "FAILED", "KILLED"):
            return self.status
        if self.published is not None or (self.status is None and self.finished):
            return "FINISHED"
        return "KILLED" if self.work is not None or self.status is None else self.status


def collect(project: Path) -> tuple[list[Facts], str | None]:
    """Return all runs, oldest first as far as that is known, and why MLflow was of no help, if so."""
    tracking.configure(project)
    found: dict[str, Facts] = {}
    trouble = None
    try:
        runs.knock()
        for info in reversed(tracking.list_runs()):
            found[info.run_id] = _from_mlflow(info)
    except tracking.TrackingError as error:
        trouble = str(error)
    for work in places.work_folders(project, "run.json"):
        _add_work(found, work)
    for segment, record in places.run_records(project).items():
        _add_record(found, project, segment, record)
    return list(found.values()), trouble


def _from_mlflow(info: tracking.RunInfo) -> Facts:
    tags = info.tags
    machine = {"device": tags["matwm.device"]} if "matwm.device" in tags else {}
    machine |= {"libraries": {"torch": tags["matwm.torch"]}} if "matwm.torch" in tags else {}
    dirty = {"true": True, "false": False}.get(tags.get("matwm.git_dirty", ""))
    return Facts(
        segment=info.segment or info.name,
        key=info.key,
        run_id=info.run_id,
        parent_run=info.parent_run_id,
        parent_step=info.parent_step,
        parent_digest=tags.get("matwm.parent_digest"),
        status=info.status,
        step=info.step,
        until=runs.number(tags.get("matwm.until")),
        changed={path: _two_values(text) for path, text in info.changed.items()},
        git={"commit": tags.get("matwm.git_commit"), "dirty": dirty, "code": tags.get("matwm.code")},
        numerics=runs.number(tags.get("matwm.numerics")),
        machine=machine,
        started=runs.moment(info.started_ms),
        finished=runs.moment(info.ended_ms),
        info=info,
    )


def _add_work(found: dict[str, Facts], work: Path) -> None:
    record = places.read_json(work / "run.json")
    if record is None or not isinstance(record.get("segment"), str) or not isinstance(record.get("key"), str):
        return
    facts = _known(found, record)
    facts.work = work
    facts.machine = _mapping(record.get("machine")) or facts.machine
    facts.started = _text(record.get("started")) or facts.started
    facts.finished = _text(record.get("finished")) or facts.finished
    facts.resumed_at = _steps(record.get("resumed_at"))
    facts.step = max(facts.step, *places.steps_in(work / "checkpoints"), 0)
    if facts.parent_digest is None:
        _take_parent(facts, work / "checkpoints")


def _add_record(found: dict[str, Facts], project: Path, segment: str, record: Mapping[str, Any]) -> None:
    if not isinstance(record.get("key"), str):
        return
    facts = _known(found, {**record, "segment": segment})
    metrics, parent = places.metrics_folder(project, segment), _mapping(record.get("parent"))
    facts.published = places.published_folder(project, facts.segment)
    facts.step = max(facts.step, *places.steps_in(facts.published), _summary_step(metrics), 0)
    facts.parent_run, facts.parent_digest = _text(parent.get("run_id")), _text(parent.get("digest"))
    facts.parent_step = next(iter(_steps([parent.get("step")])), None) or None
    facts.git, facts.numerics = _mapping(record.get("git")), record.get("numerics")
    facts.machine = {"libraries": _mapping(record.get("libraries")), "device": record.get("device"), "threads": record.get("threads")}
    facts.started, facts.finished = _text(record.get("started")), _text(record.get("finished"))
    facts.resumed_at = _steps(record.get("resumed_at"))
    facts.evaluation = places.read_json(metrics / "evaluation.json") or {}


def _known(found: dict[str, Facts], record: Mapping[str, Any]) -> Facts:
    facts = Facts(record["segment"], record["key"], _text(record.get("run_id")))
    return found.setdefault(facts.id, facts)


def _take_parent(facts: Facts, checkpoints: Path) -> None:
    """Learn from a manifest where a run began that MLflow does not know; the manifest is looked into, not verified."""
    for step in places.steps_in(checkpoints):
        parent = _mapping((places.read_json(checkpoints / places.step_folder(step) / "manifest.json") or {}).get("parent"))
        if parent:
            facts.parent_step, facts.parent_digest = next(iter(_steps([parent.get("step")])), None) or None, _text(parent.get("digest"))
            return


def _summary_step(metrics: Path) -> int:
    """Return the step that a segment's curves end at: a clone has them before the checkpoints."""
    step = (places.read_json(metrics / "train.json") or {}).get("step")
    return step if isinstance(step, int) else 0


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _steps(value: Any) -> list[int]:
    return [step for step in value if type(step) is int] if isinstance(value, list) else []


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _two_values(text: str) -> tuple[Any, Any]:
    before, _, after = text.partition(" -> ")
    return _value(before), _value(after)


def _value(text: str) -> Any:
    if {"&", "*", "!"} & set(text):  # an alias can stand for more than any terminal holds
        return text
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        return text
