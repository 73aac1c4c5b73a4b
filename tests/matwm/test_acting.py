import numpy as np
import pytest
import torch

from matwm.acting import EpisodeContext, choose_actions, random_actions
from matwm.nets import attention
from matwm.rng import generator_for, seed_torch
from matwm.types import NO_ACTION, EnvSpec
from tests.matwm.tiny import dense, make_learner, toy_config

SPEC = EnvSpec("uneven", ("two_0", "three_0", "four_0"), (5, 3, 4), (2, 3, 4))
EVERY = SPEC.action_exists[None]


def observation(t, episodes=1):
    obs = np.random.default_rng(t).normal(size=(episodes, 3, 5)).astype(np.float32)
    return obs * SPEC.obs_exists


def context_after(steps, *, limit=8, agents=range(3), episodes=1):
    context = EpisodeContext(agents, limit)
    columns = list(agents)
    for t in range(steps):
        context.see(observation(t, episodes)[:, columns])
        context.did(np.full((episodes, len(columns)), t % 2))
    context.see(observation(steps, episodes)[:, columns])
    return context


@pytest.fixture
def learner():
    learner = make_learner(SPEC, toy_config(SPEC, {"world_model.dropout": 0.5}))
    with torch.no_grad():
        learner.actors.net.output_weight.mul_(300)
    return learner


def act(learner, context, *, greedy=False, mask=EVERY, seed=0):
    seed_torch(seed, "test", 0)
    return choose_actions(learner.world_model, learner.actors, context, mask, greedy=greedy)


# ---- contexts


def test_a_context_has_the_rows_of_every_episode_grouped_by_agent():
    windows = context_after(3, episodes=2).windows()
    assert windows.agent.tolist() == [0, 0, 1, 1, 2, 2]
    assert windows.action.tolist() == [[0, 1, 0, NO_ACTION]] * 6
    for t in range(4):
        for agent in range(3):
            for episode in range(2):
                assert np.array_equal(windows.obs[2 * agent + episode, t].numpy(), observation(t, 2)[episode, agent])


def test_a_context_keeps_the_last_rows_only_and_its_first_has_none_before():
    windows = context_after(6, limit=4).windows()
    assert windows.obs.shape[1] == 4
    assert np.array_equal(windows.obs[0, -1].numpy(), observation(6)[0, 0])
    assert windows.action[0].tolist() == [1, 0, 1, NO_ACTION]
    assert context_after(5, limit=1).windows().action.tolist() == [[NO_ACTION]] * 3
    assert context_after(0).windows().obs.shape[1] == 1


def test_a_cleared_context_is_a_new_one(learner):
    context = context_after(5)
    context.clear()
    context.see(observation(9))
    fresh = EpisodeContext(range(3), 8)
    fresh.see(observation(9))
    assert torch.equal(context.windows().obs, fresh.windows().obs)
    assert torch.equal(context.windows().action, fresh.windows().action)


def test_some_agents_may_act_without_the_others(learner):
    alone = context_after(3, agents=[2]).windows()
    together = context_after(3).windows()
    assert alone.agent.tolist() == [2]
    assert torch.equal(alone.obs[0], together.obs[2])


# ---- choosing


def test_the_same_random_numbers_choose_the_same_actions_and_dropout_is_off(learner, monkeypatch):
    monkeypatch.setattr(attention, "keep_mask", lambda x, dropout: pytest.fail("dropout while acting"))
    learner.world_model.train()
    assert np.array_equal(act(learner, context_after(3)), act(learner, context_after(3)))
    assert learner.world_model.training


def test_the_present_observation_and_the_past_both_count(learner):
    """A policy that acted on what was predicted (STORM) would not see the present frame."""
    seen = []
    real = learner.actors.choose
    learner.actors.choose = lambda features, mask, greedy: seen.append(dense(features, 16)) or real(features, mask, greedy=greedy)
    present, past, plain = context_after(3), context_after(3), context_after(3)
    present._obs[-1] = present._obs[-1] * -3
    past._obs[0] = past._obs[0] * -3
    for context in (plain, present, past):
        act(learner, context)
    latent, hidden = slice(0, 16), slice(16, 32)
    assert not torch.equal(seen[0][..., latent], seen[1][..., latent])
    assert torch.equal(seen[0][..., hidden], seen[1][..., hidden])
    assert not torch.equal(seen[0][..., hidden], seen[2][..., hidden])


def test_the_first_step_of_an_episode_has_no_hidden_state(learner):
    seen = []
    real = learner.actors.choose
    learner.actors.choose = lambda features, mask, greedy: seen.append(dense(features, 16)) or real(features, mask, greedy=greedy)
    act(learner, context_after(0))
    assert seen[0][..., 16:32].eq(0).all()
    assert seen[0][..., :16].sum(-1).eq(4).all()


@pytest.mark.parametrize("greedy", [True, False])
def test_the_environments_own_masks_are_obeyed(learner, greedy):
    episodes = 200
    rng = np.random.default_rng(0)
    mask = SPEC.action_exists & (rng.random((episodes, 3, 4)) < 0.5)
    mask[..., 0] |= ~mask.any(-1)
    action = act(learner, context_after(2, episodes=episodes), mask=mask, greedy=greedy)
    assert action.shape == (episodes, 3)
    assert np.take_along_axis(mask, action[..., None], -1).all()


def test_actions_belong_to_their_episode_and_agent(learner):
    """Three agents whose policies prefer their own last action, in four episodes with the first two actions barred from episode 3 on."""
    with torch.no_grad():
        learner.actors.net.output_weight.zero_()
        for agent, count in enumerate(SPEC.num_actions):
            learner.actors.net.output_bias[agent, 0, count - 1] = 100.0
    mask = np.repeat(EVERY, 4, axis=0)
    mask[3, 1, 2] = False
    mask[3, 1, 1] = False
    action = act(learner, context_after(2, episodes=4), mask=mask)
    assert action.tolist() == [[1, 2, 3]] * 3 + [[1, 0, 3]]


def test_one_agent_acts_as_it_would_among_all(learner):
    from matwm.actor_critic import Actors

    alone = Actors(1, learner.world_model.feature_size, 4, learner.config.actor_critic)
    alone.load_state_dict(learner.policy(2))
    for steps in range(6):
        together = act_with_likeliest(learner, learner.actors, context_after(steps), EVERY)
        single = act_with_likeliest(learner, alone, context_after(steps, agents=[2]), EVERY[:, 2:])
        assert single[0, 0] == together[0, 2]


def act_with_likeliest(learner, actors, context, mask):
    from matwm.world_model import model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "sample_index", lambda probs: probs.argmax(-1))
        return choose_actions(learner.world_model, actors, context, mask, greedy=True)


def test_random_actions_are_uniform_over_the_legal():
    mask = np.array([[True, False, True, True], [False, True, False, False]])
    counts = np.zeros((2, 4))
    rng = generator_for(0, "t", 0)
    for _ in range(6000):
        counts[np.arange(2), random_actions(rng, mask)] += 1
    assert counts[1].tolist() == [0, 6000, 0, 0]
    assert counts[0] / 6000 == pytest.approx(np.array([1, 0, 1, 1]) / 3, abs=0.025)
