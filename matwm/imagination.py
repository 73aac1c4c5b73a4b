"""Rolls policies out in the world model (Algorithm 1).

In the paper agents are imagined one by one: an agent's teammates are the predictor's probabilities, and nobody moves them. With
`imagination.mates` all agents are rolled out together from the same moment, so that what one does shows in what the others see.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from matwm.actor_critic import Actors
from matwm.batches import Rollout, Windows
from matwm.config import ImaginationConfig
from matwm.nets.distributions import sample_index
from matwm.nets.team import mate_actions
from matwm.types import NO_ACTION, EnvSpec
from matwm.world_model import FocalState, WorldModel

ENDED = 0.5
"""An agent whose imagined episode goes on with less probability than this is dead to its teammates."""
NEVER_ZERO = 1e-6
"""Added to the predictor's probabilities before masks: legal actions alone must have a positive sum."""


@dataclass(frozen=True)
class Control:
    """Whose actions come from their policies at which imagined moments; all others act as the predictor of such an agent draws."""

    by_policy: Bool[Tensor, "N m"]
    predictor: Int[Tensor, "N m"]
    """The agent whose predictor draws the action, where it is not the policy; another one than the acting agent."""
    leader: Int[Tensor, " m"]
    """That agent, for the whole moment; -1 where everybody acts by its policy."""
    rows: Int[Tensor, "N b"]
    """The moments at which each agent acts by its policy: it learns from these alone."""


def control_of(config: ImaginationConfig, spec: EnvSpec, moments: int) -> Control | None:
    """Return whose actions are drawn by what, at so many moments; None where everybody always acts by its policy.

    With `mates: predicted` one agent acts by its policy at each moment. With `opponents_predicted` the agents of one role do at some
    of them, for each role as many, so that this is the share (rounded down) of the moments from which an agent learns.
    """
    everyone = list(range(spec.num_agents))
    if config.mates == "predicted":
        parties = [[agent] for agent in everyone]
        each = moments // len(parties)
    else:
        parties = list(spec.roles().values())
        share = config.opponents_predicted
        each = int(share * moments / (1 + share * (len(parties) - 1)) + 1e-9)  # each / (moments - (parties - 1) each) = share
    if len(parties) < 2 or not each:
        return None
    by_policy = np.zeros((spec.num_agents, moments), bool)
    by_policy[:, len(parties) * each :] = True
    predictor = np.tile((np.array(everyone) + 1) % spec.num_agents, (moments, 1)).T
    leader = np.full(moments, -1)
    for number, party in enumerate(parties):
        at = np.arange(number * each, (number + 1) * each)
        outside = [agent for agent in everyone if agent not in party]
        leader[at] = np.array(party)[np.arange(each) % len(party)]
        by_policy[np.array(party)[:, None], at] = True
        predictor[np.array(outside)[:, None], at] = leader[at]
    rows = np.stack([np.flatnonzero(mine) for mine in by_policy])
    return Control(*(torch.from_numpy(array) for array in (by_policy, predictor, leader, rows)))


@torch.no_grad()
def imagine(
    world_model: WorldModel,
    actors: Actors,
    contexts: Windows,
    *,
    horizon: int,
    from_prior: bool,
    together: bool = False,
    control: Control | None = None,
) -> Rollout:
    """Continue real contexts for `horizon` steps, each row by its focal agent's own policy.

    With `together` row k of every agent is the same moment, and each agent's action moves the others; where `control` says so an
    agent's action is drawn by the predictor of another one. Otherwise a row's mates exist only as the predictor's probabilities.
    """
    num_agents = actors.net.output_bias.shape[0]
    state = world_model.observe(contexts, horizon=horizon, from_prior=from_prior)
    features, actions, masks, hidden, latents = [world_model.features(state, num_agents)], [], [], [], []
    lives = contexts.is_valid[:, -1]
    going_on, alive, others = lives.float(), [lives], []
    for _ in range(horizon):
        mask = state.action_mask.unflatten(0, (num_agents, -1))
        choice = actors.choose(features[-1], mask, greedy=False)
        if control is not None:
            choice = torch.where(control.by_policy, choice, predicted_actions(state, mask, control))
        action = choice.flatten()
        masks.append(state.action_mask)
        actions.append(action)
        if together:
            others.append(mate_actions(torch.where(alive[-1], action, NO_ACTION), num_agents))
        state = world_model.advance(state, action, others[-1] if together else None)
        features.append(world_model.features(state, num_agents))
        hidden.append(state.hidden)
        latents.append(state.latent)
        if together:
            going_on = going_on * world_model.heads.continues(state.hidden)
            alive.append(going_on >= ENDED)
    acted = torch.stack(others, 1) if together else None
    reward, continues = world_model.outcomes(torch.stack(hidden, 1), torch.stack(latents, 1), acted)
    return Rollout(
        action=torch.stack(actions, 1),
        action_mask=torch.stack(masks, 1),
        reward=reward,
        continues=continues,
        latent_rows=torch.stack([each.latent_rows.flatten(0, 1) for each in features], 1).int(),
        numbers=torch.stack([each.numbers.flatten(0, 1) for each in features], 1),
        alive=torch.stack(alive, 1) if together else lives[:, None].expand(-1, horizon + 1),
    )


def predicted_actions(state: FocalState, mask: Bool[Tensor, "N m A"], control: Control) -> Int[Tensor, "N m"]:
    """Return an action for every agent at every moment, drawn by the predictor of `control.predictor` there, among what is legal."""
    num_agents, moments = control.predictor.shape
    agent = torch.arange(num_agents, device=mask.device)[:, None]
    slot = agent - (agent > control.predictor).long()  # teammates are in index order, without the one who predicts
    probs = state.mate_probs.unflatten(0, (num_agents, moments))
    drawn_by = probs[control.predictor, torch.arange(moments, device=mask.device), slot]
    return sample_index((drawn_by + NEVER_ZERO) * mask)
