import dataclasses
import math

import pytest
import torch

from matwm.learner import illegal_share, real_reward
from matwm.optimizer import NamedAdam
from matwm.readings import NonFiniteLossError
from matwm.rng import seed_torch
from matwm.stateful import fingerprint
from matwm.types import NO_ACTION, EnvSpec
from tests.matwm.tiny import make_learner, make_windows, toy_config

SPEC = EnvSpec("uneven", ("two_0", "three_0", "four_0"), (5, 3, 4), (2, 3, 4))
MASKED = EnvSpec("masked", ("short_0", "long_0"), (2, 4), (2, 3), has_action_masks=True)


def parameters(module):
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def moved(before, module):
    return {name for name, p in module.named_parameters() if not torch.equal(before[name], p)}


def update_agents(learner, contexts=None, seed=0):
    seed_torch(seed, "test", 5)
    return learner.update_agents(contexts or make_windows(learner.spec, per_agent=4, length=4))


def update_world_model(learner, windows=None, seed=0):
    seed_torch(seed, "test", 6)
    return learner.update_world_model(windows or make_windows(learner.spec))


# ---- what an update changes


def test_a_world_model_update_leaves_the_agents_alone():
    learner = make_learner(SPEC)
    world, agents = parameters(learner.world_model), fingerprint({"agents": learner.agents.state_dict()})
    for _ in range(2):  # the reward head's hidden layers wait for its output layer to leave zero
        update_world_model(learner)
    # All KLs of a fresh tiny model lie below the free nats: the dynamics head has nothing to learn yet.
    assert moved(world, learner.world_model) == {name for name in world if not name.startswith("heads.dynamics")}
    assert fingerprint({"agents": learner.agents.state_dict()}) == agents


def test_an_agent_update_leaves_the_world_model_alone_and_moves_every_actor_and_critic():
    learner = make_learner(SPEC)
    with torch.no_grad():
        learner.world_model.heads.reward[-1].weight.normal_(std=2.0)  # without rewards there is hardly a gradient
    world = fingerprint({"world_model": learner.world_model.state_dict()})
    agents = {name: parameters(module) for name, module in learner.agents.items()}
    for _ in range(2):
        update_agents(learner)
    assert fingerprint({"world_model": learner.world_model.state_dict()}) == world
    assert all(p.grad is None for p in learner.world_model.parameters())
    for name in ("actors", "critics", "slow_critics"):
        assert moved(agents[name], learner.agents[name]) == set(agents[name]), name
    for name, parameter in learner.actors.named_parameters():
        for agent in range(3):
            assert not torch.equal(parameter[agent], agents["actors"][name][agent]), (name, agent)
    assert learner.bounds.high.ne(0).all()


def test_an_agent_of_whom_the_replay_has_no_row_learns_nothing_and_holds_up_nobody():
    learner, other = make_learner(SPEC), make_learner(SPEC)
    here = torch.tensor([True] * 4 + [False] * 4 + [True] * 4)
    whole = make_windows(SPEC, per_agent=4, length=4)
    contexts = make_windows(SPEC, per_agent=4, length=4, is_valid=here[:, None].expand(-1, 4))
    before = parameters(learner.agents)
    for _ in range(2):
        values = update_agents(learner, contexts)
        update_agents(other, whole)
    after, same = parameters(learner.agents), parameters(other.agents)
    for name in before:
        assert torch.equal(after[name][1], before[name][1]), name
        assert torch.equal(after[name][[0, 2]], same[name][[0, 2]]), name
    assert (learner.bounds.low[1], learner.bounds.high[1]) == (0, 0)
    assert torch.equal(learner.bounds.high[[0, 2]], other.bounds.high[[0, 2]])
    assert {value for name, value in values.numbers.items() if name.startswith("agents/three_0/")} == {0.0}
    assert values["agents/two_0/entropy"] > 0


def test_the_slow_critic_moves_by_a_fiftieth_of_the_way():
    learner = make_learner(SPEC)
    for _ in range(2):
        slow = parameters(learner.slow_critics)
        update_agents(learner)
        for name, fast in learner.critics.named_parameters():
            expected = slow[name] + 0.02 * (fast - slow[name])
            assert torch.allclose(dict(learner.slow_critics.named_parameters())[name], expected, atol=1e-7)


def test_the_critic_is_drawn_to_its_slow_copy():
    learner = make_learner(SPEC, toy_config(SPEC, {"actor_critic.slow_weight": 100.0, "actor_critic.learning_rate": 0.02}))
    with torch.no_grad():
        learner.slow_critics.net.output_bias[:, 0, 15] = 20.0
    first = update_agents(learner)
    for _ in range(20):
        last = update_agents(learner)
    slow_value = learner.critics.bins.bins[15].item()
    assert first["agents/two_0/value"] == 0.0
    assert last["agents/two_0/value"] > 0.3 * slow_value


def test_each_agents_gradient_is_clipped_by_its_own_norm():
    """Agent 1's critic is made absurd: the others step as if it were not there."""
    updates = []
    for spoilt in (False, True):
        learner = make_learner(SPEC, toy_config(SPEC, {"actor_critic.clip_norm": 1e-3}))
        with torch.no_grad():
            learner.critics.net.output_weight.normal_(generator=torch.Generator().manual_seed(0))
            if spoilt:
                learner.critics.net.output_weight[1] *= 1e4
        before = parameters(learner.agents)
        values = update_agents(learner)
        updates.append({name: p.detach() - before[name] for name, p in learner.agents.named_parameters()})
    assert values["agents/three_0/gradient_norm"] > 100 * values["agents/two_0/gradient_norm"]
    for name in updates[0]:
        assert torch.equal(updates[0][name][[0, 2]], updates[1][name][[0, 2]]), name


def test_clipping_scales_to_the_limit_and_leaves_small_gradients():
    learner = make_learner(SPEC)
    for parameter in learner.agents_optimizer.named.values():
        parameter.grad = torch.ones_like(parameter)
        parameter.grad[2] = 1e-6
    size = sum(p[0].numel() for p in learner.agents_optimizer.named.values())
    norm = learner._clip_each_agent(2.0)
    assert norm.tolist() == pytest.approx([size**0.5, size**0.5, 1e-6 * size**0.5], rel=1e-4)
    after = [sum(p.grad[agent].square().sum() for p in learner.agents_optimizer.named.values()).sqrt().item() for agent in range(3)]
    assert after == pytest.approx([2.0, 2.0, 1e-6 * size**0.5], rel=1e-4)


def test_the_world_models_gradient_is_clipped_as_one():
    learner = make_learner(SPEC, toy_config(SPEC, {"world_model.clip_norm": 1e-4}))
    seen = []
    step = learner.world_model_optimizer.step
    learner.world_model_optimizer.step = lambda: seen.append([p.grad.clone() for p in learner.world_model.parameters()]) or step()
    values = update_world_model(learner)
    assert values["world_model/gradient_norm"] > 1.0
    assert torch.stack([gradient.norm() for gradient in seen[0]]).norm().item() == pytest.approx(1e-4, rel=1e-2)


def test_the_advantage_is_scaled_by_the_bounds_and_not_by_small_returns():
    learner = make_learner(SPEC, toy_config(SPEC, {"actor_critic.return_decay": 0.0}))
    with torch.no_grad():
        learner.world_model.heads.reward[-1].weight.normal_(std=2.0)
    values = update_agents(learner)
    for name in SPEC.agents:
        low, high = (learner.bounds.low[SPEC.agents.index(name)].item(), learner.bounds.high[SPEC.agents.index(name)].item())
        assert values[f"agents/{name}/return_scale"] == pytest.approx(max(1.0, high - low))


def test_the_advantage_is_the_lambda_return_less_the_value_of_the_same_state_by_the_scale():
    learner = make_learner(SPEC, toy_config(SPEC, {"actor_critic.return_decay": 0.0}))
    with torch.no_grad():  # Otherwise values are near 0, and so is what a wrong formula changes.
        learner.world_model.heads.reward[-1].weight.normal_(std=2.0)
        for parameter in learner.critics.parameters():
            parameter.add_(torch.randn_like(parameter))
    seen, compute = [], learner._targets
    learner._targets = lambda rollout, *rest: seen.append((rollout, compute(rollout, *rest))) or seen[-1][1]
    update_agents(learner)
    (rollout, targets), ac = seen[0], learner.config.actor_critic
    assert targets.value.std() > 0.1
    assert 0 < ac.lambda_ < 1
    following, wanted = targets.value[..., -1], []
    for t in reversed(range(rollout.reward.shape[-1])):
        blend = (1 - ac.lambda_) * targets.value[..., t + 1] + ac.lambda_ * following
        following = rollout.reward[..., t] + ac.discount * rollout.continues[..., t] * blend
        wanted.append((following - targets.value[..., t]) / targets.scale[:, None])
    assert targets.scale.min() > 1.5
    torch.testing.assert_close(targets.advantage, torch.stack(wanted[::-1], -1))


def test_masks_keep_every_gradient_finite():
    learner = make_learner(MASKED)
    with torch.no_grad():
        learner.world_model.heads.action_mask[-1].bias[:] = torch.tensor([5.0, -5.0, -5.0])
    for _ in range(3):
        values = update_agents(learner)
    assert all(p.isfinite().all() for p in learner.agents.parameters())
    assert 0 <= values["agents/short_0/entropy"] < 0.7


def test_entropy_is_told_as_a_share_of_what_an_agents_own_actions_allow():
    values = update_agents(make_learner(SPEC))
    for name, count in zip(SPEC.agents, SPEC.num_actions, strict=True):
        assert values[f"agents/{name}/entropy_share"] == pytest.approx(values[f"agents/{name}/entropy"] / math.log(count))
        assert 0.99 < values[f"agents/{name}/entropy_share"] <= 1.0 + 1e-6


def test_real_rewards_are_means_over_rows_with_an_action():
    windows = make_windows(SPEC, per_agent=2, length=3)
    reward = torch.arange(18.0).reshape(6, 3)
    action = torch.zeros(6, 3, dtype=torch.long)
    action[1, 2] = NO_ACTION
    is_valid = torch.ones(6, 3, dtype=torch.bool)
    is_valid[4, :2] = False
    windows = dataclasses.replace(windows, reward=reward, action=action, is_valid=is_valid)
    assert real_reward(windows, 3).tolist() == pytest.approx([(0 + 1 + 2 + 3 + 4) / 5, 8.5, (14 + 15 + 16 + 17) / 4])


# ---- divergence


@pytest.mark.parametrize("term", ["reconstruction", "reward"])
def test_a_loss_that_is_not_finite_is_named_and_changes_nothing(term):
    learner = make_learner(SPEC)
    windows = make_windows(SPEC)
    field = {"reconstruction": "obs", "reward": "reward"}[term]
    value = getattr(windows, field).clone()
    value[0, 0] = float("nan")
    before = fingerprint(learner.parts())
    with pytest.raises(NonFiniteLossError, match=f"world_model/{term} is not finite") as caught:
        learner.update_world_model(dataclasses.replace(windows, **{field: value}))
    assert caught.value.term == f"world_model/{term}"
    assert fingerprint(learner.parts()) == before


def test_an_agent_that_diverges_is_named():
    learner = make_learner(SPEC)
    with torch.no_grad():
        learner.critics.net.output_bias[2] = float("nan")
    before = parameters(learner.actors)
    with pytest.raises(NonFiniteLossError, match="agents/four_0/"):
        update_agents(learner)
    assert moved(before, learner.actors) == set()


@pytest.mark.parametrize("term", ["reconstruction", "reward"])
def test_where_nobody_looks_at_once_no_step_is_taken_from_then_on_and_whoever_looks_hears_of_it(term):
    """As on a GPU, where looking would make the host wait."""
    learner = make_learner(SPEC)
    update_world_model(learner)
    learner.looks_at_once = False
    windows = make_windows(SPEC)
    field = {"reconstruction": "obs", "reward": "reward"}[term]
    value = getattr(windows, field).clone()
    value[0, 0] = float("nan")
    before = fingerprint({name: learner.parts()[name] for name in ("world_model", "optimizers")})
    wrong = learner.update_world_model(dataclasses.replace(windows, **{field: value}))
    assert update_world_model(learner, windows)["world_model/total"] > 0
    update_agents(learner)
    assert fingerprint({name: learner.parts()[name] for name in ("world_model", "optimizers")}) == before
    with pytest.raises(NonFiniteLossError, match=f"world_model/{term} is not finite"):
        _ = wrong["world_model/total"]
    learner.load(learner.parts())
    update_world_model(learner, windows)
    assert fingerprint({name: learner.parts()[name] for name in ("world_model", "optimizers")}) != before


# ---- state


def test_adam_is_torchs_adam():
    ours, theirs = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    adam = NamedAdam(ours.named_parameters(), learning_rate=0.1, betas=(0.9, 0.999), epsilon=1e-5)
    reference = torch.optim.Adam(theirs.parameters(), lr=0.1, eps=1e-5)
    for seed in range(4):
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))
        for net in (ours, theirs):
            net(x).square().sum().backward()
        adam.step()
        reference.step()
        reference.zero_grad()
        assert all(p.grad is None for p in ours.parameters())
        assert torch.allclose(ours.weight, theirs.weight, atol=1e-6)


def test_moments_are_copied_in_place_and_the_learning_rate_stays_the_configurations():
    first, second = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    source = NamedAdam(first.named_parameters(), learning_rate=0.1, betas=(0.9, 0.999), epsilon=1e-8)
    first(torch.ones(3)).sum().backward()
    source.step()
    target = NamedAdam(second.named_parameters(), learning_rate=0.5, betas=(0.9, 0.999), epsilon=1e-8)
    places = [id(tensor) for state in target.moments.values() for tensor in state.values()]
    target.load_state_dict(source.state_dict())
    assert [id(tensor) for state in target.moments.values() for tensor in state.values()] == places
    assert fingerprint({"o": target.state_dict()}) == fingerprint({"o": source.state_dict()})
    assert target.learning_rate == 0.5
    assert set(source.state_dict()["weight"]) == {"step", "exp_avg", "exp_avg_sq"}


def test_the_moments_of_other_parameters_are_refused():
    adam = NamedAdam(torch.nn.Linear(3, 2).named_parameters(), learning_rate=0.1, betas=(0.9, 0.999), epsilon=1e-8)
    with pytest.raises(ValueError, match="other parameters: .*bias"):
        adam.load_state_dict({"weight": adam.state_dict()["weight"]})


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            {"exp_avg": torch.zeros(2, 1)},
            r"^weight/exp_avg of the optimizer's state is torch.float32 \[2, 1\], expected .* \[2, 3\]$",
        ),
        (
            {"exp_avg_sq": torch.zeros(2, 3, dtype=torch.float64)},
            r"^weight/exp_avg_sq .* is torch.float64 \[2, 3\], expected .*float32",
        ),
        ({"step": torch.zeros(1)}, r"^weight/step of the optimizer's state is torch.float32 \[1\], expected torch.float32 \[\]$"),
        ({"exp_avg": None}, r"^weight/exp_avg of the optimizer's state is no tensor$"),
    ],
)
def test_a_moment_of_another_shape_is_refused_by_name_and_changes_nothing(damage, sentence):
    layer = torch.nn.Linear(3, 2)
    adam = NamedAdam(layer.named_parameters(), learning_rate=0.1, betas=(0.9, 0.999), epsilon=1e-8)
    layer(torch.ones(3)).sum().backward()
    adam.step()
    before = fingerprint({"adam": adam.state_dict()})
    state = {name: {key: tensor + 1 for key, tensor in moments.items()} for name, moments in adam.state_dict().items()}
    state["weight"] |= damage
    with pytest.raises(ValueError, match=sentence):
        adam.load_state_dict(state)
    assert fingerprint({"adam": adam.state_dict()}) == before


def test_a_learner_continues_from_its_parts_and_shares_no_memory_with_them():
    first, second = make_learner(SPEC), make_learner(SPEC, toy_config(SPEC, {"seed": 99}))
    for _ in range(2):
        update_world_model(first)
        update_agents(first)
    assert fingerprint(first.parts()) != fingerprint(second.parts())
    second.load(first.parts())
    assert fingerprint(first.parts()) == fingerprint(second.parts())
    for learner in (first, second):
        update_world_model(learner, seed=1)
        update_agents(learner, seed=1)
    assert fingerprint(first.parts()) == fingerprint(second.parts())
    update_agents(first)
    assert fingerprint(first.parts()) != fingerprint(second.parts())


def test_networks_of_another_size_are_refused_in_words():
    parts = make_learner(SPEC).parts()
    with pytest.raises(ValueError, match="do not fit the configuration"):
        make_learner(SPEC, toy_config(SPEC, {"world_model.hidden_size": 32})).load(parts)


def test_a_policy_is_one_agents_slice_of_every_actor_tensor():
    learner = make_learner(SPEC)
    policy = learner.policy(1)
    assert policy.keys() == learner.actors.state_dict().keys()
    for name, tensor in learner.actors.state_dict().items():
        assert torch.equal(policy[name][0], tensor[1])


def test_first_imagined_actions_are_held_against_the_real_mask_of_the_start_row():
    contexts = make_windows(MASKED, per_agent=2, length=3)
    contexts.action_mask[:] = False
    contexts.action_mask[:, -1] = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 1], [1, 0, 0]]).bool()
    action = torch.tensor([[[0, 1], [1, 0]], [[0, 0], [2, 0]]])
    legal = contexts.action_mask[:, -1].unflatten(0, (2, 2))
    assert illegal_share(action[:, :, 0], legal, None).tolist() == [0.0, 1.0]
    assert illegal_share(action[:, :, 0], legal, torch.tensor([[True, False], [False, False]])).tolist() == [0.0, 0.0]
