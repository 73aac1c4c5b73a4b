"""Agents that are imagined from the same moments: how their rows meet, who moves whom, and who learns from what."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from matwm.acting import EpisodeContext, choose_actions
from matwm.actor_critic import Actors, networks
from matwm.actor_critic.joint import joint_size, team_rewards, with_mates_latents
from matwm.batches import Features, Rollout, Windows
from matwm.config import ConfigError
from matwm.imagination import Control, control_of, imagine, predicted_actions
from matwm.nets.team import mates_beside, of_mates
from matwm.rng import generator_for, seed_torch
from matwm.types import NO_ACTION, EnvSpec
from matwm.world_model import model as model_module
from tests.matwm.test_learning import LARGER, fit, likeliest, played
from tests.matwm.test_replay import N, counter_step, fill, make_replay, row_numbers
from tests.matwm.test_trainer import digest, resumed, through_files
from tests.matwm.tiny import LEVELS, TOGETHER, dense, make_learner, make_trainer, make_windows, run, tiny_config, toy_config
from tests.matwm.toy_envs import CounterEnv, RingEnv

SPEC = EnvSpec("uneven", ("two_0", "three_0", "four_0"), (5, 3, 4), (2, 3, 4))
MASKED = EnvSpec("masked", ("short_0", "long_0"), (2, 4), (2, 3), has_action_masks=True)
CODES = [pytest.param({}, id="one-hots"), pytest.param(LEVELS, id="levels")]
JOINT = {key: value for key, value in TOGETHER.items() if "opponents" not in key}


def same_moments(spec: EnvSpec, moments: int = 3, length: int = 5, seed: int = 0) -> Windows:
    """Windows in which row k of every agent is the same moment: what each does is what the others see it do."""
    windows = make_windows(spec, per_agent=moments, length=length, seed=seed)
    action = windows.action.unflatten(0, (spec.num_agents, -1))
    return dataclasses.replace(windows, mate_actions=of_mates(action).movedim(1, -1).flatten(0, 1))


def together(learner, contexts: Windows, *, horizon: int = 3, control: Control | None = None, seed: int = 3) -> Rollout:
    seed_torch(seed, "test", 0)
    return imagine(learner.world_model, learner.actors, contexts, horizon=horizon, from_prior=False, together=True, control=control)


def told(learner) -> None:
    """Let teammates move each other: what is new in the dynamics head starts at zero, and policies nearly uniform."""
    with torch.no_grad():
        learner.world_model.heads.mates_linear.weight.normal_(std=3.0)
        learner.actors.net.output_weight.mul_(100)


@pytest.fixture
def certain(monkeypatch):
    monkeypatch.setattr(model_module, "sample_index", lambda probs: probs.argmax(-1))
    monkeypatch.setattr(networks, "sample_index", lambda probs: probs.argmax(-1))


# ---- batches


def test_windows_drawn_together_are_the_same_rows_for_every_agent_and_as_old_as_others():
    replay = fill(make_replay(), 150)
    windows, described = replay.sample_windows(generator_for(0, "t", 0), per_agent=2, length=10, together=True)
    rows = row_numbers(windows).unflatten(0, (N, 2))
    assert torch.equal(rows[0], rows[1])
    assert torch.equal(rows[0], rows[2])
    assert (rows[0, 0] - rows[0, 1]).abs().min() >= 10  # windows of one agent do not overlap
    assert windows.agent.tolist() == [0, 0, 1, 1, 2, 2]
    assert described["overlaps"] == 0
    ages = {}
    for is_together in (False, True):
        draws = [replay.sample_windows(generator_for(1, "t", k), per_agent=1, length=5, together=is_together)[1]["age"] for k in range(400)]
        ages[is_together] = np.mean(draws)
    assert ages[True] == pytest.approx(ages[False], rel=0.1)


def test_contexts_drawn_together_start_where_somebody_goes_on_and_are_padding_for_those_who_do_not():
    replay = make_replay()
    for row in range(120):  # agent 0 dies in the middle of each episode of 10 rows, agent 2 is never there
        gone = (0, 2) if row % 10 >= 5 else (2,)
        replay.add(counter_step(row, is_first=row % 10 == 0, is_last=row % 10 == 9, terminated=[False, row % 10 == 9, False], gone=gone))
    contexts = replay.sample_contexts(generator_for(0, "t", 0), per_agent=300, length=3, together=True)
    goes_on = contexts.is_valid[:, -1].unflatten(0, (N, 300))
    starts = row_numbers(contexts)[:, -1].unflatten(0, (N, 300))
    assert goes_on[1].all()
    assert not (starts[1] % 10 == 9).any()
    assert torch.equal(goes_on[0], starts[1] % 10 < 5)
    assert 0.3 < goes_on[0].float().mean() < 0.8
    assert not goes_on[2].any()
    assert torch.equal(starts[0][goes_on[0]], starts[1][goes_on[0]])
    assert contexts.obs.unflatten(0, (N, 300))[2].eq(0).all()


def test_the_one_start_of_a_long_replay_is_found():
    replay = make_replay(capacity=2000)
    for row in range(2000):
        replay.add(counter_step(row, is_first=row == 0, gone=() if row == 700 else (0, 1, 2)))
    contexts = replay.sample_contexts(generator_for(0, "t", 0), per_agent=5, length=1, together=True)
    assert row_numbers(contexts).flatten().tolist() == [700] * 15


# ---- rows that meet


def test_teammates_come_in_index_order_behind_ones_own():
    each = torch.arange(3)[:, None] * 100 + torch.arange(2)  # (agent, moment)
    assert of_mates(each).tolist() == [[[100, 101], [200, 201]], [[0, 1], [200, 201]], [[0, 1], [100, 101]]]
    rows = each.flatten()[:, None].repeat(1, 2)
    assert mates_beside(rows, 3)[:, :, 0].tolist() == [[100, 200], [101, 201], [0, 200], [1, 201], [0, 100], [1, 101]]


@pytest.mark.parametrize("changes", CODES)
def test_a_reward_that_reads_everybodys_arrival_teaches_everybodys_encoder(changes):
    learner = make_learner(SPEC, toy_config(SPEC, {**changes, **JOINT, "world_model.free_nats": 1e3}))
    model, windows = learner.world_model, same_moments(SPEC)
    with torch.no_grad():
        model.heads.arrival[-1].weight.normal_()
    obs = windows.obs.clone().requires_grad_()
    reward = torch.where((windows.agent == 0)[:, None], windows.reward, 0.0)
    counted = dataclasses.replace(windows, obs=obs, reward=reward)
    model.loss_weights = dict.fromkeys(model.loss_weights, 0.0) | {"reward": 1.0}
    only_first = torch.where((windows.agent == 0)[:, None], windows.action, NO_ACTION)  # the others' rewards count nowhere
    seed_torch(0, "test", 1)
    model.loss(dataclasses.replace(counted, action=only_first))[0].backward()
    by_agent = obs.grad.abs().unflatten(0, (3, -1)).sum((1, 2, 3))
    assert by_agent[0] > 0
    # Without an action of their own the others' arrivals are drawn, which carries no gradient.
    assert by_agent[1:].eq(0).all()
    obs.grad = None
    seed_torch(0, "test", 1)
    model.loss(counted)[0].backward()
    assert (obs.grad.abs().unflatten(0, (3, -1)).sum((1, 2, 3)) > 0).all()


@pytest.mark.parametrize("changes", CODES)
@pytest.mark.parametrize("reads", ["actions", "joint"])
def test_a_teammates_action_moves_the_next_latent_and_nothing_of_the_present(changes, reads, certain):
    learner = make_learner(SPEC, toy_config(SPEC, {**changes, **JOINT, "world_model.dynamics_reads": reads}))
    told(learner)
    model, contexts = learner.world_model.eval(), same_moments(SPEC, moments=6)
    action = contexts.action[:, -1]
    states = [model.observe(contexts, horizon=1) for _ in range(2)]
    assert torch.equal(model.features(states[0], 3).numbers, model.features(states[1], 3).numbers)
    others = contexts.mate_actions[:, -1]
    after = [model.advance(state, action, mates) for state, mates in zip(states, (others, (others + 1) % 2), strict=True)]
    assert torch.equal(after[0].hidden, after[1].hidden)
    assert not torch.equal(after[0].latent, after[1].latent)


def test_the_dead_say_nothing_to_the_dynamics_or_to_the_reward():
    learner = make_learner(SPEC, toy_config(SPEC, JOINT))
    model = learner.world_model
    z = torch.randn(6, model.config.latent_size)
    mates = model._of_mates(torch.tensor([[NO_ACTION, 1]]).expand(6, 2), z).unflatten(-1, (2, -1))
    assert mates[:, 0].eq(0).all()
    assert mates[:, 1, :4].tolist() == [[0, 2, 0, 0]] * 6
    assert torch.equal(mates[:, 1, 4:], mates_beside(z, 3)[:, 1])
    beside = model._beside(z, torch.tensor([[NO_ACTION, 1]]).expand(6, 2)).unflatten(-1, (3, -1))
    assert torch.equal(beside[:, 0], z)
    assert beside[:, 1].eq(0).all()
    assert torch.equal(beside[:, 2], mates_beside(z, 3)[:, 1])


@pytest.mark.parametrize("changes", CODES)
def test_a_team_of_which_one_is_left_learns_from_finite_numbers(changes):
    is_valid = torch.ones(9, 5, dtype=torch.bool)
    is_valid[:6] = False  # agents 0 and 1 are dead throughout
    windows = make_windows(SPEC, per_agent=3, length=5, is_valid=is_valid)
    dead = dataclasses.replace(windows, mate_actions=torch.full_like(windows.mate_actions, NO_ACTION))
    learner = make_learner(SPEC, toy_config(SPEC, {**changes, **TOGETHER}))
    seed_torch(0, "test", 2)
    learner.update_world_model(dead).check()
    before = {name: p.detach().clone() for name, p in learner.actors.named_parameters()}
    learner.update_agents(dead).check()
    moved = [not torch.equal(before["net.output_bias"][agent], learner.actors.net.output_bias[agent]) for agent in range(3)]
    assert moved == [False, False, True]


# ---- rollouts


@pytest.mark.parametrize("changes", CODES)
def test_what_an_agent_does_shows_in_what_its_teammates_imagine(changes, certain):
    learner = make_learner(SPEC, toy_config(SPEC, {**changes, **JOINT}))
    told(learner)
    contexts = same_moments(SPEC, moments=4)
    before = together(learner, contexts)
    with torch.no_grad():  # agent 0 alone decides otherwise
        learner.actors.net.output_bias[0] += torch.tensor([0.0, 50.0, 0.0, 0.0])
    after = together(learner, contexts)
    size = learner.config.world_model.latent_size
    seen = [
        dense(rollout, size).unflatten(0, (3, -1)) if changes == {} else rollout.numbers.unflatten(0, (3, -1))
        for rollout in (before, after)
    ]
    assert not torch.equal(before.action.view(3, -1)[0], after.action.view(3, -1)[0])
    for agent in (1, 2):
        assert torch.equal(seen[0][agent, :, 0], seen[1][agent, :, 0])
        assert not torch.equal(seen[0][agent, :, 1:], seen[1][agent, :, 1:])


def test_who_has_died_in_imagination_is_dead_to_the_others(certain):
    learner = make_learner(SPEC, toy_config(SPEC, JOINT))
    told(learner)
    contexts = same_moments(SPEC, moments=4)
    continuation = learner.world_model.heads.continuation[-1]
    with torch.no_grad():
        continuation.weight.zero_()
        continuation.bias.fill_(20.0)
        assert together(learner, contexts).alive.all()
        continuation.bias.fill_(-20.0)
    said = []
    advance = learner.world_model.advance

    def listening(state, action, mates=None):
        said.append(mates)
        return advance(state, action, mates)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner.world_model, "advance", listening)
        rollout = together(learner, contexts)
    assert rollout.alive[:, 0].all()
    assert not rollout.alive[:, 1:].any()
    assert (said[0] >= 0).all()
    assert (said[1] == NO_ACTION).all()


def test_policies_act_alike_with_and_without_the_rows_of_their_teammates(certain):
    """Execution stays decentralised: nothing is sent."""
    learner = make_learner(SPEC, toy_config(SPEC, {**LEVELS, **JOINT}))
    told(learner)
    alone = Actors(1, learner.world_model.feature_size, 4, learner.config.actor_critic)
    alone.load_state_dict(learner.policy(2))
    rng = np.random.default_rng(0)
    team, single = EpisodeContext(range(3), 5), EpisodeContext([2], 5)
    exists = SPEC.action_exists[None]
    for _ in range(6):
        obs = (rng.normal(size=(1, 3, 5)) * SPEC.obs_exists).astype(np.float32)
        team.see(obs)
        single.see(obs[:, 2:])
        all_actions = choose_actions(learner.world_model, learner.actors, team, exists, greedy=True)
        one = choose_actions(learner.world_model, alone, single, exists[:, 2:], greedy=True)
        assert one[0, 0] == all_actions[0, 2]
        team.did(all_actions)
        single.did(one)


# ---- who acts by what


TAG = EnvSpec("tag", ("chaser_0", "chaser_1", "prey_0"), (3, 3, 3), (3, 3, 3))


def imagination(**changes):
    return toy_config(
        TAG, {**JOINT, **{f"actor_critic.imagination.{key}": value for key, value in changes.items()}}
    ).actor_critic.imagination


def test_everybody_acts_by_its_policy_unless_told_otherwise():
    assert control_of(imagination(), TAG, 8) is None
    one_role = EnvSpec("team", ("a_0", "a_1"), (3, 3), (3, 3))
    assert control_of(imagination(opponents_predicted=1.0), one_role, 8) is None


def test_opponents_are_predicted_at_their_share_of_the_moments_as_often_for_each_role():
    control = control_of(imagination(opponents_predicted=0.5), TAG, 6)
    assert control.by_policy.int().tolist() == [[1, 1, 0, 0, 1, 1]] * 2 + [[0, 0, 1, 1, 1, 1]]
    assert control.predictor[2, :2].tolist() == control.leader[:2].tolist() == [0, 1]  # the chasers in turn
    assert control.predictor[:2, 2:4].tolist() == [[2, 2]] * 2
    assert control.leader[2:].tolist() == [2, 2, -1, -1]
    assert control.rows.tolist() == [[0, 1, 4, 5]] * 2 + [[2, 3, 4, 5]]  # half of what each learns from


@pytest.mark.parametrize("moments", [1, 2, 3, 7, 24, 128])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 1.0])
def test_every_share_and_number_of_moments_fits_and_is_met_as_nearly_as_it_can_be(moments, share):
    roles = EnvSpec("three", ("a_0", "b_0", "c_0"), (3, 3, 3), (3, 3, 3))
    for spec, parties in ((TAG, 2), (roles, 3)):
        control = control_of(imagination(opponents_predicted=share), spec, moments)
        each = 0 if control is None else int((control.leader == 0).sum() + (control.leader == 1).sum() * (spec is TAG))
        learnt = moments - (parties - 1) * each
        assert each <= share * learnt + 1e-6
        assert each + 1 > share * (moments - (parties - 1) * (each + 1)) or learnt <= 0


def test_a_share_that_no_moment_can_have_is_refused():
    with pytest.raises(ConfigError, match="opponents_predicted"):
        make_trainer(None, tiny_config({**TOGETHER, "actor_critic.imagination.opponents_predicted": 0.05}))


def test_with_predicted_mates_one_agent_acts_by_its_policy_at_a_moment():
    control = control_of(imagination(mates="predicted"), TAG, 6)
    assert control.by_policy.int().tolist() == [[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]]
    assert control.predictor[:, :2].tolist()[1:] == [[0, 0], [0, 0]]
    assert control.rows.tolist() == [[0, 1], [2, 3], [4, 5]]
    trainer = make_trainer(None, tiny_config({**JOINT, "actor_critic.imagination.mates": "predicted"}))
    run(trainer, 14)
    contexts = trainer.sample_contexts(generator_for(0, "t", 0))
    assert len(contexts.agent) == 4 * (4 * 4)  # four agents, at four moments for each of them


def test_who_is_predicted_does_what_the_predictor_of_the_other_says():
    """Agent i's probabilities, slot by slot: nobody is certain of anything but of what is asked."""
    control = control_of(imagination(mates="predicted"), TAG, 3)
    learner = make_learner(TAG, toy_config(TAG, {**JOINT, "actor_critic.imagination.mates": "predicted"}))
    state = learner.world_model.observe(same_moments(TAG, moments=3), horizon=1)
    sure = torch.zeros(3, 3, 2, 3)  # (agent who predicts, moment, slot, action)
    sure[0, 0, 0, 1] = sure[0, 0, 1, 2] = 1  # at moment 0, agent 0: agent 1 does 1, agent 2 does 2
    sure[1, 1, 0, 2] = sure[1, 1, 1, 1] = 1
    sure[2, 2, 0, 1] = sure[2, 2, 1, 1] = 1
    state = dataclasses.replace(state, mate_probs=sure.flatten(0, 1))
    mask = torch.ones(3, 3, 3, dtype=torch.bool)
    drawn = [predicted_actions(state, mask, control) for _ in range(20)]
    for actions in drawn:
        assert (actions[1, 0], actions[2, 0]) == (1, 2)
        assert (actions[0, 1], actions[2, 1]) == (2, 1)
        assert (actions[0, 2], actions[1, 2]) == (1, 1)
    mask[1, 0] = torch.tensor([True, False, False])  # what is not legal is not done, however sure the predictor is
    assert predicted_actions(state, mask, control)[1, 0] == 0


def test_agents_learn_from_the_moments_at_which_they_act_by_their_policy():
    learner = make_learner(TAG, toy_config(TAG, {**TOGETHER, "actor_critic.epochs": 1}))
    contexts = same_moments(TAG, moments=8)
    seed_torch(0, "test", 3)
    whole = learner.imagine(contexts)
    rollout, counts, _ = learner._learnt_from(whole, contexts)
    assert counts.shape == (3, 6)
    assert counts.all()
    assert torch.equal(rollout.action[2], whole.action[2, [2, 3, 4, 5, 6, 7]])
    learner.update_agents(contexts).check()


def test_nobody_learns_from_a_moment_whose_predictor_is_dead():
    learner = make_learner(TAG, toy_config(TAG, {**TOGETHER, "actor_critic.epochs": 1}))
    contexts = same_moments(TAG, moments=8)
    is_valid = contexts.is_valid.unflatten(0, (3, 8)).clone()
    is_valid[1, 1] = False  # at moment 1 chaser 1 would predict the prey
    dead = dataclasses.replace(contexts, is_valid=is_valid.flatten(0, 1))
    _, counts, _ = learner._learnt_from(learner.imagine(dead), dead)
    assert counts.int().tolist() == [[1, 0, 1, 1, 1, 1], [1, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]


# ---- what agents lend each other


def test_a_team_shares_the_mean_reward_of_those_who_live():
    reward = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]], [[10.0, 20.0]]])
    alive = torch.tensor([[[True, True]], [[True, False]], [[True, True]]])
    teams = [torch.tensor([0, 1]), torch.tensor([2])]
    assert team_rewards(reward, alive, teams).tolist() == [[[2.0, 2.0]], [[2.0, 2.0]], [[10.0, 20.0]]]
    nobody = torch.zeros_like(alive)
    assert team_rewards(reward, nobody, teams).eq(0).all()


@pytest.mark.parametrize("changes", CODES)
def test_critics_read_the_latents_of_those_who_live_behind_what_actors_read(changes):
    learner = make_learner(SPEC, toy_config(SPEC, {**changes, **JOINT}))
    size, own = learner.config.world_model.latent_size, learner.world_model.feature_size
    rollout = learner.imagine(same_moments(SPEC, moments=2))
    alive = torch.ones_like(rollout.alive)
    alive[1] = False
    rollout = dataclasses.replace(rollout, alive=alive)
    joint = with_mates_latents(Features(rollout.latent_rows, rollout.numbers), rollout.alive, size)
    is_one_hot = not changes
    assert learner.critics.net.weights[0].shape[1] == joint_size(own, size, 3, one_hot=is_one_hot)
    if is_one_hot:
        rows = joint.latent_rows.unflatten(-1, (3, -1))
        assert torch.equal(rows[..., 0, :], rollout.latent_rows)
        assert torch.equal(rows[0, ..., 2, :], rollout.latent_rows[2] + 2 * size)
        assert rows[0, ..., 1, :].eq(3 * size).all()  # agent 1 is dead
        picked = torch.ones(joint.latent_rows.shape)
        written_out = torch.zeros(*rows.shape[:-2], 3 * size + 1).scatter_add(-1, joint.latent_rows.long(), picked)
        full = torch.cat([written_out, joint.numbers], -1)[:, :, 0]
        found = learner.critics.net(Features(joint.latent_rows[:, :, 0], joint.numbers[:, :, 0]))
        first = full @ learner.critics.net.weights[0]
        hidden = torch.nn.functional.silu(torch.nn.functional.layer_norm(first, first.shape[-1:]))
        assert torch.allclose(found, hidden @ learner.critics.net.output_weight + learner.critics.net.output_bias, atol=1e-5)
        seed_torch(0, "test", 5)
        learner.update_agents(same_moments(SPEC, moments=2)).check()
        assert learner.critics.net.weights[0][:, 3 * size].eq(0).all()  # the dead add nothing, then and now
        assert learner.critics.net.weights[0][:, : 3 * size].ne(0).any(-1).any(-1).all()
    else:
        latents = rollout.numbers[..., :size]
        assert torch.equal(joint.numbers[..., :own], rollout.numbers)
        assert joint.numbers[0, ..., own : own + size].eq(0).all()
        assert torch.equal(joint.numbers[0, ..., own + size :], latents[2])


# ---- whole runs


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="one-hots"),
        pytest.param(LEVELS, id="levels"),
        pytest.param({"actor_critic.imagination.start_state": "prior", "world_model.dynamics_reads": "actions"}, id="prior starts"),
        pytest.param(
            {"actor_critic.imagination.mates": "predicted", "actor_critic.imagination.opponents_predicted": 0.0}, id="predicted mates"
        ),
    ],
)
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(changes):
    config = tiny_config({**TOGETHER, **changes})
    whole = run(make_trainer(None, config), 31)
    part = resumed(run(resumed(run(make_trainer(None, config), 21)), 4))
    assert digest(run(part, 6)) == digest(whole)


def test_masks_deaths_and_true_endings_train_together():
    trainer = run(make_trainer(lambda: CounterEnv(ends=(True, False)), toy_config(CounterEnv().spec, JOINT)), 40)
    assert "agents/short_0/ratio_clipped" in trainer.history.metrics
    windows = make_windows(MASKED, per_agent=4, length=3)
    is_valid = torch.ones(8, 3, dtype=torch.bool)
    is_valid[1:4] = False  # three starts of agent 0
    mask = torch.ones_like(windows.action_mask) & is_valid[..., None]
    dead = dataclasses.replace(
        windows, is_valid=is_valid, action_mask=mask & (torch.arange(3) < torch.tensor([2, 3]).repeat_interleave(4)[:, None, None])
    )
    learner = make_learner(MASKED, toy_config(MASKED, JOINT))
    seed_torch(0, "test", 4)
    metrics = learner.update_agents(dead)
    assert metrics["agents/short_0/illegal"] == 0.0  # padding allows nothing, and counts nowhere


def test_how_many_opponents_are_predicted_shapes_training():
    parts = through_files(run(make_trainer(None, tiny_config(JOINT)), 20).parts())
    ends = []
    for share in (0.0, 0.5):
        trainer = make_trainer(None, tiny_config({**JOINT, "actor_critic.imagination.opponents_predicted": share}))
        trainer.load(parts)
        ends.append(digest(run(trainer, 4)))
    assert ends[0] != ends[1]


def test_what_is_new_is_not_in_checkpoints_of_those_who_do_without():
    parts = run(make_trainer(None, tiny_config()), 14).parts()
    assert "return_bounds.initial_share" not in parts["agents"]
    assert not any("mates_linear" in name for name in parts["world_model"])
    assert not any("ratio_clipped" in name for name in parts["history"])


def test_agents_wait_for_their_first_step():
    trainer = run(make_trainer(None, tiny_config({"schedule.agents_from": 20})), 19)
    assert not any("agents/" in key for key in trainer.parts()["history"])
    assert not trainer.learner.agents_optimizer.moments["actors.net.output_bias"]["step"]
    run(trainer, 1)
    assert trainer.learner.agents_optimizer.moments["actors.net.output_bias"]["step"] == 1


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"world_model.dynamics_reads": "actions"}, "world_model.dynamics_reads"),
        ({"world_model.reward_reads": "joint", "world_model.reward_input": "arrival"}, "world_model.reward_reads"),
        ({"actor_critic.critic_reads": "joint"}, "actor_critic.critic_reads"),
        ({"actor_critic.team_reward": "role"}, "actor_critic.team_reward"),
        ({"world_model.reward_reads": "joint", "actor_critic.imagination.mates": "imagined"}, "world_model.reward_input"),
        ({"actor_critic.imagination.opponents_predicted": 0.5}, "actor_critic.imagination.opponents_predicted"),
        ({"actor_critic.imagination.mates": "predicted", "world_model.teammates.enabled": False}, "world_model.teammates.enabled"),
        ({"actor_critic.action_factors": [5, 1]}, "action_factors"),
    ],
)
def test_values_that_need_another_are_refused_with_its_name(changes, named):
    with pytest.raises(ConfigError, match=re.escape(named)):
        tiny_config(changes)


def test_factors_that_do_not_make_the_actions_are_refused_where_the_environment_is_known():
    with pytest.raises(ConfigError, match="action_factors"):
        make_trainer(None, tiny_config({"actor_critic.action_factors": [2, 3]}))


# ---- what it is good for


@pytest.mark.parametrize("reads", ["own", "actions"])
def test_views_of_one_world_stay_one_where_the_dynamics_read_what_teammates_do(reads):
    """Two walkers on a ring, each of whom sees how far the other is to its right: eight steps on, both views must add up to a round."""
    env = RingEnv()
    config = toy_config(env.spec, {**LARGER, **LEVELS, "world_model.dynamics_reads": reads, "actor_critic.imagination.mates": "imagined"})
    replay = played(env, lambda rng, mask: np.array([rng.integers(3, size=2)]), 1000, config)
    learner = make_learner(env.spec, config)
    fit(learner, lambda update: replay.sample_windows(generator_for(1, "w", update), per_agent=8, length=16)[0], 350)
    model = learner.world_model.eval()
    contexts = replay.sample_contexts(generator_for(2, "c", 0), per_agent=100, length=4, together=True)
    agreed = []
    with likeliest(), torch.no_grad():
        state = model.observe(contexts, horizon=8)
        for step in range(8):
            action = torch.from_numpy(generator_for(3, "a", step).integers(3, size=200))
            mates = of_mates(action.unflatten(0, (2, -1))).movedim(1, -1).flatten(0, 1)
            state = model.advance(state, action, mates)
            z = model.autoencoder.code.read_index(state.latent)
            distance = model.autoencoder.decode(z[:, None])[:, 0].argmax(-1).unflatten(0, (2, -1))
            agreed.append((distance.sum(0) % 5 == 0).float().mean().item())
    if reads == "own":
        assert agreed[-1] < 0.5
    else:
        assert min(agreed) >= 0.95
