import math

import pytest
import torch

from matwm.batches import Features
from matwm.nets.distributions import reinmax
from matwm.nets.mlp import StackedMLP
from matwm.types import EnvSpec
from matwm.world_model.latents import OneHotCode, OrdinalCode, make_code
from tests.matwm.tiny import make_learner, toy_config

SPEC = EnvSpec("pair", ("a_0", "b_0"), (3, 3), (2, 2))


def config(**changes):
    return toy_config(SPEC, {f"world_model.{key}": value for key, value in changes.items()}).world_model


@pytest.fixture
def code():
    return make_code(config(latents=3, classes=9, latent_code="ordinal"))


def test_the_configuration_names_the_code():
    assert isinstance(make_code(config()), OneHotCode)
    assert isinstance(make_code(config(latent_code="ordinal")), OrdinalCode)


def test_classes_of_an_ordinal_latent_are_likelier_the_nearer_their_level(code):
    probs = code.logits(torch.tensor([0.3, -9.0, 9.0])).softmax(-1)
    nearest = (code.levels - 3.15 * torch.tanh(torch.tensor(0.3))).abs().argsort()
    assert (probs[0][nearest].diff() < 0).all()
    assert (probs[1].diff() < 0).all()
    assert (probs[2].diff() > 0).all()
    assert probs[1].argmax() == 0
    assert probs[2].argmax() == 8


def test_a_narrower_width_makes_an_ordinal_latent_surer(code):
    before = code.logits(torch.tensor([0.0, 0.0, 0.0])).softmax(-1)
    with torch.no_grad():
        code.log_width[1] -= 1.0
    after = code.logits(torch.tensor([0.0, 0.0, 0.0])).softmax(-1)
    assert after[1].max() > before[1].max() + 0.1
    assert torch.equal(after[0], before[0])


def test_the_prior_of_an_ordinal_latent_moves_the_number_and_corrects_classes(code):
    """What the head says of a latent: how far it moves, the logarithm of its width in steps of 2/3, and a logit for each of 9 classes."""
    said, latent = torch.zeros(3, 11), torch.tensor([2, 4, 5])  # of which the numbers are -1.5, 0 and 0.75
    said[1, 0], said[2, 1], said[0, 2:] = 2.25, -1.0, torch.arange(9.0)
    logits = code.prior_logits(said.flatten(), latent)
    distance = torch.linspace(-3, 3, 9) - torch.tensor([[-1.5], [2.25], [0.75]])
    width = torch.tensor([[1.0], [1.0], [math.exp(-1)]]) * 2 / 3
    expected = -(distance / width).square() / 2
    expected[0] += torch.arange(9.0)
    assert torch.allclose(logits, expected, atol=1e-4)


def test_at_first_an_ordinal_latent_is_expected_to_stay():
    model = make_learner(SPEC, toy_config(SPEC, {"world_model.latent_code": "ordinal"})).world_model
    index = torch.randint(4, (6, 4), generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.prior(torch.randn(6, 16), index).argmax(-1), index)


def test_what_is_read_of_classes_is_what_is_read_of_their_one_hots(code):
    for each in (code, make_code(config(latents=3, classes=9))):
        index = torch.randint(9, (5, 3), generator=torch.Generator().manual_seed(0))
        read = each.read(torch.nn.functional.one_hot(index, 9).float())
        assert torch.allclose(each.read_index(index), read, atol=1e-6)
        rows, numbers = each.linear(0, 2).rows(index)
        assert rows.shape[1] * 9 + numbers.shape[1] == read.shape[1]


def test_a_linear_over_levels_multiplies_them_and_adds_the_word(code):
    linear = code.linear(2, 4)
    index, word = torch.tensor([[0, 4, 8], [8, 8, 2]]), torch.tensor([1, 0])
    levels = torch.tensor([[-3.0, 0.0, 3.0], [3.0, 3.0, -1.5]])
    expected = levels @ linear.weight[:3] + linear.weight[3 + word] + linear.bias
    assert torch.allclose(linear.sparse(index, word), expected, atol=1e-6)
    assert torch.allclose(linear.dense(levels, word), expected, atol=1e-6)
    nobody = linear.dense(levels, torch.tensor([-1, -1]))
    assert torch.allclose(nobody, levels @ linear.weight[:3] + linear.bias, atol=1e-6)


def test_agents_read_levels_as_numbers(code):
    linear = code.linear(0, 2)
    rows, numbers = linear.rows(torch.randint(9, (8, 3), generator=torch.Generator().manual_seed(0)))
    net = StackedMLP(2, 3, 5, 1, 2, output_scale=1.0)
    x = numbers.unflatten(0, (2, 4))
    out = net(Features(rows.unflatten(0, (2, 4)), x))
    hidden = torch.nn.functional.silu(torch.nn.functional.layer_norm(torch.bmm(x, net.weights[0]), (5,)))
    assert torch.allclose(out, torch.bmm(hidden, net.output_weight), atol=1e-6)
    out.sum().backward()
    assert net.weights[0].grad is not None and net.weights[0].grad.abs().sum() > 0


def test_the_gradient_of_a_squared_error_reaches_an_ordinal_latent_without_bias(code):
    """ReinMax averaged over every draw == the gradient of the expected loss, for width and number."""
    said = torch.tensor([0.2, 0.2, 0.2], requires_grad=True)
    probs = code.logits(said).softmax(-1)
    expected = torch.autograd.grad((probs * (code.levels - 0.5).square()).sum(), [said, code.log_width], retain_graph=True)
    found = [torch.zeros(3), torch.zeros(3, 1)]
    for drawn in range(9):
        z = code.read(reinmax(probs, torch.full((3,), drawn)))
        weight = probs[:, drawn].detach()
        each = torch.autograd.grad((weight * (z - 0.5).square()).sum(), [said, code.log_width], retain_graph=True)
        found = [total + gradient for total, gradient in zip(found, each, strict=True)]
    for total, gradient in zip(found, expected, strict=True):
        assert torch.allclose(total, gradient, atol=1e-5)
