"""Answers which runs there are: merged from MLflow, git and work directories, seen through params.yaml, ordered into a lineage."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from matwm.spelling import close
from pipeline import project as places
from pipeline import runs
from pipeline.catalog.current import Described, current_runs, described, origin, unbroken
from pipeline.catalog.lineage import Lineage
from pipeline.catalog.sources import merged
from pipeline.params.segments import ResolvedSegment
from pipeline.project import ProjectError
from pipeline.run import Run
from pipeline.wording import few


class Catalog:
    """The runs of a project, each source asked at most once.

    With MLflow down, in a clone or with a broken params.yaml it answers as much as can be known.
    """

    def __init__(self, project: Path, *, asks_mlflow: bool = True) -> None:
        """Without `asks_mlflow` it is a catalog of what git and the work directories record."""
        self.project, self._asks_mlflow = project, asks_mlflow
        self.mlflow_error: runs.TrackingError | None = None
        """Why MLflow was of no help, None if it was, or was not asked."""
        self._trouble: list[str] = []

    @property
    def trouble(self) -> list[str]:
        """Sentences that say what could not be asked."""
        asked = [str(self.mlflow_error)] if self.mlflow_error else []
        return [*asked, *([self.params.trouble] if self.params.trouble else []), *self._trouble]

    def note(self, trouble: str) -> None:
        """Add a sentence to `trouble`."""
        if trouble not in self._trouble:
            self._trouble.append(trouble)

    @cached_property
    def params(self) -> Described:
        """What params.yaml says."""
        return described(self.project)

    @cached_property
    def lineage(self) -> Lineage:
        """All runs, the segments that are not trained yet, and the runs that only their children know, in a tree."""
        return self._lineage(self._asked())

    def all(self) -> list[Run]:
        """Return every run that is recorded anywhere, newest first."""
        return _recorded(self.lineage.runs.values())

    def recent(self, number: int) -> list[Run]:
        """Return the newest runs; of MLflow, no more than so many are asked for."""
        return _recorded(self._lineage(self._asked(number)).runs.values())[:number]

    def by_key(self, key: str, segment: str) -> Run | None:
        """Return the newest run of a segment with a key that MLflow knows; it is asked for that one alone.

        Raises:
            TrackingError: MLflow does not answer.
        """
        runs.configure(self.project)
        runs.ping()
        return runs.find_by_key(segment, key)

    def find(self, text: str) -> Run:
        """Return the run that a segment's name or the beginning of a run's ID stands for.

        A name stands for what params.yaml describes, else for the run that git records under it, else for the newest of that name. If none
        is trained it stands for the segment of params.yaml; a run that only its children know is found by its ID, too.

        Raises:
            ProjectError: there is none, or more than one; the message names what there is.
        """
        known = self.all()
        others = [run for run in self.lineage.runs.values() if not run.is_recorded]
        named = [run for run in known if text and run.segment == text]
        named = sorted(named, key=lambda run: (run.is_current, run.published is not None), reverse=True)
        named = named or [run for run in others if text and run.segment == text]
        matching = named[:1] or [run for run in [*known, *others] if run.is_called(text)]
        if len(matching) == 1:
            return matching[0]
        excuse = f" ({'; '.join(self.trouble)})" if self.trouble else ""
        if matching:
            raise ProjectError(f"{len(matching)} runs begin with {text!r}: {_listed(matching)}: give more of the ID{excuse}")
        there = [*known, *others]
        meant = close(text, list(dict.fromkeys(str(run.segment) for run in there if run.segment)))
        ending = f"{', did you mean ' + meant[0] + '?' if meant else ';'} there {'is' if len(there) == 1 else 'are'} {_listed(there)}"
        raise ProjectError(f"no run begins with {text!r}{ending}{excuse}")

    def parent(self, run: Run) -> Run | None:
        """Return the run whose checkpoint a run starts from, None at a root."""
        return self.lineage.parent(run)

    def planned(self, run: Run) -> ResolvedSegment | None:
        """Return the segment of params.yaml that describes this very training, None if none does or params.yaml is not valid."""
        return self.params.graph.get(str(run.segment)) if run.is_current else None

    def changes(self, run: Run) -> dict[str, tuple[Any, Any]]:
        """Return what a run changed against its parent, by path: (before, after)."""
        planned = self.planned(run)
        if planned is not None:
            return {change.path: (change.before, change.after) for change in planned.changed}
        return {path: _two_values(text) for path, text in run.changed.items()}

    def startable(self, run: Run) -> dict[int, Path]:
        """Return the checkpoints in `checkpoints/` by step that a segment can start from as this run's: params.yaml still describes it."""
        planned = self.planned(run)
        if planned is None or run.published is None or run.segment not in self._unbroken:
            return {}
        steps = (step for step in places.steps_in(run.published) if step <= planned.until)
        return {step: run.published / places.step_folder(step) for step in steps}

    @cached_property
    def _unbroken(self) -> set[str]:
        return unbroken(self.params, places.run_records(self.project))

    def _asked(self, at_most: int | None = None) -> list[Run]:
        """Return what MLflow knows, newest first; nothing, with `mlflow_error` set, if it does not answer."""
        if not self._asks_mlflow:
            return []
        runs.configure(self.project)
        try:
            runs.ping()
            return runs.list_runs(at_most=at_most)
        except runs.TrackingError as error:
            self.mlflow_error = error
            return []

    def _lineage(self, known: list[Run]) -> Lineage:
        """Merge, match the runs with params.yaml and give each its parent."""
        found = merged(self.project, known)
        current = current_runs(self.params, found)
        nodes: dict[str, Run] = {}
        for name, entry in self.params.entries.items():  # in the order of params.yaml, then of time
            run = current[name] = current.get(name) or Run(segment=name, parent_step=origin(entry.from_)[2] or None)
            run.is_current, run.until = True, self.params.graph[name].until if name in self.params.graph else entry.until
            nodes[run.id] = run
        for run in reversed(found):
            nodes.setdefault(run.id, run)
        former: dict[str | None, Run] = {run.former_id: run for run in found if run.former_id}
        parents: dict[str, str] = {}
        for run in list(nodes.values()):
            segment, imported, _ = origin(self.params.entries[str(run.segment)].from_) if run.is_current else (None, None, 0)
            if segment in current:
                parents[run.id] = current[segment].id
            elif parent := _parent_of(run, imported):
                parent = former.get(parent.run_id, parent)
                parents[run.id] = nodes.setdefault(parent.id, parent).id
                nodes[parent.id].is_imported |= imported is not None
        return Lineage(nodes.values(), parents)


def _parent_of(run: Run, imported: str | None) -> Run | None:
    """Return the run that a run says it starts from, with nothing else known of it; None if it starts from the root."""
    if imported:
        return Run(imported)
    if not run.parent_step or not (run.parent_run_id or run.parent_digest):
        return None
    if run.parent_run_id:
        return Run(run.parent_run_id)
    return Run(unknown_as=f"the run with step {run.parent_step}, {str(run.parent_digest)[:12]}")


def _recorded(nodes: Iterable[Run]) -> list[Run]:
    """Return the runs among nodes that are recorded anywhere, newest first."""
    return sorted((run for run in nodes if run.is_recorded), key=lambda run: run.began, reverse=True)


def _listed(found: list[Run]) -> str:
    texts = [f"{run.id[:12]} ({run.segment}, step {run.step}, {run.state})" if run.is_recorded else run.id for run in found]
    return few(texts, at_most=8) or "none"


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
