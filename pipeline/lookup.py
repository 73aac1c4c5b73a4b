"""Finds a run by the beginning of its ID and its checkpoints by step: in this graph first, in MLflow otherwise."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from matwm.checkpoint import Checkpoint, CheckpointError, open_checkpoint, read_manifest
from matwm.config import ConfigError
from matwm.manifest import MANIFEST, ROOT
from matwm.params_yaml import read_params
from pipeline import project as places
from pipeline import stores, tracking
from pipeline.metrics import best
from pipeline.project import ProjectError
from pipeline.segments import ResolvedSegment, resolve_all
from pipeline.wording import few

STEP = re.compile(r"[0-9]{1,12}")
REFERENCE = "RUN|SEGMENT[@STEP]"
REFERENCE_HELP = "beginning of a run's ID, or a segment; STEP is a number, latest (default) or final"


@dataclass
class Run:
    """A run that this graph or MLflow knows."""

    run_id: str
    segment: str | None
    status: str
    step: int
    parent_run_id: str | None = None
    parent_step: int | None = None
    published: dict[int, Path] = field(default_factory=dict)
    """Checkpoints of this graph by step, present only while params.yaml still describes this very training."""
    is_in_mlflow: bool = False
    info: tracking.RunInfo | None = field(default=None, repr=False)
    """What MLflow knows, None if this is a clone and only git knows the run."""
    evaluation: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What `metrics/<segment>/evaluation.json` says of this very run."""

    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What `metrics/<segment>/run.json` says of this very run."""
    is_current: bool = False
    """Whether it is the training that params.yaml describes under the segment's name, finished or not."""

    @cached_property
    def best(self) -> best.Best | None:
        """The run's best evaluation: over its own steps, the highest mean over learned agents and match-ups of the first mode.

        Raises:
            TrackingError: MLflow does not answer.
        """
        judged = best.keys(self.info.metrics, self.info.tags.get(best.MODES_TAG)) if self.info else None
        if judged is None:
            return best.of_record(self.evaluation)
        return best.of_history(judged[0], tracking.metric_history(self.run_id, keys=judged[1]), self.parent_step or 0)

    @property
    def started(self) -> float:
        """When it began, in seconds since 1970; 0 if nobody knows."""
        if self.info:
            return self.info.started_ms / 1000
        try:
            return datetime.fromisoformat(self.facts.get("started") or "").timestamp()
        except (ValueError, TypeError):
            return 0.0

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint somewhere, ascending."""
        there = set(stores.MlflowStore().steps(self.run_id)) if self.is_in_mlflow else set()
        return sorted(there | set(self.published))


def known_runs(project: Path, graph: Mapping[str, ResolvedSegment]) -> tuple[list[Run], str | None]:
    """Return all runs, newest first, and why MLflow was of no help, if so."""
    trouble = None
    found: dict[str, Run] = {}
    try:
        for info in tracking.list_runs():
            found[info.run_id] = Run(
                info.run_id, info.segment, info.status, info.step, info.parent_run_id, info.parent_step, is_in_mlflow=True, info=info
            )
            found[info.run_id].is_current = _has_key(graph.get(info.segment or ""), info.key, info.tags.get("matwm.parent_digest"))
    except tracking.TrackingError as error:
        trouble = str(error)
    for name, facts in places.run_records(project).items():
        if not facts.get("run_id"):
            continue
        metrics = places.metrics_folder(project, name)
        run = found.setdefault(facts["run_id"], _recorded(facts, places.read_json(metrics / "train.json") or {}))
        run.evaluation, run.facts = places.read_json(metrics / "evaluation.json") or {}, facts
        if _is_current(project, graph, name):
            folder, run.is_current = places.published_folder(project, name), True
            steps = [step for step in places.steps_in(folder) if step <= graph[name].until]
            run.published = {step: folder / places.step_folder(step) for step in steps}
            run.step = max(run.step, *run.published, 0)
    return sorted(found.values(), key=lambda run: run.started, reverse=True), trouble


def runs_of(project: Path) -> tuple[list[Run], str | None]:
    """Return what `known_runs` does, also with a params.yaml that is being edited: only what it describes is then not recognised."""
    tracking.configure(project)
    try:
        graph = resolve_all(read_params(project / places.PARAMS), project)
    except ConfigError:
        graph = {}
    return known_runs(project, graph)


def find(prefix: str, runs: list[Run], trouble: str | None) -> Run:
    """Return the newest run of the segment of that name, one that params.yaml describes first; else the one whose ID begins so.

    Raises:
        ProjectError: there is none, or more than one; the message names what there is.
    """
    named = [run for run in runs if prefix and run.segment == prefix]
    named = sorted(named, key=lambda run: (bool(run.published), run.is_current), reverse=True)[:1]
    matching = named or [run for run in runs if prefix and run.run_id.startswith(prefix)]
    if len(matching) == 1:
        return matching[0]
    excuse = f" ({trouble})" if trouble else ""
    if matching:
        raise ProjectError(f"{len(matching)} runs begin with {prefix!r}: {_listed(matching)}: give more of the ID{excuse}")
    raise ProjectError(f"no run begins with {prefix!r}; there {'is' if len(runs) == 1 else 'are'} {_listed(runs)}{excuse}")


def choose_step(run: Run, wanted: str) -> int:
    """Return a step that the run has: a number, `latest`, or `final` for the end of a finished run.

    Raises:
        ProjectError: it has no such step; the message names those it has.
    """
    return chosen(wanted, run.steps(), f"run {run.run_id[:12]} ({run.segment})", run.status)


def chosen(wanted: str, steps: Sequence[int], who: str, state: str) -> int:
    """Return the step that a word stands for (see `choose_step`), of those that there are, ascending; `who` has them and is in `state`.

    Raises:
        ProjectError: there is no such step.
    """
    has = f"it has {places.named(steps) or 'no checkpoint'}"
    if wanted == "final" and state != "FINISHED":
        raise ProjectError(f"{who} is {state}, so it has no final step; {has}")
    if wanted in ("latest", "final"):
        if not steps:
            raise ProjectError(f"{who} has no checkpoint: it is {state}")
        return steps[-1]
    if not STEP.fullmatch(wanted):
        raise ProjectError(f"{wanted!r} is no step: use a number, latest or final; {who}: {has}")
    if int(wanted) not in steps:
        raise ProjectError(f"{who} has no checkpoint of step {int(wanted)}; {has}")
    return int(wanted)


def bring(run: Run, step: int, scratch: Path) -> Checkpoint:
    """Return a run's checkpoint, verified: the published one, else MLflow's in a folder below `scratch`.

    Raises:
        CheckpointError, TrackingError: it is damaged (the message names the file) or cannot be had.
    """
    if step in run.published:
        return open_checkpoint(run.published[step])
    return stores.MlflowStore().pull(run.run_id, step, scratch)


def split_reference(text: str) -> tuple[str, str]:
    """Return run and step of `RUN@STEP`; without a step it is the latest.

    Raises:
        ProjectError: there is an @ and no step.
    """
    run, at, step = text.partition("@")
    if at and not step:
        raise ProjectError(f"{text} has no step behind the @: write a number, latest or final, or {run or 'RUN'} alone for the latest")
    return run, step or "latest"


def whole_run(text: str) -> str:
    """Return a reference to a run as a whole.

    Raises:
        ProjectError: it names a step.
    """
    run, at, _ = text.partition("@")
    if at:
        raise ProjectError(f"{text!r} names a step, and this takes a run without one: write {run or 'RUN'}")
    return run


def _recorded(facts: Mapping[str, Any], summary: Mapping[str, Any]) -> Run:
    """Return a run that MLflow here does not know: this is a clone, and git has its facts and what its last step came to."""
    parent = facts.get("parent") or {}
    has_parent = parent.get("run_id") is not None
    step = summary.get("step")
    return Run(
        run_id=facts["run_id"],
        segment=facts.get("segment"),
        status="FINISHED",
        step=step if isinstance(step, int) else 0,
        parent_run_id=parent.get("run_id"),
        parent_step=parent.get("step") if has_parent else None,
    )


def _has_key(segment: ResolvedSegment | None, key: str | None, parent_digest: str | None) -> bool:
    return segment is not None and parent_digest is not None and segment.key(parent_digest) == key


def _is_current(project: Path, graph: Mapping[str, ResolvedSegment], name: str) -> bool:
    """Return whether what git records under a name is the training that params.yaml describes, ancestors included.

    By segment keys: what shapes no training (`retention`, `until`, `tracking`) may have been edited since.
    """
    while name in graph:
        facts = places.run_record(project, name)
        parent, origin = facts.get("parent") or {}, graph[name].origin
        if not _has_key(graph[name], facts.get("key"), parent.get("digest")) or parent.get("step") != origin.step:
            return False
        if origin.segment is None:
            return origin.folder != places.ROOT_CHECKPOINT or parent["digest"] == ROOT.digest
        if not _may_be(project / origin.folder, parent["digest"]):
            return False
        name = origin.segment
    return False


def _may_be(folder: Path, digest: str) -> bool:
    """Return whether a folder holds the checkpoint of a digest, as far as that can be known: a clone may not have it yet."""
    try:
        return not (folder / MANIFEST).is_file() or read_manifest(folder).digest == digest
    except CheckpointError:
        return False


def _listed(runs: list[Run]) -> str:
    return few([f"{run.run_id[:12]} ({run.segment}, step {run.step}, {run.status})" for run in runs], at_most=8) or "none"
