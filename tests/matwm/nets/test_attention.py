import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from matwm.nets import attention
from matwm.nets.attention import as_bias, attend, drop_out, keep_mask, softmax
from matwm.rng import seed_torch

HEADS, D = 2, 8


def head_by_head(qkv, allowed, keep):
    """Each head of each sequence by itself, with torch's own attention where nothing is dropped."""
    outputs = []
    for batch, sequence in enumerate(qkv):
        q, k, v = (part.unflatten(-1, (HEADS, -1)) for part in sequence.chunk(3, -1))
        heads = []
        for head in range(HEADS):
            unit = torch.eye(len(sequence))
            weights = scaled_dot_product_attention(q[:, head], k[:, head], unit, attn_mask=allowed[batch])
            heads.append((weights * keep[batch * HEADS + head]) @ v[:, head])
        outputs.append(torch.cat(heads, -1))
    return torch.stack(outputs)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("length", [3, 20])
def test_results_and_gradients_are_those_of_heads_by_themselves(length, dropout, monkeypatch):
    seed_torch(0, "test", 0)
    qkv = torch.randn(4, length, 3 * D, requires_grad=True)
    allowed = torch.ones(length, length).tril().bool().expand(4, -1, -1)
    keep = keep_mask(torch.zeros(4 * HEADS, length, length), dropout)
    monkeypatch.setattr(attention, "keep_mask", lambda like, share: keep)
    slope = torch.randn(4, length, D)
    bias = as_bias(allowed, HEADS)
    found, expected = attend(qkv, bias, HEADS, dropout), head_by_head(qkv, allowed, keep)
    assert torch.allclose(found, expected, atol=1e-6)
    gradients = [torch.autograd.grad((out * slope).sum(), qkv)[0] for out in (found, expected)]
    assert torch.allclose(*gradients, atol=1e-5)
    assert torch.allclose(attend(qkv.detach(), bias, HEADS, dropout), expected, atol=1e-6), "where no gradient is needed"


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


def test_without_dropout_nothing_is_drawn_or_copied():
    x, before = torch.randn(5), torch.get_rng_state()
    assert drop_out(x, 0.0) is x
    assert torch.equal(torch.get_rng_state(), before)


def test_a_dropout_just_below_one_drops_nearly_all_and_stays_finite():
    seed_torch(0, "test", 0)
    mask = keep_mask(torch.zeros(1000, 1000), 1 - 2**-20)
    assert 1 <= (mask > 0).sum() < 60  # of 15.3 expected
    assert mask.max() == 2**16


def test_the_mask_is_drawn_where_its_tensor_is():
    """All that a GPU does otherwise: its numbers come from its own generator."""
    mask = keep_mask(torch.empty(3, 5, device="meta"), 0.1)
    assert (mask.device.type, mask.shape) == ("meta", (3, 5))


@pytest.mark.parametrize("needs_gradient", [False, True])
@pytest.mark.parametrize("length", [1, 7, 16, 40])
def test_softmax_is_softmax(length, needs_gradient):
    scores = torch.randn(6, length) * 30
    scores[0, 1:] = float("-inf")
    weights = softmax(scores.requires_grad_(needs_gradient))
    assert torch.allclose(weights, torch.softmax(scores, -1), atol=1e-6)
    assert weights.requires_grad == needs_gradient
