import math

import pytest
import torch
from torch.nn import functional as F

from matwm.nets.distributions import unimix_probs
from matwm.rng import seed_torch
from matwm.world_model.losses import action_mask_loss, continuation_loss, kl_losses, masked_mean, reconstruction_loss, teammate_loss


def log_probs_of(logits):
    return unimix_probs(logits, 0.01).log()


def test_reconstruction_is_summed_over_the_agents_own_entries():
    prediction, target = torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[0.0, 0.0, 100.0]]])
    loss = reconstruction_loss(prediction, target, torch.tensor([[True, True, False]]))
    assert loss.tolist() == [[5.0]]


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_a_step_against_the_continuation_loss_moves_the_probability_towards_the_target(target):
    """Eq. 6 as printed lacks the minus sign: minimised, it would drive the head to be wrong."""
    logit = torch.zeros(1, 1, requires_grad=True)
    optimizer = torch.optim.Adam([logit], lr=0.1)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = continuation_loss(logit, torch.full((1, 1), target)).sum()
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    assert losses[0] == pytest.approx(math.log(2))
    assert losses[0] > losses[1] > losses[2] > 0
    assert (torch.sigmoid(logit).item() > 0.5) == (target == 1.0)


def test_a_step_against_the_mask_loss_moves_every_probability_towards_the_mask():
    mask, exists = torch.tensor([[[True, False, True, False]]]), torch.tensor([[True, True, True, False]])
    logits = torch.zeros(1, 1, 4, requires_grad=True)
    loss = action_mask_loss(logits, mask, exists)
    assert loss.item() == pytest.approx(3 * math.log(2))
    loss.sum().backward()
    assert torch.sign(-logits.grad[0, 0]).tolist() == [1, -1, 1, 0]


def test_the_teammate_loss_sums_over_mates_and_leaves_out_those_without_an_action():
    log_probs = torch.tensor([[[[0.5, 0.25, 0.25], [0.1, 0.9, 0.0]]]]).log()
    assert teammate_loss(log_probs, torch.tensor([[[2, 1]]])).item() == pytest.approx(-math.log(0.25) - math.log(0.9))
    assert teammate_loss(log_probs, torch.tensor([[[2, -1]]])).item() == pytest.approx(-math.log(0.25))
    assert teammate_loss(log_probs, torch.tensor([[[-1, -1]]])).item() == 0.0


def test_an_impossible_action_of_an_absent_mate_gives_no_nan_gradient():
    logits = torch.zeros(1, 1, 1, 3, requires_grad=True)
    log_probs = F.log_softmax(logits.masked_fill(torch.tensor([True, False, False]), float("-inf")), -1)
    teammate_loss(log_probs, torch.tensor([[[-1]]])).sum().backward()
    assert logits.grad.eq(0).all()


def test_dynamics_trains_the_prior_alone_and_representation_the_posterior_alone():
    seed_torch(0, "test", 0)
    posterior, prior = (torch.randn(3, 4, 2, 5).mul(3).requires_grad_() for _ in range(2))
    dynamics, representation, kl = kl_losses(log_probs_of(posterior), log_probs_of(prior), 0.1)
    assert torch.equal(dynamics, representation)
    assert not kl.requires_grad
    gradients = {
        (name, wrt): torch.autograd.grad(loss.sum(), tensor, retain_graph=True, allow_unused=True)[0]
        for name, loss in (("dynamics", dynamics), ("representation", representation))
        for wrt, tensor in (("posterior", posterior), ("prior", prior))
    }
    assert gradients["dynamics", "posterior"] is None
    assert gradients["representation", "prior"] is None
    assert gradients["dynamics", "prior"].abs().sum() > 0
    assert gradients["representation", "posterior"].abs().sum() > 0


def test_the_floor_is_each_rows_own_after_the_sum_over_latents():
    """One row far below the floor, one above: the mean is below it, and yet the second row keeps its gradient."""
    prior = torch.zeros(1, 2, 3, 2, requires_grad=True)
    strength = torch.tensor([0.5, 3.0])[None, :, None]
    posterior = torch.stack([strength.expand(1, 2, 3), torch.zeros(1, 2, 3)], -1)
    dynamics, _, kl = kl_losses(log_probs_of(posterior), log_probs_of(prior), 1.0)
    assert kl[0, 0] < 0.2
    assert 1.0 < kl[0, 1] < 1.8
    assert kl.mean() < 1.0
    assert dynamics[0].tolist() == pytest.approx([1.0, kl[0, 1].item()])
    dynamics.mean().backward()
    assert prior.grad[0, 0].eq(0).all()
    assert prior.grad[0, 1].abs().min() > 0


def test_three_latents_below_the_floor_are_together_above_it():
    """Each latent has 0.5 nats: clipped one by one they would count 3 and have no gradient."""
    p = torch.tensor([0.9, 0.1])
    each = (p * (p / 0.5).log()).sum().item()
    log_p = p.log().expand(1, 1, 3, 2)
    dynamics, *_ = kl_losses(log_p, torch.full((1, 1, 3, 2), math.log(0.5)), 1.0)
    assert 0.3 < each < 0.5
    assert dynamics.item() == pytest.approx(3 * each, rel=1e-5)


def test_the_mean_is_over_the_rows_that_count():
    values, mask = torch.tensor([[1.0, 2.0], [4.0, 8.0]]), torch.tensor([[True, False], [True, False]])
    assert masked_mean(values, mask).item() == 2.5
    assert masked_mean(values, torch.zeros_like(mask)).item() == 0.0
