"""Says which parameters of a configuration MLflow shows."""

from matwm.config import Config, leaves


def params_of(config: Config) -> dict[str, str]:
    """Return what shapes training, and what it comes to for a team of known size: batches after rounding up, and the horizon."""
    num_agents, per_agent = config.env.num_agents, config.schedule.per_agent
    shown = {path: str(value) for path, value, marks in leaves(config) if marks["shapes"]}
    if num_agents is None:
        return shown
    return shown | {
        "actual.windows": str(num_agents * per_agent(config.world_model.windows, num_agents)),
        "actual.starts": str(num_agents * per_agent(config.regime(num_agents).starts, num_agents)),
        "actual.horizon": str(config.regime(num_agents).horizon),
    }
