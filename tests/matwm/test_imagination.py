import dataclasses

import pytest
import torch

from matwm.actor_critic import networks
from matwm.batches import Features, Rollout, Windows
from matwm.imagination import imagine
from matwm.nets import attention
from matwm.rng import seed_torch
from matwm.types import NO_ACTION, EnvSpec
from matwm.world_model import model as model_module
from tests.matwm.tiny import dense, make_learner, make_windows, toy_config

UNEVEN = EnvSpec("uneven", ("two_0", "three_0", "four_0"), (5, 3, 4), (2, 3, 4))
MASKED = EnvSpec("masked", ("short_0", "long_0"), (2, 4), (2, 3), has_action_masks=True)
EACH, H = 4, 6


def contexts_for(spec, length=4, seed=0) -> Windows:
    """Contexts with 0 to length - 1 rows of past side by side."""
    windows = make_windows(spec, per_agent=EACH, length=length, seed=seed)
    past = torch.arange(EACH * spec.num_agents) % length
    is_valid = torch.arange(length) >= (length - 1 - past)[:, None]
    return dataclasses.replace(windows, is_valid=is_valid, action=torch.where(is_valid, windows.action, NO_ACTION))


def rollout_of(learner, contexts, *, horizon=H, from_prior=False) -> Rollout:
    seed_torch(0, "test", 3)
    return imagine(learner.world_model, learner.actors, contexts, horizon=horizon, from_prior=from_prior)


@pytest.fixture(params=["hidden"])
def learner(request):
    learner = make_learner(UNEVEN, toy_config(UNEVEN, {"world_model.dropout": 0.5, "world_model.reward_input": request.param}))
    with torch.no_grad():  # policies and heads that depend on what they read
        learner.actors.net.output_weight.mul_(300)
        learner.world_model.heads.reward[-1].weight.normal_()
    return learner


@pytest.fixture
def certain(monkeypatch):
    """Take the likeliest latent and action: imagination becomes a function of its contexts."""
    monkeypatch.setattr(model_module, "sample_index", lambda probs: probs.argmax(-1))
    monkeypatch.setattr(networks, "sample_index", lambda probs: probs.argmax(-1))


def test_one_more_state_than_actions(learner):
    rollout = rollout_of(learner, contexts_for(UNEVEN))
    rows = 3 * EACH
    shapes = {name: tuple(value.shape) for name, value in vars(rollout).items()}
    assert shapes == {
        "action": (rows, H),
        "action_mask": (rows, H, 4),
        "reward": (rows, H),
        "continues": (rows, H),
        "latent_rows": (rows, H + 1, 4),
        "numbers": (rows, H + 1, learner.world_model.feature_size - 16),
        "alive": (rows, H + 1),
    }


def test_nothing_keeps_a_graph_and_the_mode_is_left_alone(learner):
    learner.world_model.train()
    rollout = rollout_of(learner, contexts_for(UNEVEN))
    assert not any(value.requires_grad for value in vars(rollout).values())
    assert learner.world_model.training
    learner.world_model.eval()
    rollout_of(learner, contexts_for(UNEVEN))
    assert not learner.world_model.training


def test_dropout_is_off(learner, monkeypatch):
    learner.world_model.train()
    monkeypatch.setattr(attention, "keep_mask", lambda x, dropout: pytest.fail("dropout in imagination"))
    first, second = (rollout_of(learner, contexts_for(UNEVEN)) for _ in range(2))
    assert all(torch.equal(getattr(first, name), getattr(second, name)) for name in vars(first))


@pytest.mark.parametrize("learner", ["hidden", "arrival"], indirect=True)
def test_a_rollout_is_what_the_world_model_says_of_its_own_latents_and_actions(learner, certain):
    """Features, rewards and continuations again, in one full pass over the context and the imagined rows, without any cache."""
    model, contexts = learner.world_model.eval(), contexts_for(UNEVEN)
    rollout = rollout_of(learner, contexts)
    rows, length = contexts.obs.shape[:2]
    z_context = torch.nn.functional.one_hot(model.autoencoder.posterior(contexts.obs, contexts.agent).argmax(-1), 4).flatten(2).float()
    z = torch.cat([z_context, dense(rollout, 16)[:, 1:, :16]], 1)
    assert torch.equal(z_context[:, -1], dense(rollout, 16)[:, 0, :16])
    action = torch.cat([contexts.action[:, :-1], rollout.action, torch.full((rows, 1), NO_ACTION)], 1)
    is_valid = torch.cat([contexts.is_valid, torch.ones(rows, H, dtype=torch.bool)], 1)
    positions, allowed = model_module.layout(torch.zeros_like(is_valid), is_valid)
    h = model.trunk(model.mixer.dense(z, model._words(action, contexts.agent)), positions, allowed)
    imagined = h[:, length - 1 : -1]
    has_past = contexts.is_valid[:, -2]
    before = torch.where(has_past[:, None], h[:, length - 2], 0.0)
    assert torch.allclose(dense(rollout, 16)[:, 1:, 16:32], imagined, atol=1e-5)
    assert torch.allclose(dense(rollout, 16)[:, 0, 16:32], before, atol=1e-5)
    prior = model.prior(imagined, z[:, length - 1 : -1].unflatten(-1, (-1, 4)).argmax(-1)).argmax(-1)
    arrival = torch.nn.functional.one_hot(prior, 4).flatten(2).float() if model.heads.arrival else None
    assert torch.allclose(rollout.reward, model.heads.reward_mean(imagined, arrival), rtol=1e-3, atol=1e-3)
    assert torch.allclose(rollout.continues, model.heads.continues(imagined), atol=1e-5)
    assert torch.equal(torch.nn.functional.one_hot(prior, 4).flatten(2).float(), dense(rollout, 16)[:, 1:, :16])
    mates = model.teammates(z, contexts.agent, positions, allowed).exp()[:, length - 1 :]
    assert torch.allclose(dense(rollout, 16)[:, :, 32:], mates.flatten(2), atol=1e-5)


def test_actions_come_from_the_focal_agents_own_policy(learner, certain):
    rollout = rollout_of(learner, contexts_for(UNEVEN))
    rows, numbers = (part[:, :-1].unflatten(0, (3, EACH)).flatten(1, 2) for part in (rollout.latent_rows, rollout.numbers))
    features = Features(rows, numbers)
    expected = learner.actors.choose(features, rollout.action_mask.unflatten(0, (3, EACH)).flatten(1, 2), greedy=True)
    assert torch.equal(expected, rollout.action.unflatten(0, (3, EACH)).flatten(1, 2))


def test_an_agent_knows_nothing_of_anothers_context_or_policy(learner, certain):
    contexts = contexts_for(UNEVEN)
    before = rollout_of(learner, contexts)
    mine = contexts.agent == 0
    obs = torch.where(mine[:, None, None], contexts.obs, contexts.obs * -3)
    with torch.no_grad():
        for parameter in learner.actors.parameters():
            parameter[1:] = -parameter[1:]
    after = rollout_of(learner, dataclasses.replace(contexts, obs=obs))
    assert all(torch.equal(getattr(before, name)[mine], getattr(after, name)[mine]) for name in vars(before))
    assert not torch.equal(dense(before, 16)[~mine], dense(after, 16)[~mine])


def test_the_first_state_does_not_depend_on_the_first_action_and_the_next_does(learner, monkeypatch):
    """Eq. 2's h_t has read a_t: taken literally, the action would leak into the policy's input."""
    monkeypatch.setattr(model_module, "sample_index", lambda probs: probs.argmax(-1))
    rollouts = []
    for choice in (0, 1):
        monkeypatch.setattr(networks.Actors, "choose", lambda self, x, m, greedy, c=choice: torch.full(x.numbers.shape[:2], c))
        rollouts.append(rollout_of(learner, contexts_for(UNEVEN)))
    left, right = rollouts
    assert torch.equal(dense(left, 16)[:, 0], dense(right, 16)[:, 0])
    assert not torch.isclose(dense(left, 16)[:, 1, 16:32], dense(right, 16)[:, 1, 16:32]).all(-1).any()
    assert not torch.equal(left.reward[:, 0], right.reward[:, 0])


def test_the_recorded_action_of_the_start_row_is_not_used(learner, certain):
    contexts = contexts_for(UNEVEN)
    action = contexts.action.clone()
    action[:, -1] = NO_ACTION
    left, right = rollout_of(learner, contexts), rollout_of(learner, dataclasses.replace(contexts, action=action))
    assert all(torch.equal(getattr(left, name), getattr(right, name)) for name in vars(left))


def test_padding_changes_nothing(learner, certain):
    contexts = contexts_for(UNEVEN)
    junk = torch.where(contexts.is_valid[..., None], contexts.obs, 5.0)
    left, right = rollout_of(learner, contexts), rollout_of(learner, dataclasses.replace(contexts, obs=junk))
    assert all(torch.equal(getattr(left, name), getattr(right, name)) for name in vars(left))


def test_actions_are_drawn_under_the_stored_masks_which_are_those_that_z_predicts():
    learner = make_learner(MASKED)
    with torch.no_grad():
        learner.world_model.heads.action_mask[-1].weight.mul_(30)
    rollout = rollout_of(learner, contexts_for(MASKED), horizon=12)
    assert rollout.action_mask.gather(-1, rollout.action[..., None]).all()
    exists = torch.from_numpy(MASKED.action_exists).repeat_interleave(EACH, 0)[:, None]
    assert not (rollout.action_mask & ~exists).any()
    assert 0.1 < rollout.action_mask[exists.expand_as(rollout.action_mask)].float().mean() < 0.95
    logits = learner.world_model.heads.action_mask(dense(rollout, 16)[:, :-1, :16]).masked_fill(~exists, -1e9)
    expected = (logits > 0) | torch.nn.functional.one_hot(logits.argmax(-1), 3).bool()
    assert torch.equal(rollout.action_mask, expected)


def test_a_single_agent_imagines_without_mates():
    spec = EnvSpec("alone", ("a_0",), (3,), (5,))
    assert dense(rollout_of(make_learner(spec), contexts_for(spec)), 16).shape == (EACH, H + 1, 32)


def test_contexts_of_one_row_begin_from_nothing(learner):
    rollout = rollout_of(learner, contexts_for(UNEVEN, length=1))
    assert dense(rollout, 16)[:, 0, 16:32].eq(0).all()


def test_a_prior_start_is_taken_where_it_is_asked_for(learner, certain):
    posterior, prior = (rollout_of(learner, contexts_for(UNEVEN), from_prior=ask) for ask in (False, True))
    has_past = contexts_for(UNEVEN).is_valid[:, -2]
    same = (dense(posterior, 16)[:, 0, :16] == dense(prior, 16)[:, 0, :16]).all(-1)
    assert same[~has_past].all()
    assert not same[has_past].all()
    hidden = dense(prior, 16)[has_past, 0, 16:32]
    expected = learner.world_model.prior(hidden, torch.zeros(len(hidden), 4, dtype=torch.int64)).argmax(-1)
    assert torch.equal(torch.nn.functional.one_hot(expected, 4).flatten(1).float(), dense(prior, 16)[has_past, 0, :16])
