"""Finds the segments whose training another version of `NUMERICS` has done: their keys have changed, and a stage would begin again."""

from collections.abc import Mapping
from pathlib import Path

from matwm.manifest import ROOT
from matwm.version import NUMERICS
from pipeline import project as places
from pipeline.catalog.current import may_be, parents_first
from pipeline.catalog.sources import merged
from pipeline.keys import segment_key
from pipeline.params.segments import ResolvedSegment
from pipeline.run import Run
from pipeline.wording import few

RETRAINS = "MATWM_RETRAINS"
"""In the environment of stages: somebody asked for segments to be trained again, by this version of the numerics too."""


def of_other_numerics(project: Path, graph: Mapping[str, ResolvedSegment]) -> dict[str, Run]:
    """Return the segments of which git or a work directory has checkpoints of another version, but no training by this one.

    Only that version differs: what is described otherwise by now, or starts from another checkpoint, is trained again for that reason.
    """
    known: dict[str | None, list[Run]] = {}
    for run in merged(project, ()):
        known.setdefault(run.segment, []).append(run)
    found: dict[str, Run] = {}
    for name in parents_first(graph):
        segment = graph[name]
        if segment.origin.segment and segment.origin.segment not in found:
            continue
        made = [run for run in known.get(name, []) if _is_described(project, segment, run)]
        trained = max(made, key=lambda run: run.step, default=None)
        if trained and trained.step > segment.origin.step and all(run.numerics != NUMERICS for run in made):
            found[name] = trained
    return found


def refusal(found: Mapping[str, Run]) -> list[str]:
    """Return a sentence if there are segments of another version, which nobody has asked to be trained again."""
    if not found:
        return []
    last, many = list(found.values())[-1], len(found) > 1
    versions = " and ".join(str(version) for version in sorted({int(run.numerics or 0) for run in found.values()}))
    commit = str(last.git.get("commit") or "")[:12]
    named = few([f"{name} (to step {run.step})" for name, run in found.items()], at_most=8)
    return [
        f"segment{'s' * many} {named} {'are' if many else 'is'} trained by NUMERICS {versions}, and this code has {NUMERICS} "
        f"(matwm/version.py), which would train from the start again: nothing is done. To keep the work, branch off it: "
        f'"matwm continue {last.segment} --until N", and take {few(list(found), at_most=8)} out of segments in params.yaml. To train '
        f'again: "matwm repro --retrain". To go on as before: the code that trained it{f", git checkout {commit}" if commit else ""}'
    ]


def _is_described(project: Path, segment: ResolvedSegment, run: Run) -> bool:
    """Return whether a run is what a segment describes, by whatever version of the numerics."""
    if run.numerics is None or run.parent_digest is None or (run.parent_step or 0) != segment.origin.step:
        return False
    if run.key != segment_key(run.numerics, segment.config.shaping(), run.parent_digest):
        return False
    if segment.origin.folder == places.ROOT_CHECKPOINT:
        return run.parent_digest == ROOT.digest
    return may_be(project / segment.origin.folder, run.parent_digest)
