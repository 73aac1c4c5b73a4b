import pytest
import torch
from torch import nn

from matwm.batches import Features
from matwm.nets.mlp import FeatureLinear, LatentLinear, StackedMLP, mlp
from matwm.rng import seed_torch
from tests.matwm.tiny import dense

N, IN, WIDTH, OUT = 3, 11, 7, 4
LATENTS, CLASSES = 2, 3
LATENT_SIZE = LATENTS * CLASSES


def features_of(states: int) -> Features:
    rows = torch.randint(CLASSES, (N, states, LATENTS)) + torch.arange(LATENTS) * CLASSES
    return Features(rows, torch.randn(N, states, IN - LATENT_SIZE))


def separate(stacked: StackedMLP, agent: int) -> nn.Sequential:
    """Build one agent's network as ordinary modules."""
    net = mlp(IN, WIDTH, len(stacked.weights), OUT)
    with torch.no_grad():
        for layer in range(len(stacked.weights)):
            net[3 * layer].weight.copy_(stacked.weights[layer][agent].T)
            net[3 * layer + 1].weight.copy_(stacked.gains[layer][agent, 0])
            net[3 * layer + 1].bias.copy_(stacked.biases[layer][agent, 0])
        net[-1].weight.copy_(stacked.output_weight[agent].T)
        net[-1].bias.copy_(stacked.output_bias[agent, 0])
    return net


@pytest.fixture
def stacked():
    seed_torch(0, "test", 0)
    net = StackedMLP(N, IN, WIDTH, 2, OUT, output_scale=1.0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def test_stacked_networks_are_separate_ones_also_after_three_adam_steps(stacked):
    nets = [separate(stacked, agent) for agent in range(N)]
    together = torch.optim.Adam(stacked.parameters(), lr=1e-2)
    apart = [torch.optim.Adam(net.parameters(), lr=1e-2) for net in nets]
    x, target = features_of(6), torch.randn(N, 6, OUT)
    for _ in range(4):
        out = stacked(x)
        outs = torch.stack([net(dense(x, LATENT_SIZE)[agent]) for agent, net in enumerate(nets)])
        assert torch.allclose(out, outs, atol=1e-6)
        for optimizer in (together, *apart):
            optimizer.zero_grad()
        (out - target).square().sum().backward()
        (outs - target).square().sum().backward()
        for agent, net in enumerate(nets):
            assert torch.allclose(stacked.output_weight.grad[agent].T, net[-1].weight.grad, atol=1e-5)
            assert torch.allclose(stacked.weights[0].grad[agent].T, net[0].weight.grad, atol=1e-5)
            assert torch.allclose(stacked.gains[1].grad[agent, 0], net[4].weight.grad, atol=1e-5)
        for optimizer in (together, *apart):
            optimizer.step()


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("states", [1, 40])
def test_sums_of_rows_are_the_product_with_features_and_so_are_its_gradients(states, dtype):
    seed_torch(0, "test", 0)
    features, weight, slope = features_of(states), torch.randn(N, IN, WIDTH, requires_grad=True), torch.randn(N, states, WIDTH)
    expected = torch.bmm(dense(features, LATENT_SIZE), weight)
    found = FeatureLinear.apply(Features(features.latent_rows.to(dtype), features.numbers), weight)
    assert torch.allclose(found, expected, atol=1e-5)
    gradients = [torch.autograd.grad((out * slope).sum(), weight)[0] for out in (expected, found)]
    assert torch.allclose(*gradients, atol=1e-5)
    assert states > 1 or (gradients[1] == 0).all(-1).any(), "a class that nobody picked has no gradient"


def test_gradients_that_are_not_computed_are_refused_rather_than_dropped(stacked):
    x = features_of(6)
    with pytest.raises(AssertionError, match="the gradient of features would be lost"):
        stacked(Features(x.latent_rows, x.numbers.requires_grad_()))
    weight = stacked.weights[0]
    slope = torch.randn(N, 6, WIDTH, requires_grad=True)
    product = (FeatureLinear.apply(features_of(6), weight) * slope).sum()
    (first,) = torch.autograd.grad(product, weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()


def test_one_agents_rows_and_parameters_concern_no_other(stacked):
    x = features_of(6)
    before = stacked(x)
    with torch.no_grad():
        for parameter in stacked.parameters():
            parameter[1] += 1.0
    changed = features_of(6)
    for name, part in vars(changed).items():
        part[[0, 2]] = getattr(x, name)[[0, 2]]
    after = stacked(changed)
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert not torch.allclose(before[1], after[1])


def test_permuting_agents_permutes_results(stacked):
    x, order = features_of(6), [2, 0, 1]
    before = stacked(x)
    with torch.no_grad():
        for parameter in stacked.parameters():
            parameter.copy_(parameter[order].clone())
    assert torch.allclose(stacked(Features(x.latent_rows[order], x.numbers[order])), before[order], atol=1e-6)


def test_output_layers_start_as_small_as_asked():
    assert StackedMLP(N, IN, WIDTH, 2, OUT, output_scale=0.0).output_weight.eq(0).all()
    small = StackedMLP(N, IN, WIDTH, 2, OUT, output_scale=0.01).output_weight
    assert 0 < small.abs().max() <= 0.01 / WIDTH**0.5
    assert mlp(IN, WIDTH, 2, OUT, zero_output=True)(torch.randn(3, IN)).eq(0).all()


def test_hidden_layers_are_linear_without_bias_norm_and_silu():
    kinds = [type(module) for module in mlp(IN, WIDTH, 2, OUT)]
    assert kinds == [nn.Linear, nn.LayerNorm, nn.SiLU] * 2 + [nn.Linear]
    assert mlp(IN, WIDTH, 1, OUT)[0].bias is None


# ---- one-hots through a Linear


def test_the_sum_of_rows_is_the_product_with_one_hots_also_with_a_vocabulary_beyond_256():
    """Seven agents of 38 actions have 266 words: an index kept in bfloat16 would read 257 as 256 (STORM)."""
    seed_torch(0, "test", 0)
    latents, classes, words = 3, 5, 266
    layer = LatentLinear(latents, classes, words, 8)
    index, word = torch.randint(classes, (2, 4, latents)), torch.tensor([[0, 255, 256, 257], [258, 259, 260, 265]])
    z = nn.functional.one_hot(index, classes).flatten(-2).float()
    one_hots = torch.cat([z, nn.functional.one_hot(word, words).float()], -1)
    expected = one_hots @ layer.weight + layer.bias
    assert torch.allclose(layer.dense(z, word), expected, atol=1e-6)
    assert torch.allclose(layer.sparse(index, word), expected, atol=1e-6)
    assert torch.allclose(layer.sparse(index), layer.dense(z), atol=1e-6)
    assert len({tuple(row) for row in layer.sparse(index[:1, :1].expand(1, 266, -1), torch.arange(266)[None])[0].tolist()}) == 266


def test_a_negative_word_contributes_nothing():
    layer = LatentLinear(2, 3, 4, 5)
    z = torch.randn(6, 6)
    assert torch.equal(layer.dense(z, torch.full((6,), -1)), layer.dense(z))
