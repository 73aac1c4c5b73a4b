"""Holds what a GPU computes otherwise to what the CPU computes; neither form knows its device."""

import pytest
import torch

from matwm.nets.distributions import TwoHot, pick, sample_index
from matwm.nets.on_gpu import pick_by_mask, sample_by_race, two_hot_by_mask
from matwm.rng import seed_torch
from tests.matwm.tiny import DEVICES


def test_a_race_draws_each_class_by_its_probability_and_none_of_probability_zero():
    """Of 40,000 draws a share is off by 0.0025 at most, one standard deviation."""
    seed_torch(0, "test", 0)
    probs = torch.tensor([0.5, 0.0, 0.3, 0.15, 0.05])
    shares = torch.bincount(sample_by_race(probs.expand(40_000, 5)), minlength=5) / 40_000
    assert shares.tolist() == pytest.approx(probs.tolist(), abs=0.01)
    assert shares[1] == 0


def test_a_race_of_one_class_is_won_by_it():
    probs = torch.eye(6).expand(500, 6, 6)
    assert torch.equal(sample_by_race(probs), torch.arange(6).expand(500, 6))


def test_picking_by_a_mask_is_picking_forward_and_backward_also_beside_what_is_impossible():
    seed_torch(0, "test", 1)
    logits = torch.randn(7, 3, 5).masked_fill(torch.rand(7, 3, 5) < 0.3, float("-inf"))
    index = torch.randint(5, (7, 3))
    logits.scatter_(-1, index.unsqueeze(-1), 0.3)
    found = []
    for function in (pick, pick_by_mask):
        x = logits.clone().requires_grad_()
        picked = function(torch.log_softmax(x, -1), index)
        (picked * torch.randn(7, 3, generator=torch.Generator().manual_seed(0))).sum().backward()
        found.append((picked, x.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert found[1][1].isfinite().all()


@pytest.mark.parametrize(("count", "bound"), [(255, 10.0), (5, 2.0), (3, 1.0)])
def test_two_hot_codes_by_a_mask_are_those_that_are_written(count, bound):
    seed_torch(0, "test", 2)
    bins = TwoHot(count, bound)
    x = torch.cat([torch.randn(50) * 10, bins.bins, torch.tensor([1e9, -1e9, 0.0])])
    lower = (torch.searchsorted(bins.bins, x.clamp(bins.bins[0], bins.bins[-1]), right=True) - 1).clamp(0, count - 2)
    low, high = bins.bins[lower], bins.bins[lower + 1]
    weight = (x.clamp(bins.bins[0], bins.bins[-1]) - low) / (high - low)
    assert torch.equal(two_hot_by_mask(lower, weight, count), bins.encode(x))


@pytest.mark.parametrize("device", DEVICES)
def test_every_device_picks_encodes_and_draws_by_the_same_law(device):
    seed_torch(0, "test", 3)
    log_probs, index = torch.log_softmax(torch.randn(9, 5), -1), torch.randint(5, (9,))
    bins, x = TwoHot(63, 8.0), torch.randn(90) * 20
    assert torch.equal(pick(log_probs.to(device), index.to(device)).cpu(), pick(log_probs, index))
    assert torch.allclose(bins.to(device).encode(x.to(device)).cpu(), TwoHot(63, 8.0).encode(x), rtol=1e-5, atol=1e-6)
    shares = sample_index(log_probs[0].exp().to(device).expand(40_000, 5)).bincount(minlength=5).cpu() / 40_000
    assert shares.tolist() == pytest.approx(log_probs[0].exp().tolist(), abs=0.01)
