import pytest
import torch

from matwm.nets import attention
from matwm.nets.attention import as_bias, attend, drop_out, keep_mask, merge_heads, softmax, split_heads
from matwm.rng import seed_torch

HEADS = 2


def by_autograd(qkv, bias, keep):
    q, k, v = split_heads(qkv, HEADS)
    weights = torch.softmax(q @ k.mT * q.shape[-1] ** -0.5 + bias, -1)
    return merge_heads((weights * keep) @ v, HEADS)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("length", [3, 20])
def test_results_and_gradients_are_those_of_autograd(length, dropout, monkeypatch):
    seed_torch(0, "test", 0)
    qkv = torch.randn(4, length, 3 * 8, requires_grad=True)
    bias = as_bias(torch.ones(length, length).tril().bool().expand(4, -1, -1), HEADS)
    keep = keep_mask(torch.zeros(4 * HEADS, length, length), dropout)
    monkeypatch.setattr(attention, "keep_mask", lambda like, share: keep)
    slope = torch.randn(4, length, 8)
    found, expected = attend(qkv, bias, HEADS, dropout), by_autograd(qkv, bias, keep)
    assert torch.allclose(found, expected, atol=1e-6)
    gradients = [torch.autograd.grad((out * slope).sum(), qkv)[0] for out in (found, expected)]
    assert torch.allclose(*gradients, atol=1e-5)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(share):
    seed_torch(0, "test", 0)
    mask = keep_mask(torch.zeros(301, 997), share)
    assert mask.shape == (301, 997)
    assert (mask == 0).float().mean().item() == pytest.approx(share, abs=0.004)
    assert mask[mask > 0].unique().tolist() == pytest.approx([1 / (1 - share)], rel=1e-4)
    dropped = (mask == 0).float()
    for lag in range(1, 5):  # four elements share a random number: they must not know of each other
        together = (dropped[:, lag:] * dropped[:, :-lag]).mean().item()
        assert together == pytest.approx(share**2, abs=0.006), lag
    x = torch.randn(5)
    assert drop_out(x, 0.0) is x


@pytest.mark.parametrize("length", [1, 7, 16, 40])
def test_softmax_is_softmax(length):
    scores = torch.randn(6, length) * 30
    scores[0, 1:] = float("-inf")
    assert torch.allclose(softmax(scores), torch.softmax(scores, -1), atol=1e-6)
