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
