import numpy as np
import pytest
import torch

from matwm.actor_critic.returns import ReturnBounds, lambda_returns, percentile


def naive(reward, continues, value, discount, lambda_):
    """The mixture of n-step returns, written from its definition: O(H^2) and in no way recursive."""
    horizon = len(reward)
    targets = []
    for t in range(horizon):
        n_step = []
        for n in range(1, horizon - t + 1):
            total, weight = 0.0, 1.0
            for k in range(t, t + n):
                total += weight * reward[k]
                weight *= discount * continues[k]
            n_step.append(total + weight * value[t + n])
        mixture = sum((1 - lambda_) * lambda_ ** (n - 1) * target for n, target in enumerate(n_step[:-1], 1))
        targets.append(mixture + lambda_ ** (len(n_step) - 1) * n_step[-1])
    return targets


@pytest.mark.parametrize("lambda_", [0.0, 0.5, 0.95, 1.0])
def test_lambda_returns_are_the_mixture_of_n_step_returns(lambda_):
    rng = torch.Generator().manual_seed(0)
    reward = torch.randn(4, 7, generator=rng, dtype=torch.float64)
    continues = torch.rand(4, 7, generator=rng, dtype=torch.float64)
    value = torch.randn(4, 8, generator=rng, dtype=torch.float64)
    found = lambda_returns(reward, continues, value, discount=0.9, lambda_=lambda_)
    for row in range(4):
        expected = naive(reward[row].tolist(), continues[row].tolist(), value[row].tolist(), 0.9, lambda_)
        assert found[row].tolist() == pytest.approx(expected, abs=1e-12)


def test_closed_forms():
    reward, value = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([100.0, 10.0, 20.0, 30.0])
    ones, zeros = torch.ones(3), torch.zeros(3)
    one_step = lambda_returns(reward, ones, value, discount=0.5, lambda_=0.0)
    assert one_step.tolist() == [1 + 5, 2 + 10, 4 + 15]
    to_the_end = lambda_returns(reward, ones, value, discount=0.5, lambda_=1.0)
    assert to_the_end.tolist() == [1 + 1 + 1 + 30 / 8, 2 + 2 + 30 / 4, 4 + 15]
    assert torch.equal(lambda_returns(reward, zeros, value, discount=0.5, lambda_=0.7), reward)


@pytest.mark.parametrize("lambda_", [0.0, 0.3, 0.95, 1.0])
def test_exact_values_are_their_own_returns(lambda_):
    """A single reward of 10 at the end. Bootstrapping from V[t] instead of V[t + 1] would give 10.49 (STORM)."""
    discount, horizon = 0.985, 6
    reward = torch.zeros(horizon)
    reward[-1] = 10.0
    continues = torch.ones(horizon)
    continues[-1] = 0.0
    value = torch.tensor([10 * discount ** (horizon - 1 - t) for t in range(horizon)] + [0.0])
    found = lambda_returns(reward, continues, value, discount=discount, lambda_=lambda_)
    assert torch.allclose(found, value[:-1])


def test_the_end_of_an_episode_stops_credit():
    reward, continues = torch.tensor([0.0, 0.0, 1000.0]), torch.tensor([1.0, 0.0, 1.0])
    found = lambda_returns(reward, continues, torch.tensor([7.0, 0.0, 9.0, 9.0]), discount=0.9, lambda_=0.95)
    assert found[:2].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("count", [1, 2, 7, 19, 200])
@pytest.mark.parametrize("percent", [0.0, 5.0, 50.0, 95.0, 100.0])
def test_percentiles_are_numpys_for_each_agent(count, percent):
    values = torch.randn(3, count, generator=torch.Generator().manual_seed(count))
    expected = np.quantile(values.numpy(), percent / 100, axis=1)
    assert percentile(values, percent).tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_bounds_are_moving_averages_from_zero():
    bounds = ReturnBounds(2)
    returns = torch.tensor([[0.0, 10.0], [-100.0, 100.0]])
    bounds.update(returns, torch.ones(2, dtype=torch.bool), low=0, high=100, decay=0.9)
    bounds.update(returns, torch.ones(2, dtype=torch.bool), low=0, high=100, decay=0.9)
    share = 1 - 0.9**2
    assert bounds.low.tolist() == pytest.approx([0.0, -100 * share])
    assert bounds.high.tolist() == pytest.approx([10 * share, 100 * share])


def test_the_scale_is_the_spread_but_at_least_the_minimum():
    bounds = ReturnBounds(3)
    bounds.low.copy_(torch.tensor([0.0, -5.0, 2.0]))
    bounds.high.copy_(torch.tensor([0.5, 5.0, 2.0]))
    assert bounds.scale(1.0).tolist() == [1.0, 10.0, 1.0]


def test_bounds_are_saved():
    bounds = ReturnBounds(2)
    bounds.update(torch.tensor([[0.0, 10.0], [-100.0, 100.0]]), torch.tensor([True, False]), low=5, high=95, decay=0.5)
    assert (bounds.low[1], bounds.high[1]) == (0, 0), "those of who learns nothing stay"
    again = ReturnBounds(2)
    again.load_state_dict(bounds.state_dict())
    assert torch.equal(again.scale(1.0), bounds.scale(1.0))
    assert set(bounds.state_dict()) == {"low", "high"}


def test_percentiles_of_what_counts_are_those_of_what_is_left():
    rng = torch.Generator().manual_seed(2)
    values, counts = torch.randn(3, 9, generator=rng), torch.rand(3, 9, generator=rng) < 0.6
    for percent in (0.0, 5.0, 50.0, 95.0, 100.0):
        found = percentile(values, percent, counts)
        expected = [np.percentile(row[mine].numpy(), percent) for row, mine in zip(values, counts, strict=True)]
        assert found.tolist() == pytest.approx(expected, abs=1e-6)
    everything = torch.ones_like(counts)
    assert percentile(values, 5.0, everything).tolist() == pytest.approx(percentile(values, 5.0).tolist(), abs=1e-6)


def filled(bounds, times, learns=(True, True)):
    for _ in range(times):
        returns = torch.tensor([[0.0, 10.0], [0.0, 4.0]])
        bounds.update(returns, torch.tensor(learns), low=0, high=100, decay=0.9)
    return bounds


def test_the_first_scale_is_the_first_spread_where_the_start_at_0_is_corrected():
    assert filled(ReturnBounds(2, debias=True), 1).scale(1e-3).tolist() == pytest.approx([10.0, 4.0], rel=1e-5)
    assert filled(ReturnBounds(2), 1).scale(1e-3).tolist() == pytest.approx([1.0, 0.4], rel=1e-5)
    late = filled(ReturnBounds(2, debias=True), 1, learns=(True, False))
    assert filled(late, 1).scale(1e-3).tolist() == pytest.approx([10.0, 4.0], rel=1e-5)


def test_a_state_saved_with_the_other_setting_is_taken_as_it_is_and_not_corrected():
    plain, corrected = filled(ReturnBounds(2), 3), filled(ReturnBounds(2, debias=True), 3)
    assert set(plain.state_dict()) == {"low", "high"}
    on = ReturnBounds(2, debias=True)
    on.load_state_dict(plain.state_dict())
    assert torch.equal(on.scale(1e-3), plain.scale(1e-3))
    off = ReturnBounds(2)
    off.load_state_dict(corrected.state_dict())
    assert torch.equal(off.scale(1e-3), plain.scale(1e-3))
