import math

import pytest
import torch
from torch.nn import functional as F

from matwm.actor_critic.losses import actor_loss, critic_loss, entropy, trajectory_weights
from matwm.nets.distributions import TwoHot

INF = float("inf")


def test_weights_are_products_of_earlier_continuations():
    continues = torch.tensor([[0.5, 1.0, 0.2, 0.0], [1.0, 0.0, 1.0, 1.0]])
    assert trajectory_weights(continues).tolist() == [[1.0, 0.5, 0.5, pytest.approx(0.1)], [1.0, 1.0, 0.0, 0.0]]


def test_entropy_is_over_legal_actions_alone_and_has_a_finite_gradient():
    logits = torch.tensor([[1.0, 1.0, -INF, 1.0], [-INF, 2.0, -INF, -INF]], requires_grad=True)
    found = entropy(F.log_softmax(logits, -1))
    assert found.tolist() == pytest.approx([math.log(3), 0.0])
    found.sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_the_actor_loss_is_reinforce_with_an_entropy_bonus():
    log_probs = torch.tensor([[[0.25, 0.75], [0.5, 0.5]]]).log()
    action, advantage, weight = torch.tensor([[0, 1]]), torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 0.5]])
    loss, mean_entropy = actor_loss(log_probs, action, advantage, weight, entropy_weight=0.1)
    h = [-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)), math.log(2)]
    expected = -((2 * math.log(0.25) + 0.1 * h[0]) + 0.5 * (-math.log(0.5) + 0.1 * h[1])) / 2
    assert loss.tolist() == pytest.approx([expected])
    assert mean_entropy.tolist() == pytest.approx([sum(h) / 2])


def test_gradients_of_the_actor_loss_are_summed_in_the_order_that_checkpoints_were_trained_with():
    """Bit for bit: autograd adds what comes back to `log_probs` in the order of use, the action's term first."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 256, 5, generator=generator)
    action = torch.randint(5, (2, 256), generator=generator)
    advantage, weight = torch.randn(2, 2, 256, generator=generator)
    gradients = []
    for is_reference in (True, False):
        leaf = logits.clone().requires_grad_()
        log_probs = F.log_softmax(leaf, -1)
        if is_reference:
            taken = log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)
            loss = -(weight * (advantage * taken + 3e-3 * entropy(log_probs))).mean(-1)
        else:
            loss, _ = actor_loss(log_probs, action, advantage, weight, entropy_weight=3e-3)
        loss.sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)


def test_a_step_against_the_actor_loss_favours_what_was_better_than_expected():
    logits = torch.zeros(1, 2, 2, requires_grad=True)
    loss, _ = actor_loss(
        F.log_softmax(logits, -1), torch.tensor([[0, 0]]), torch.tensor([[1.0, -1.0]]), torch.ones(1, 2), entropy_weight=0.0
    )
    loss.sum().backward()
    assert logits.grad[0, 0, 0] < 0 < logits.grad[0, 1, 0]


def test_the_critic_loss_is_the_cross_entropy_to_both_targets():
    bins = TwoHot(5, 2.0)
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    log_probs = F.log_softmax(logits, -1)
    at_bins = bins.bins[torch.tensor([[0, 2, 4], [1, 1, 3]])]
    slow = bins.bins[torch.tensor([[2, 2, 2], [0, 4, 3]])]
    weight = torch.tensor([[1.0, 1.0, 0.0], [0.5, 1.0, 1.0]])
    found = critic_loss(F.log_softmax(logits, -1), at_bins, slow, weight, bins, slow_weight=0.5)
    expected = [
        -sum(w * (log_probs[n, b, i] + 0.5 * log_probs[n, b, j]).item() for b, (i, j, w) in enumerate(rows)) / 3
        for n, rows in enumerate([[(0, 2, 1.0), (2, 2, 1.0), (4, 2, 0.0)], [(1, 0, 0.5), (1, 4, 1.0), (3, 3, 1.0)]])
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_the_best_critic_says_the_target():
    bins, logits = TwoHot(21, 6.0), torch.zeros(1, 1, 21, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    target = torch.tensor([[7.3]])
    for _ in range(200):
        optimizer.zero_grad()
        critic_loss(F.log_softmax(logits, -1), target, target, torch.ones(1, 1), bins, slow_weight=1.0).sum().backward()
        optimizer.step()
    assert bins.mean(logits).item() == pytest.approx(7.3, rel=0.01)


@pytest.mark.parametrize(
    ("taken", "advantage", "learns"),
    [(0.5, 1.0, True), (0.59, 1.0, True), (0.61, 1.0, False), (0.39, 1.0, True), (0.39, -1.0, False), (0.61, -1.0, True)],
)
def test_a_ratio_beyond_the_clip_is_left_where_it_is_and_one_on_the_way_back_is_not(taken, advantage, learns):
    """The action was drawn with probability 0.5; the clip of 0.2 lies at 0.4 and 0.6."""
    log_prob = torch.tensor([[math.log(taken)]], requires_grad=True)
    log_probs = torch.stack([log_prob, (1 - log_prob.exp()).log()], -1)
    ratio = log_prob.exp() / 0.5
    one = torch.ones(1, 1)
    loss, _ = actor_loss(log_probs, torch.tensor([[0]]), advantage * one, one, entropy_weight=0.0, ratio=ratio, ratio_clip=0.2)
    loss.sum().backward()
    expected = -advantage * ratio.item() if learns else 0.0
    assert log_prob.grad.item() == pytest.approx(expected, abs=1e-6)


def test_the_first_pass_of_many_has_the_gradient_of_the_only_one():
    """At a ratio of 1 the surrogate's gradient is REINFORCE's."""
    gradients = []
    for clipped in (False, True):
        logits = torch.tensor([[[0.3, -0.2, 1.0], [0.0, 0.5, -1.0]]], requires_grad=True)
        log_probs, action = F.log_softmax(logits, -1), torch.tensor([[2, 0]])
        taken = log_probs.gather(-1, action[..., None]).squeeze(-1)
        ratio = (taken - taken.detach()).exp() if clipped else None
        advantage, weight = torch.tensor([[1.5, -0.5]]), torch.tensor([[1.0, 0.7]])
        actor_loss(log_probs, action, advantage, weight, entropy_weight=0.1, ratio=ratio)[0].sum().backward()
        gradients.append(logits.grad)
    assert torch.allclose(*gradients, atol=1e-7)
