"""Says in what two checkpoints differ: parameters, code, metrics; and where their lineages part."""

from pathlib import Path
from typing import Any

from matwm.checkpoint import Checkpoint
from pipeline import source_code, tracking
from pipeline.lineage import Lineage, Node
from pipeline.metrics import best, words
from pipeline.metrics.journal import EVALUATION
from pipeline.metrics.records import LATEST_EPISODES, latest_returns
from pipeline.params.retention import history_of


def code_of(node: Node | None, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what is known of the code and the libraries that a checkpoint was trained with."""
    facts = node.facts if node else None
    git, machine = (facts.git, facts.machine) if facts else ({}, {})
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


def metrics_of(project: Path, node: Node | None, checkpoint: Checkpoint, trouble: list[str]) -> dict[str, float]:
    """Return the last value of every curve by a checkpoint's step, its latest returns, and its evaluation where there is one.

    Raises:
        CheckpointError: its history is damaged.
    """
    past = history_of(checkpoint)
    values = {name: curve[-1][1] for name, curve in sorted(past.metrics.items()) if len(curve)}
    for agent, mean in latest_returns(past, checkpoint.spec.agents).items():
        values[f"return of {LATEST_EPISODES} episodes/{agent}"] = mean
    return {**values, **_judged(project, node, checkpoint.step, trouble)}


def _judged(project: Path, node: Node | None, step: int, trouble: list[str]) -> dict[str, float]:
    """Return the evaluation of a step: from MLflow, else what git has of a segment's last step."""
    facts = node.facts if node else None
    if facts is None:
        return {}
    if facts.info is not None and facts.run_id:
        keys = sorted(key for key in facts.info.metrics if key.startswith(EVALUATION) and not words.is_of_goal(key))
        try:
            points = tracking.metric_history(facts.run_id, keys=keys)
        except tracking.TrackingError as error:
            trouble.append(str(error))
        else:
            return {point.key: point.value for point in sorted(points, key=lambda point: point.timestamp_ms) if point.step == step}
    if facts.evaluation.get("step") != step:
        return {}
    returns = {mode: found for mode, found in facts.evaluation.items() if mode not in best.NOT_MODES}
    try:
        return {
            f"{EVALUATION}{mode}/{matchup}/{below}{name}": float(summary["mean"])
            for below, modes in (("", returns), (best.METRICS, facts.evaluation.get("metrics", {})))
            for mode, matchups in modes.items()
            for matchup, found in matchups.items()
            for name, summary in found.items()
            if mode != "references"
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        trouble.append(f"metrics/{facts.segment}/evaluation.json is damaged: it is left out")
        return {}


def common_ancestor(lineage: Lineage, first: tuple[Node | None, int], second: tuple[Node | None, int]) -> tuple[Node | None, int]:
    """Return the run and step up to which two lineages are one; no run and step 0 is the root."""
    one, other = _reached(lineage, *first), _reached(lineage, *second)
    for node_id, step in reversed(one.items()):
        if node_id in other:
            return lineage.nodes[node_id], min(step, other[node_id])
    return None, 0


def _reached(lineage: Lineage, node: Node | None, step: int) -> dict[str, int]:
    """Return the step at which a lineage leaves each run on its way, oldest first."""
    if node is None:
        return {}
    line = lineage.ancestors(node)
    leaves = [*(child.start for child in line[1:]), step]
    return {one.id: left for one, left in zip(line, leaves, strict=True)}
