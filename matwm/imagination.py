"""Rolls policies out in the world model (Algorithm 1)."""

import torch

from matwm.actor_critic import Actors
from matwm.types import Rollout, Windows
from matwm.world_model import WorldModel


@torch.no_grad()
def imagine(world_model: WorldModel, actors: Actors, contexts: Windows, *, horizon: int, from_prior: bool) -> Rollout:
    """Continue real contexts for `horizon` steps, each row by its focal agent's own policy.

    Agents are isolated: a row's mates exist only as the teammate predictor's probabilities.
    """
    num_agents = actors.net.output_bias.shape[0]
    state = world_model.observe(contexts, horizon=horizon, from_prior=from_prior)
    features, actions, masks, hidden, latents = [world_model.features(state, num_agents)], [], [], [], []
    for _ in range(horizon):
        mask = state.action_mask.unflatten(0, (num_agents, -1))
        action = actors.choose(features[-1], mask, greedy=False).flatten()
        masks.append(state.action_mask)
        actions.append(action)
        state = world_model.advance(state, action)
        features.append(world_model.features(state, num_agents))
        hidden.append(state.hidden)
        latents.append(state.latent)
    reward, continues = world_model.outcomes(torch.stack(hidden, 1), torch.stack(latents, 1))
    return Rollout(
        action=torch.stack(actions, 1),
        action_mask=torch.stack(masks, 1),
        reward=reward,
        continues=continues,
        latent_rows=torch.stack([each.latent_rows.flatten(0, 1) for each in features], 1).int(),
        numbers=torch.stack([each.numbers.flatten(0, 1) for each in features], 1),
    )
