"""Says whether training that goes on from loaded state can, and does, go by its configuration."""

import math
from collections.abc import Iterator
from typing import Any

import torch

from matwm.collector import Collector
from matwm.config import Config, leaves
from matwm.imagination import control_of
from matwm.learner import Learner
from matwm.replay import Replay
from matwm.types import EnvSpec


def check_in_force(config: Config, learner: Learner, replay: Replay, collector: Collector) -> None:
    """Refuse to train by other values than the configuration's: a branch asks for a change, and loaded state could undo it unseen.

    Raises:
        ValueError: names the first value that is overruled.
    """
    wanted = {path: value for path, value, _ in leaves(config)}
    for path, value in in_force(learner, replay, collector):
        if value != wanted[path]:
            raise ValueError(f"{path} is {value!r} after loading, but {wanted[path]!r} in the configuration, which nothing may overrule")


def in_force(learner: Learner, replay: Replay, collector: Collector) -> Iterator[tuple[str, Any]]:
    """Yield (path in params.yaml, value) of everything that training goes by, read from whoever acts on it, copies included."""
    world_model = learner.world_model
    yield from ((path, value) for path, value, marks in leaves(learner.config) if marks["shapes"])
    for section, holder in (("world_model", world_model.config), ("replay", replay.config)):
        yield from ((f"{section}.{path}", value) for path, value, _ in leaves(holder))
    of_reward = "learning_rate" if world_model.config.reward_learning_rate is None else "reward_learning_rate"
    for section, optimizer in (("world_model", learner.world_model_optimizer), ("actor_critic", learner.agents_optimizer)):
        for rate, group in zip(("learning_rate", "autoencoder_learning_rate", of_reward), optimizer.groups, strict=False):
            yield f"{section}.{rate}", group.learning_rate
            yield f"{section}.adam_betas", list(group.betas)
            yield f"{section}.adam_epsilon", group.epsilon
    yield from ((f"world_model.loss_weights.{name}", weight) for name, weight in world_model.loss_weights.items())
    yield "world_model.unimix", world_model.autoencoder.unimix
    yield from (("world_model.dropout", part.dropout) for part in world_model.modules() if hasattr(part, "dropout"))
    yield "actor_critic.actor_unimix", learner.actors.unimix
    yield "schedule.acting_context", collector.acting_context
    yield "seed", collector.seed
    yield "run.device", next(learner.agents.parameters()).device.type
    yield "run.threads", torch.get_num_threads()


def unplayable(config: Config, spec: EnvSpec) -> list[str]:
    """Return why an environment cannot be trained on with this configuration: a sentence each, none if it can be."""
    problems = [] if config.env.num_agents is not None else list(config.team_misfits(spec.num_agents))
    if spec.one_at_a_time and config.evaluation.interval:
        problems.append(
            f"evaluation.interval is {config.evaluation.interval}, but {spec.name} is one of which only one can be open at a time, and "
            "training has it: set evaluation.interval to 0, and the stage evaluates"
        )
    factors = config.actor_critic.action_factors
    if factors and math.prod(factors) != spec.action_size:
        problems.append(
            f"actor_critic.action_factors are {factors}, which make {math.prod(factors)} actions, but {spec.name} has {spec.action_size}: "
            "give the sizes of the parts of an action, or null"
        )
    if factors and len(set(spec.num_actions)) > 1:
        problems.append(
            f"actor_critic.action_factors are {factors}, but agents of {spec.name} differ in their actions ({spec.num_actions}): use null"
        )
    imagination = config.actor_critic.imagination
    if imagination.opponents_predicted and len(spec.roles()) > 1:
        moments = config.schedule.per_agent(config.regime(spec.num_agents).starts, spec.num_agents)
        if control_of(imagination, spec, moments) is None:
            problems.append(
                f"actor_critic.imagination.opponents_predicted is {imagination.opponents_predicted}, less than one of {moments} starts an "
                f"agent for each of the {len(spec.roles())} roles of {spec.name}: raise it, or regimes' starts, or set it to 0.0"
            )
    return problems


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
