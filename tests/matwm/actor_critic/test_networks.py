import pytest
import torch

from matwm.actor_critic import Actors, Critics
from matwm.actor_critic.losses import entropy
from matwm.batches import Features
from matwm.rng import seed_torch
from tests.matwm.tiny import tiny_config

N, F, A = 3, 10, 4
MASK = torch.tensor([[1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 1]], dtype=torch.bool)[:, None]


def features_of(states: int) -> Features:
    """Two latents of two classes, and six numbers."""
    return Features(torch.randint(2, (N, states, 2)) + torch.tensor([0, 2]), torch.randn(N, states, F - 4))


def make_actors(unimix=0.0):
    seed_torch(0, "test", 0)
    return Actors(N, F, A, tiny_config({"actor_critic.actor_unimix": unimix}).actor_critic)


@pytest.mark.parametrize("unimix", [0.0, 0.1])
def test_illegal_actions_have_no_probability_and_are_never_chosen(unimix):
    actors, features, mask = make_actors(unimix), features_of(2000), MASK.expand(N, 2000, A)
    log_probs = actors.log_probs(features, mask)
    assert torch.allclose(log_probs.exp().sum(-1), torch.ones(N, 2000))
    assert torch.equal(log_probs == float("-inf"), ~mask)
    for greedy in (True, False):
        action = actors.choose(features, mask, greedy=greedy)
        assert mask.gather(-1, action[..., None]).all()
        assert torch.isfinite(log_probs.gather(-1, action[..., None])).all()
    assert [len(set(row)) for row in action.tolist()] == [2, 4, 1]


@pytest.mark.parametrize("unimix", [0.0, 0.1])
def test_masks_leave_gradients_finite(unimix):
    actors = make_actors(unimix)
    log_probs = actors.log_probs(features_of(5), MASK.expand(N, 5, A))
    action = log_probs.argmax(-1)
    (log_probs.gather(-1, action[..., None]).sum() + entropy(log_probs).sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in actors.parameters())


def test_unimix_bounds_every_legal_probability_from_below():
    actors = make_actors(0.2)
    with torch.no_grad():
        actors.net.output_bias[:, 0, 0] = 50.0
    probs = actors.log_probs(features_of(5), MASK.expand(N, 5, A)).exp()
    assert probs[0, :, 2].tolist() == pytest.approx([0.1] * 5)
    assert probs[1, :, 3].tolist() == pytest.approx([0.05] * 5)


def test_greedy_takes_the_likeliest_legal_action():
    actors = make_actors()
    with torch.no_grad():
        actors.net.output_bias[:] = torch.tensor([0.0, 9.0, 1.0, 8.0])
    assert actors.choose(features_of(1), MASK, greedy=True).flatten().tolist() == [2, 1, 3]


def test_policies_start_nearly_uniform_and_values_at_exactly_zero():
    ac = tiny_config().actor_critic
    features = features_of(50)
    probs = make_actors().log_probs(features, torch.ones(N, 50, A, dtype=torch.bool)).exp()
    assert (probs - 1 / A).abs().max() < 0.02
    critics = Critics(N, F, ac)
    assert critics.bins.mean(critics(features)).eq(0).all()


def test_sampling_follows_the_policy():
    actors = make_actors()
    with torch.no_grad():
        actors.net.output_weight.zero_()
        actors.net.output_bias[:] = torch.tensor([0.6, 0.4, 1e-9, 1e-9]).log()
    action = actors.choose(features_of(20000), torch.ones(N, 20000, A, dtype=torch.bool), greedy=False)
    assert (action == 0).float().mean(1).tolist() == pytest.approx([0.6] * N, abs=0.015)


def test_parts_of_an_action_are_chosen_independently_where_nothing_is_forbidden():
    """Six actions as two words and three moves: action = 3 * word + move."""
    seed_torch(0, "test", 0)
    actors = Actors(N, F, 6, tiny_config({"actor_critic.action_factors": [2, 3]}).actor_critic)
    with torch.no_grad():
        actors.net.output_weight.mul_(300)
    features, everything = features_of(5), torch.ones(N, 5, 6, dtype=torch.bool)
    probs = actors.log_probs(features, everything).exp().unflatten(-1, (2, 3))
    words, moves = probs.sum(-1, keepdim=True), probs.sum(-2, keepdim=True)
    assert torch.allclose(probs, words * moves, atol=1e-6)
    assert actors.net.output_bias.shape == (N, 1, 2 + 3)
    logits = actors.net(features)
    assert torch.allclose(words.squeeze(-1), logits[..., :2].softmax(-1), atol=1e-6)
    assert torch.allclose(moves.squeeze(-2), logits[..., 2:].softmax(-1), atol=1e-6)
    forbidden = everything.clone()
    forbidden[..., 4] = False
    assert actors.log_probs(features, forbidden)[..., 4].eq(float("-inf")).all()
