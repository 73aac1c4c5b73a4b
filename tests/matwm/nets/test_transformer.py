import pytest
import torch

from matwm.nets import attention
from matwm.nets.transformer import CausalTransformer, layout
from matwm.rng import seed_torch

D, POSITIONS = 8, 12


@pytest.fixture
def net():
    seed_torch(0, "test", 0)
    net = CausalTransformer(D, layers=2, heads=2, feedforward_multiple=2, max_positions=POSITIONS, dropout=0.3)
    with torch.no_grad():
        net.positions.weight.mul_(20)  # so that a test would notice if they were not used
    return net.eval()


def read(net, x, is_first=None, is_valid=None):
    shape = x.shape[:2]
    is_first = torch.zeros(shape, dtype=torch.bool) if is_first is None else is_first
    is_valid = torch.ones(shape, dtype=torch.bool) if is_valid is None else is_valid
    return net(x, *layout(is_first, is_valid))


# ---- what a row may see


def test_layout_separates_episodes_and_counts_from_their_starts():
    is_first = torch.tensor([[0, 0, 1, 0, 1]], dtype=torch.bool)
    positions, allowed = layout(is_first, torch.ones_like(is_first))
    assert positions.tolist() == [[0, 1, 0, 1, 0]]
    expected = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]]
    assert allowed[0].int().tolist() == expected


def test_layout_counts_from_the_first_valid_row_and_lets_padding_see_itself_only():
    is_valid = torch.tensor([[0, 0, 1, 1]], dtype=torch.bool)
    positions, allowed = layout(torch.zeros_like(is_valid), is_valid)
    assert positions[0, 2:].tolist() == [0, 1]
    assert allowed[0].int().tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]


@pytest.mark.parametrize("changed", [1, 4, 7])
def test_a_future_row_cannot_change_a_past_one(net, changed):
    x = torch.randn(3, 8, D)
    other = x.clone()
    other[:, changed:] = torch.randn(3, 8 - changed, D)
    before, after = read(net, x), read(net, other)
    assert torch.equal(before[:, :changed], after[:, :changed])
    assert not torch.isclose(before[:, changed:], after[:, changed:]).all(-1).any()


def test_an_episode_cannot_change_the_next_and_positions_restart(net):
    x = torch.randn(2, 8, D)
    is_first = torch.zeros(2, 8, dtype=torch.bool)
    is_first[:, 3] = True
    other = x.clone()
    other[:, :3] = torch.randn(2, 3, D)
    before, after = read(net, x, is_first), read(net, other, is_first)
    assert torch.equal(before[:, 3:], after[:, 3:])
    assert torch.allclose(before[:, 3:], read(net, x[:, 3:]), atol=1e-6)


@pytest.mark.parametrize("padding", range(6))
def test_left_padding_changes_nothing(net, padding):
    x = torch.randn(2, 6 - padding, D)
    padded = torch.cat([torch.randn(2, padding, D), x], 1)
    is_valid = torch.arange(6).expand(2, 6) >= padding
    out = read(net, padded, is_valid=is_valid)
    assert torch.isfinite(out).all()
    assert torch.allclose(out[:, padding:], read(net, x), atol=1e-6)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_is_the_textbook_one(heads):
    """The same numbers as torch's own attention, block by block."""
    seed_torch(1, "test", 0)
    net = CausalTransformer(D, 1, heads, 2, POSITIONS, 0.0).eval()
    block, x = net.blocks[0], torch.randn(2, 5, D)
    positions, allowed = layout(torch.zeros(2, 5, dtype=torch.bool), torch.ones(2, 5, dtype=torch.bool))
    theirs = torch.nn.MultiheadAttention(D, heads, bias=False, batch_first=True).eval()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(block.qkv.weight)
        theirs.out_proj.weight.copy_(block.project.weight)
    inner = net.norm(x + net.positions(positions))
    read_out, _ = theirs(inner, inner, inner, attn_mask=~allowed[0])
    middle = block.norm_attention(inner + read_out)
    expected = block.norm_feedforward(middle + block.narrow(block.widen(middle).relu()))
    assert torch.allclose(net(x, positions, allowed), expected, atol=1e-5)


# ---- one row at a time


@pytest.mark.parametrize("context", range(5))
def test_a_rollout_through_the_cache_is_the_full_forward_with_any_padding(net, context):
    """Rows with 0..context valid rows side by side; six steps after it."""
    steps = 6
    rows = context + 1
    x = torch.randn(rows, context + steps, D)
    is_valid = torch.cat([torch.arange(context) >= torch.arange(rows)[:, None], torch.ones(rows, steps, dtype=torch.bool)], 1)
    full = read(net, x, is_valid=is_valid)
    h, cache = net.prefill(x[:, :context], is_valid[:, :context], context + steps)
    found = torch.stack([net.step(x[:, context + t], cache) for t in range(steps)], 1)
    assert torch.allclose(found, full[:, context:], atol=1e-5)
    if context == 0:
        assert h.eq(0).all()
    else:
        has_past = is_valid[:, context - 1]
        assert torch.allclose(h[has_past], full[has_past, context - 1], atol=1e-5)
        assert torch.isfinite(h).all()


def test_the_cache_may_be_larger_than_what_is_read(net):
    x, valid = torch.randn(2, 4, D), torch.ones(2, 4, dtype=torch.bool)
    assert torch.equal(net.prefill(x, valid, 4)[0], net.prefill(x, valid, POSITIONS)[0])


def test_the_order_of_rows_counts(net):
    x = torch.randn(1, 5, D)
    assert not torch.allclose(read(net, x)[:, -1], read(net, x[:, [1, 0, 2, 3, 4]])[:, -1], atol=1e-3)


def test_equal_rows_differ_by_their_position_alone(net):
    out = read(net, torch.ones(1, 4, D))
    assert not torch.allclose(out[:, 0], out[:, 2], atol=1e-3)


def test_more_rows_than_positions_are_refused(net):
    x, valid = torch.randn(1, POSITIONS + 1, D), torch.ones(1, POSITIONS + 1, dtype=torch.bool)
    with pytest.raises(ValueError, match="13 rows exceeds max_positions = 12"):
        read(net, x)
    with pytest.raises(ValueError, match="13 rows"):
        net.prefill(x[:, :4], valid[:, :4], POSITIONS + 1)


def test_dropout_is_on_in_training_and_off_in_evaluation(net):
    x = torch.randn(2, 4, D)
    assert torch.equal(read(net, x), read(net, x))
    net.train()
    assert not torch.equal(read(net, x), read(net, x))


def test_training_drops_attention_projection_and_feed_forward(net, monkeypatch):
    calls = []
    real = attention.keep_mask
    monkeypatch.setattr(attention, "keep_mask", lambda x, dropout: calls.append(dropout) or real(x, dropout))
    read(net.train(), torch.randn(1, 3, D))
    assert calls == [0.3] * 6
