"""Says which parameters of a configuration MLflow shows."""

from matwm.config import Config, leaves


def params_of(config: Config) -> dict[str, str]:
    """Return what shapes training, and what it comes to for this team: batches after rounding up for each agent, and the horizon."""
    num_agents, per_agent = config.env.num_agents, config.schedule.per_agent
    return {path: str(value) for path, value, marks in leaves(config) if marks["shapes"]} | {
        "actual.windows": str(num_agents * per_agent(config.world_model.windows, num_agents)),
        "actual.starts": str(num_agents * per_agent(config.regime.starts, num_agents)),
        "actual.horizon": str(config.regime.horizon),
    }
