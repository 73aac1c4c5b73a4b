import math

import pytest
import torch
from torch.nn import functional as F

from matwm.nets.distributions import TwoHot, categorical_kl, reinmax, sample_index, straight_through, symexp, symlog, unimix_probs
from matwm.rng import seed_torch

SIZES = [(255, 10.0), (63, 8.0), (41, 8.0)]


# ---- numbers as two-hot distributions


@pytest.mark.parametrize(("count", "bound"), SIZES)
def test_decoding_undoes_encoding(count, bound):
    bins = TwoHot(count, bound)
    edge = math.expm1(bound)
    x = torch.tensor([0.0, 0.1, -0.1, 1.0, -1.0, 10.0, -10.0, 30.0, -30.0, 1234.5, edge, -edge])
    rows = bins.encode(x)
    assert torch.allclose(rows.sum(-1), torch.ones(len(x)))
    assert (rows >= 0).all()
    assert ((rows > 0).sum(-1) <= 2).all()
    assert torch.allclose(bins.mean(rows.log()), x, rtol=1e-4, atol=1e-5)


def test_the_bins_are_symexp_of_equal_steps_with_zero_in_the_middle():
    bins = TwoHot(5, 2.0).bins
    expected = torch.tensor([-math.expm1(2), -math.expm1(1), 0, math.expm1(1), math.expm1(2)])
    assert torch.allclose(bins, expected, rtol=1e-6)
    assert torch.equal(bins, -bins.flip(0))


@pytest.mark.parametrize(("count", "bound"), SIZES)
def test_uniform_logits_decode_to_exactly_zero(count, bound):
    assert TwoHot(count, bound).mean(torch.full((3, count), 0.37)).eq(0).all()


@pytest.mark.parametrize(("count", "bound"), SIZES)
def test_a_rare_reward_keeps_its_expectation(count, bound):
    """10 in one case of twenty is worth 0.5: a mean in symlog space would say 0.13, the likeliest bin 0."""
    bins = TwoHot(count, bound)
    mixed = 0.05 * bins.encode(torch.tensor(10.0)) + 0.95 * bins.encode(torch.tensor(0.0))
    assert bins.mean(mixed.log()).item() == pytest.approx(0.5, rel=1e-4)


def test_values_beyond_the_bins_are_clipped_and_counted():
    bins = TwoHot(5, 2.0)
    x = torch.tensor([100.0, -100.0, 1.0, 6.3])
    assert bins.mean(bins.encode(x).log())[:2].tolist() == pytest.approx([math.expm1(2), -math.expm1(2)])
    assert bins.clipped(x).item() == 0.5


def test_cross_entropy_weighs_the_two_neighbouring_bins_by_nearness():
    one, two = math.expm1(1), math.expm1(2)
    bins, log_probs = TwoHot(5, 2.0), F.log_softmax(torch.tensor([0.3, -1.0, 2.0, 0.7, -0.2]), 0)
    a, b, c, d, e = log_probs.tolist()  # of -two, -one, 0, one, two
    x = torch.tensor([[0.0, one, -one, one / 2, -one / 2], [(one + two) / 2, (one + 3 * two) / 4, -(3 * one + two) / 4, 100.0, -7.0]])
    expected = [[-c, -d, -b, -(c + d) / 2, -(b + c) / 2], [-(d + e) / 2, -(d + 3 * e) / 4, -(3 * b + a) / 4, -e, -a]]
    found = bins.cross_entropy(log_probs.expand(2, 5, 5), x)
    assert torch.allclose(found, torch.tensor(expected), rtol=1e-5)


def test_the_marginal_entropy_is_what_knowing_only_frequencies_costs():
    bins, x = TwoHot(21, 6.0), torch.tensor([[0.0, 0.0, 10.0], [0.3, -1.5, 900.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    code = bins.encode(x)[mask].mean(0)
    best = bins.cross_entropy(code.clamp(min=1e-30).log().expand(2, 3, 21), x)[mask].mean()
    assert bins.marginal_entropy(x, mask).item() == pytest.approx(best.item(), rel=1e-5)
    assert bins.marginal_entropy(torch.zeros(2, 3), mask).item() == 0.0


# ---- symlog


def test_symlog_and_symexp_undo_each_other_and_are_odd():
    x = torch.tensor([0.0, 1e-6, 0.1, 1.0, 30.0, 1e4])
    assert torch.allclose(symexp(symlog(x)), x, rtol=1e-5)
    assert torch.allclose(symlog(symexp(x[:4])), x[:4], rtol=1e-5)
    assert torch.equal(symlog(-x), -symlog(x))
    assert torch.equal(symexp(-x), -symexp(x))
    assert symlog(torch.tensor(math.e - 1)).item() == pytest.approx(1.0)


@pytest.mark.parametrize("function", [symlog, symexp])
def test_the_gradient_at_zero_is_finite(function):
    x = torch.zeros(3, requires_grad=True)
    function(x).sum().backward()
    assert torch.isfinite(x.grad).all()


# ---- categoricals


def test_unimix_leaves_no_class_impossible_and_sums_to_one():
    logits = torch.tensor([[100.0, 0.0, -100.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    probs = unimix_probs(logits, 0.01)
    assert (probs >= 0.01 / 4).all()
    assert torch.allclose(probs.sum(-1), torch.ones(2))
    assert probs[0, 0].item() == pytest.approx(0.99 + 0.01 / 4)
    assert torch.equal(unimix_probs(logits, 0.0), F.softmax(logits, -1))


def test_kl_has_the_closed_form_of_two_classes_summed_over_latents():
    p, q = torch.tensor([[0.9, 0.1], [0.5, 0.5]]), torch.tensor([[0.4, 0.6], [0.2, 0.8]])
    expected = 0.9 * math.log(0.9 / 0.4) + 0.1 * math.log(0.1 / 0.6) + 0.5 * math.log(0.5 / 0.2) + 0.5 * math.log(0.5 / 0.8)
    assert categorical_kl(p.log(), q.log()).item() == pytest.approx(expected, rel=1e-5)


def test_kl_is_zero_only_between_equals():
    logits = torch.randn(50, 3, 4, generator=torch.Generator().manual_seed(0))
    log_p, log_q = unimix_probs(logits, 0.01).log(), unimix_probs(logits.flip(0), 0.01).log()
    assert categorical_kl(log_p, log_p).abs().max() < 1e-6
    assert (categorical_kl(log_p, log_q) > 0).all()


def test_samples_have_the_frequencies_of_their_probabilities():
    seed_torch(0, "test", 0)
    probs = torch.tensor([0.0, 0.1, 0.0, 0.6, 0.3, 0.0])
    counts = torch.bincount(sample_index(probs.expand(40000, -1)), minlength=6) / 40000
    assert counts[probs == 0].eq(0).all()
    assert torch.allclose(counts, probs, atol=0.01)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_no_uniform_number_draws_an_impossible_class(monkeypatch, uniform):
    monkeypatch.setattr(torch, "rand_like", lambda like: torch.full_like(like, uniform))
    probs = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1 / 3, 2 / 3], [0.7, 0.3, 0.0], [0.0, 0.0, 1e-9]])
    assert (probs.gather(1, sample_index(probs)[:, None]) > 0).all()


def test_straight_through_is_one_hot_ahead_and_probabilities_behind():
    logits = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(1))
    probs = unimix_probs(logits, 0.01)
    index = torch.randint(4, (5, 3), generator=torch.Generator().manual_seed(2))
    z = straight_through(probs, index)
    assert torch.allclose(z, F.one_hot(index, 4).float(), atol=1e-6)
    (through,) = torch.autograd.grad((z * weights).sum(), logits, retain_graph=True)
    (plain,) = torch.autograd.grad((probs * weights).sum(), logits)
    assert torch.allclose(through, plain)


def test_reinmax_is_one_hot_ahead_and_exact_for_quadratic_losses_behind():
    draw = torch.Generator().manual_seed(2)
    logits = torch.randn(5, generator=draw, dtype=torch.float64).requires_grad_()
    curvature, slope = torch.randn(5, 5, generator=draw, dtype=torch.float64), torch.randn(5, generator=draw, dtype=torch.float64)

    def loss(z):
        return z @ curvature @ z + z @ slope

    probs = unimix_probs(logits, 0.01)
    every = [torch.eye(5, dtype=torch.float64)[index] for index in range(5)]
    (truth,) = torch.autograd.grad(sum(p * loss(z) for p, z in zip(probs, every, strict=True)), logits, retain_graph=True)

    def expected(one_hot):
        total = torch.zeros(5, dtype=torch.float64)
        for index in range(5):
            z = one_hot(probs, torch.tensor(index))
            assert torch.equal(z.detach(), every[index])
            total += probs[index].detach() * torch.autograd.grad(loss(z), logits, retain_graph=True)[0]
        return total

    assert torch.allclose(expected(reinmax), truth, atol=1e-12)
    assert not torch.allclose(expected(straight_through), truth, atol=1e-2)


def test_straight_through_of_a_constant_has_no_gradient():
    probs = torch.full((2, 4), 0.25)
    assert not straight_through(probs, torch.tensor([0, 3])).requires_grad
