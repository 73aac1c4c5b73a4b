"""Merges what is recorded of runs: in MLflow, in work directories, in git (`metrics/<segment>/run.json`)."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline import project as places
from pipeline.run import Run, number


def merged(project: Path, runs: Iterable[Run]) -> list[Run]:
    """Return one Run for each training that MLflow (`runs`, newest first), a work directory or git knows, newest first."""
    merge = _Merge(project, runs)
    for work in places.work_folders(project):
        merge.add_work(work)
    for segment, record in places.run_records(project).items():
        merge.add_record(segment, record)
    former: dict[str | None, str] = {run.former_id: run.id for run in merge.runs.values() if run.former_id}
    for run in merge.runs.values():
        run.parent_run_id = former.get(run.parent_run_id, run.parent_run_id)
    return sorted(merge.runs.values(), key=lambda run: run.began, reverse=True)


def in_work(work: Path) -> Run:
    """Return the run of a work directory, as that alone knows it.

    Raises:
        ProjectError: it is none.
    """
    facts = _work_facts(work)
    if facts is None:
        raise places.ProjectError(f"{work} is no work directory of a segment: it has no run.json with a key")
    return Run(_text(facts.get("run_id")), facts["segment"], facts["key"], work=work)


class _Merge:
    """Finds the run that a record belongs to: by its ID, else by segment and key, which say what is trained."""

    def __init__(self, project: Path, runs: Iterable[Run]) -> None:
        self.project = project
        self.runs: dict[str, Run] = {}
        self._by_key: dict[tuple[str | None, str | None], Run] = {}
        for run in runs:
            self._add(run)

    def add_work(self, work: Path) -> None:
        """Merge what a work directory says."""
        facts, checkpoints = _work_facts(work), places.steps_in(work / "checkpoints")
        if facts is None and not checkpoints:
            return
        run = self._known(_text(facts.get("run_id")), facts["segment"], facts["key"]) if facts else self._add(Run(unknown_as=work.name))
        run.work = work
        run.step = max(run.step, *checkpoints, 0)
        if facts:
            run.owner = _text(facts.get("owner"))
            run.pending = frozenset(checkpoints) - {*_steps(facts.get("checkpoints")), *_steps(facts.get("refused"))}
            run.machine = _mapping(facts.get("machine")) or run.machine
            run.started = _text(facts.get("started")) or run.started
            run.finished = _text(facts.get("finished")) or run.finished
            run.resumed_at = _steps(facts.get("resumed_at"))
            tags = {name: tag for name, tag in _mapping(facts.get("tags")).items() if isinstance(tag, str)}
            run.numerics = run.numerics or number(tags.get("matwm.numerics"))
            if run.parent_digest is None and "matwm.parent_digest" in tags:
                run.parent_digest, run.parent_step = tags["matwm.parent_digest"], number(tags.get("matwm.parent_step"))
        if run.parent_digest is None:
            _take_parent(run, work / "checkpoints", checkpoints)

    def add_record(self, segment: str, record: Mapping[str, Any]) -> None:
        """Merge what git says of the run that made `checkpoints/<segment>`; it is the last word on everything but the parent's ID."""
        if "key" not in record:
            return
        run = self._known(record.get("run_id"), segment, record["key"])
        metrics, parent = places.metrics_folder(self.project, segment), record.get("parent", {})
        run.record, run.published = record, places.published_folder(self.project, segment)
        run.step = max(run.step, *places.steps_in(run.published), _summary_step(metrics), 0)
        run.parent_run_id, run.parent_digest, run.parent_step = parent.get("run_id"), parent.get("digest"), parent.get("step") or None
        run.git, run.numerics = record.get("git", {}), record.get("numerics")
        run.machine = {"libraries": record.get("libraries", {}), "device": record.get("device"), "threads": record.get("threads")}
        run.started, run.finished = record.get("started"), record.get("finished")
        run.resumed_at = record.get("resumed_at", [])
        run.evaluation = places.read_json(metrics / "evaluation.json") or {}

    def _known(self, run_id: str | None, segment: str, key: str) -> Run:
        if run_id is None:
            return self._by_key.get((segment, key)) or self._add(Run(None, segment, key))
        if run_id in self.runs:
            return self.runs[run_id]
        same = self._by_key.get((segment, key))
        if same is None or same.run_id is None:
            return self._add(Run(run_id, segment, key))
        same.former_id = same.former_id or run_id  # It was imported, or its store was lost and is rebuilt.
        return same

    def _add(self, run: Run) -> Run:
        self.runs[run.id] = run
        self._by_key.setdefault((run.segment, run.key), run)
        return run


def _work_facts(work: Path) -> dict[str, Any] | None:
    facts = places.read_json(work / "run.json")
    return facts if facts and isinstance(facts.get("segment"), str) and isinstance(facts.get("key"), str) else None


def _take_parent(run: Run, checkpoints: Path, steps: Iterable[int]) -> None:
    """Learn from a manifest where a run began that MLflow does not know; the manifest is looked into, not verified."""
    for step in steps:
        parent = _mapping((places.read_json(checkpoints / places.step_folder(step) / "manifest.json") or {}).get("parent"))
        if parent:
            run.parent_step, run.parent_digest = next(iter(_steps([parent.get("step")])), None) or None, _text(parent.get("digest"))
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
