"""Says in a few lines what a `matwm repro` came to: what was trained, how well it plays, where to look, what to type next."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from matwm.checkpoint import CheckpointError, read_manifest
from matwm.types import role_of
from pipeline import project as places
from pipeline.metrics.best import NOT_MODES
from pipeline.params.segments import ResolvedSegment

FEW = 4
"""Segments that are described; the others are counted."""
LEARNED, SELF_PLAY, RANDOM, STILL = "learned", "self_play", "random", "still"
"""What evaluation.json calls who plays."""


def recorded(project: Path) -> dict[str, Any]:
    """Return what git has of each segment's run and evaluation, to be compared later."""
    return {name: (record, _evaluation(project, name)) for name, record in places.run_records(project).items()}


def outcome(project: Path, graph: Mapping[str, ResolvedSegment], before: Mapping[str, Any]) -> str:
    """Return the lines; `before` is what was `recorded` when it began."""
    now = recorded(project)
    trained = [name for name in graph if name in now and now[name][0] != before.get(name, ({},))[0]]
    judged = [name for name in graph if name in now and now[name] != before.get(name)]
    lines = [line for name in trained[-FEW:] for line in _trained(project, graph[name])]
    if len(trained) > FEW:
        lines.insert(0, f"{len(trained) - FEW} segments more are trained: matwm tree")
    if not trained:
        lines.append("nothing was to be trained" if set(graph) <= set(now) else "nothing was trained")
    shown = judged[-FEW:] or [name for name in graph if name in now][-1:]
    lines += [f"{name}: {line}" for name in shown for line in _results(_evaluation(project, name), graph[name].until)]
    if plots := [str(path.relative_to(project)) for name in shown for path in _plots(project, name)]:
        lines.append(f"plots: {', '.join(plots)}")
    if shown:
        last = graph[shown[-1]]
        lines.append(f"next:  matwm tree; matwm ui; matwm continue {last.name}@final --until {2 * last.until}")
    return "".join(f"{line}\n" for line in ["", *lines])


def _trained(project: Path, segment: ResolvedSegment) -> Iterator[str]:
    try:
        checkpoint = read_manifest(places.published_folder(project, segment.name) / places.step_folder(segment.until))
    except CheckpointError as error:
        yield str(error)
        return
    began = f"{segment.origin.folder}, " if segment.origin.step else ""
    yield f"{segment.name}: trained from {began}step {segment.origin.step} to {segment.until}, fingerprint {checkpoint.fingerprint}"


def _results(evaluation: Mapping[str, Any], step: int) -> Iterator[str]:
    """Yield a line for each role: its mean return beside that of random play, and of the best script, against the same opponents.

    Nothing of an evaluation of another step: the segment was trained on, and not evaluated since.
    """
    if evaluation.get("step") != step:
        return
    try:
        mode = next(name for name in evaluation if name not in NOT_MODES)
        references, found = evaluation["references"], evaluation[mode]
        for matchup, agents in found.items():
            sides = [RANDOM] if matchup == SELF_PLAY else matchup.split("_v_")
            if {*sides} - {LEARNED, RANDOM} or (matchup == SELF_PLAY and RANDOM not in references):
                continue
            place = sides.index(RANDOM) if matchup == SELF_PLAY else sides.index(LEARNED)
            rivals = {tactic: key for key in references if (tactic := _instead(key.split("_v_"), sides, place))}
            for role in dict.fromkeys(map(role_of, agents)):
                mean = fmean(one["mean"] for agent, one in agents.items() if role_of(agent) == role)
                others = {tactic: references[key][role]["mean"] for tactic, key in rivals.items()}
                against = f" against {RANDOM}" if len(sides) > 1 else ""
                yield f"{role}{against}: {mean:.2f} learned, {_beside(others)} (mean return of an agent, {mode})"
    except (AttributeError, KeyError, StopIteration, TypeError, ValueError):
        return  # There is none, or it was edited: `metrics/` is git's.


def _instead(tactics: list[str], sides: list[str], place: int) -> str | None:
    """Return who plays at a place in a match-up of scripts, None if the others are not those of `sides`."""
    fits = len(tactics) == len(sides) and all(one == other for n, (one, other) in enumerate(zip(tactics, sides, strict=True)) if n != place)
    return tactics[place] if fits else None


def _beside(others: Mapping[str, float]) -> str:
    scripts = {tactic: mean for tactic, mean in others.items() if tactic not in (RANDOM, STILL)}
    parts = [f"{others[RANDOM]:.2f} {RANDOM}"]
    if scripts:
        best = max(scripts, key=lambda tactic: scripts[tactic])
        parts.append(f"{scripts[best]:.2f} best script ({best})")
    return ", ".join(parts)


def _plots(project: Path, name: str) -> list[Path]:
    """Return the folders that hold pictures of a segment."""
    return [folder for folder in (project / "plots/lineage" / name, project / "plots" / name) if folder.is_dir() and any(folder.iterdir())]


def _evaluation(project: Path, name: str) -> dict[str, Any]:
    return places.read_json(places.metrics_folder(project, name) / "evaluation.json") or {}
