"""Says in what two checkpoints differ: parameters, code, metrics; and where their lineages part."""

from pathlib import Path
from typing import Any

from matwm.checkpoint import Checkpoint
from pipeline import runs, source_code
from pipeline.catalog.catalog import Catalog
from pipeline.metrics import best, words
from pipeline.metrics.points import EVALUATION
from pipeline.metrics.records import LATEST_EPISODES, latest_returns
from pipeline.run import Run


def code_of(run: Run | None, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what is known of the code and the libraries that a checkpoint was trained with."""
    git, machine = (run.git, run.machine) if run else ({}, {})
    return {
        "numerics": checkpoint.manifest["numerics"],
        "commit": git.get("commit"),
        "dirty": git.get("dirty"),
        "code": git.get("code"),
        "device": machine.get("device"),
        "threads": machine.get("threads"),
        **(machine.get("libraries") or {}),
    }


def code_stat(project: Path, first: str | None, second: str | None) -> str | None:
    """Return `git diff --stat` of the code between two commits; None if one of them is not here or not known."""
    if not (first and second and source_code.COMMIT.fullmatch(str(first)) and source_code.COMMIT.fullmatch(str(second))):
        return None
    output = source_code.git_output(project, "diff", "--stat", first, second, "--", "matwm", "pipeline")
    return None if output is None else output.decode(errors="replace").rstrip("\n")  # The first line is indented as the others are.


def metrics_of(catalog: Catalog, run: Run | None, checkpoint: Checkpoint) -> dict[str, float]:
    """Return the last value of every curve by a checkpoint's step, its latest returns, and its evaluation where there is one.

    Raises:
        CheckpointError: its history is damaged.
    """
    past = checkpoint.history()
    values = {name: curve[-1][1] for name, curve in sorted(past.metrics.items()) if len(curve)}
    for agent, mean in latest_returns(past, checkpoint.spec.agents).items():
        values[f"return of {LATEST_EPISODES} episodes/{agent}"] = mean
    return {**values, **_judged(catalog, run, checkpoint.step)}


def _judged(catalog: Catalog, run: Run | None, step: int) -> dict[str, float]:
    """Return the evaluation of a step: from MLflow, else what git has of a segment's last step."""
    if run is None:
        return {}
    if run.status is not None and run.run_id:
        keys = sorted(key for key in run.metrics if key.startswith(EVALUATION) and not words.is_of_goal(key))
        try:
            points = runs.metric_history(run.run_id, keys=keys)
        except runs.TrackingError as error:
            catalog.note(str(error))
        else:
            return {point.key: point.value for point in sorted(points, key=lambda point: point.timestamp_ms) if point.step == step}
    if run.evaluation.get("step") != step:
        return {}
    returns = {mode: found for mode, found in run.evaluation.items() if mode not in best.NOT_MODES}
    try:
        return {
            f"{EVALUATION}{mode}/{matchup}/{below}{name}": float(summary["mean"])
            for below, modes in (("", returns), (best.METRICS, run.evaluation.get("metrics", {})))
            for mode, matchups in modes.items()
            for matchup, found in matchups.items()
            for name, summary in found.items()
            if mode != "references"
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        catalog.note(f"metrics/{run.segment}/evaluation.json is damaged: it is left out")
        return {}


def common_ancestor(catalog: Catalog, first: tuple[Run | None, int], second: tuple[Run | None, int]) -> tuple[Run | None, int]:
    """Return the run and step up to which two lineages are one; no run and step 0 is the root."""
    one, other = _reached(catalog, *first), _reached(catalog, *second)
    for run_id, step in reversed(one.items()):
        if run_id in other:
            return catalog.lineage.runs[run_id], min(step, other[run_id])
    return None, 0


def _reached(catalog: Catalog, run: Run | None, step: int) -> dict[str, int]:
    """Return the step at which a lineage leaves each run on its way, oldest first."""
    if run is None:
        return {}
    line = catalog.lineage.ancestors(run)
    leaves = [*(child.parent_step or 0 for child in line[1:]), step]
    return {one.id: left for one, left in zip(line, leaves, strict=True)}
