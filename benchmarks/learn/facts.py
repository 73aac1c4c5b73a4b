"""Says of a finished job what its result file holds: returns, a diagnosis, the size of its networks."""

from typing import Any

from benchmarks.learn import files
from benchmarks.learn.diagnosis import IMAGES, diagnose
from benchmarks.learn.plan import CURVE_SEED
from matwm.checkpoint import Checkpoint
from matwm.evaluation import Result
from matwm.trainer import Trainer


def rows_of(result: Result) -> list[dict[str, Any]]:
    """Return what a result file says of a match-up: a row for each learned role, and for each metric of the environment."""
    rows: list[dict[str, Any]] = []
    learned = [role for role, numbers in result.spec.roles().items() if set(numbers) <= set(result.learned)]
    judged = [("role", role, result.roles[role]) for role in learned]
    for kind, name, summary in [*judged, *(("metric", metric, summary) for metric, summary in result.metrics.items())]:
        values = {key: files.rounded(getattr(summary, key)) for key in ("mean", "stderr", "median")}
        rows.append({"mode": result.mode, "matchup": result.matchup, kind: name, **values, "episodes": summary.episodes})
    return rows


def diagnosis_of(checkpoint: Checkpoint, episodes: int) -> dict[str, dict[str, float]] | str:
    """Return the numbers of a diagnosis, or why there are none."""
    if checkpoint.spec.image_shape:
        return IMAGES
    found = diagnose(checkpoint, episodes=episodes, first_seed=CURVE_SEED)
    columns = {**found.play, "world_model": found.world_model}
    return {column: {name: files.rounded(value) for name, value in numbers.items()} for column, numbers in columns.items()}


def parameters_of(trainer: Trainer) -> int:
    """Return how many parameters there are, slow critics not included."""
    modules = (trainer.learner.world_model, trainer.learner.actors, trainer.learner.critics)
    return sum(parameter.numel() for module in modules for parameter in module.parameters())
