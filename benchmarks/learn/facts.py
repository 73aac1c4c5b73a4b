"""Says of a finished job what its result file holds: returns, words, a diagnosis, the size of its networks."""

from typing import Any

from benchmarks.learn import files
from benchmarks.learn.diagnosis import IMAGES, diagnose
from benchmarks.learn.plan import CURVE_SEED
from matwm.checkpoint import Checkpoint
from matwm.communication import Communication
from matwm.evaluation import Result
from matwm.trainer import Trainer


def rows_of(result: Result) -> list[dict[str, Any]]:
    """Return what a result file says of a match-up: a row for each learned role, each metric of the environment, each speaker."""
    rows: list[dict[str, Any]] = []
    learned = [role for role, numbers in result.spec.roles().items() if set(numbers) <= set(result.learned)]
    judged = [("role", role, result.roles[role]) for role in learned]
    for kind, name, summary in [*judged, *(("metric", metric, summary) for metric, summary in result.metrics.items())]:
        values = {key: files.rounded(getattr(summary, key)) for key in ("mean", "stderr", "median")}
        rows.append({"mode": result.mode, "matchup": result.matchup, kind: name, **values, "episodes": summary.episodes})
    rows += [{"mode": result.mode, "matchup": result.matchup, **_spoken(one)} for one in result.communication]
    return rows


def _spoken(one: Communication) -> dict[str, Any]:
    """Return what a result file says of a speaker: at how many steps it said each word (columns), by goal (rows), and what came of it."""
    mean, stderr = one.swapped_return
    values = {
        "information": one.information,
        "information_share": one.information_share,
        "reached": one.reached,
        "swapped_reached": one.swapped_reached,
        "swapped_followed": one.swapped_followed,
        "swapped_return": mean,
        "swapped_return_stderr": stderr,
    }
    rounded = {name: None if value is None else files.rounded(value) for name, value in values.items()}
    names = {"speaker": one.channel.speaker, "listener": one.channel.listener, "goals": list(one.channel.goals)}
    return {**names, "words": one.counts.tolist(), **rounded, "episodes": len(one.goals)}


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
