"""Says whether training that goes on from loaded state can, and does, go by its configuration."""

from matwm.config import Config


def too_few_rows(config: Config, env_step: int, rows: int) -> str | None:
    """Return why `rows` of replay are too few to train on with from this step, None if they suffice.

    Who trains from the start has a whole window when warm-up ends; who goes on with longer windows may not.
    """
    schedule, length = config.schedule, config.world_model.window_length
    due = max(env_step + 1, schedule.warmup_steps)
    update = -(-due // schedule.world_model_every) * schedule.world_model_every
    if rows + update - env_step >= length:
        return None
    return (
        f"world_model.window_length is {length}, but the replay of step {env_step} has {rows} rows to go on with: "
        f"lower it, or raise schedule.warmup_steps to {env_step + length - rows} or more"
    )
