"""Says what becomes of a checkpoint's state when training goes on from it with changed values."""

from typing import Any

from matwm.changes import Change
from matwm.checkpoint import Checkpoint
from matwm.config import Config


def effect(change: Change, checkpoint: Checkpoint, parent: Config, config: Config) -> str:
    """Return what a person should know of a change beyond the value itself, empty if it simply holds from the next step on."""
    step = checkpoint.step
    if change.path == "replay.capacity":
        return _of_capacity(checkpoint, parent, config)
    if change.path == "seed":
        return "draws from the next step on; a running episode ends as it began"
    if change.path in ("run.device", "run.threads"):
        return "the state is the same; sums may differ in the last bits"
    if change.path == "run.precision":
        return "the state stays float32"
    if change.path == "run.cuda_graphs":
        return "the state is the same; policies draw otherwise"
    if change.path == "schedule.warmup_steps":
        first = config.schedule.warmup_steps
        return f"random actions and no updates until step {first:,}" if first > step else f"no effect: step {step:,} is past it"
    if change.path == "schedule.agents_from":
        first = config.schedule.random_steps
        return f"random actions and no updates of agents until step {first:,}" if first > step else f"no effect: step {step:,} is past it"
    if change.path == "actor_critic.return_debias" and config.actor_critic.return_debias:
        return "no effect: the bounds of returns of this state count as past their start"
    regimes = config.actor_critic.imagination.regimes
    team = checkpoint.spec.num_agents
    if change.path.startswith("actor_critic.imagination.regimes.") and (number := _used(config, team)) != int(change.path.split(".")[3]):
        return f"no effect: a team of {team} goes by regimes.{number} of {len(regimes)}"
    return "" if change.shapes else "training stays the same"


def misfit(checkpoint: Checkpoint, config: Config) -> str | None:
    """Return why a training with this configuration could not go on from the checkpoint's replay, None if it can."""
    from matwm.settings import too_few_rows  # Both import torch, for seconds.

    return too_few_rows(config, checkpoint.step, rows_after(checkpoint, config))


def rows_after(checkpoint: Checkpoint, config: Config) -> int:
    """Return how many rows of a checkpoint's replay a training with this configuration has to go on with."""
    from matwm.replay import rows_held

    state: Any = checkpoint.replay()
    return rows_held(state["total_rows"], len(state["chunks"]), config.replay)


def _of_capacity(checkpoint: Checkpoint, parent: Config, config: Config) -> str:
    before, after = rows_after(checkpoint, parent), rows_after(checkpoint, config)
    if after < before:
        return f"the newest {after:,} of {before:,} rows are kept"
    back = f", and {after - before:,} older ones that its files still hold" if after > before else ""
    return f"all {before:,} rows are kept{back}; there is room for {config.replay.capacity:,}"


def _used(config: Config, num_agents: int) -> int:
    used = config.regime(num_agents)
    return next(number for number, regime in enumerate(config.actor_critic.imagination.regimes) if regime is used)
