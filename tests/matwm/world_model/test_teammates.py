import math

import pytest
import torch

from matwm.types import EnvSpec
from matwm.world_model.losses import masked_mean, teammate_loss
from tests.matwm.tiny import make_learner, make_windows, toy_config

SPEC = EnvSpec("uneven", ("two_0", "three_0", "four_0"), (5, 5, 5), (2, 3, 4))


@pytest.fixture
def predictor():
    return make_learner(SPEC, toy_config(SPEC, {"world_model.dropout": 0.0})).world_model.teammates


def test_a_mates_missing_actions_have_no_probability(predictor):
    index, agent = torch.zeros(3, 2, 4, dtype=torch.long), torch.arange(3)
    probs, _ = predictor.prefill(index, agent, torch.ones(3, 2, dtype=torch.bool), 2)
    for focal in range(3):
        for slot, mate in enumerate(SPEC.mates(focal)):
            count = SPEC.num_actions[mate]
            assert probs[focal, slot, count:].eq(0).all()
            assert (probs[focal, slot, :count] > 0).all()
    assert torch.allclose(probs.sum(-1), torch.ones(3, 2))


def test_the_loss_starts_near_that_of_guessing():
    """ln of each mate's number of actions, summed over mates: an earlier MATWM looked mates up by the wrong key and had exactly 0."""
    model = make_learner(SPEC).world_model
    windows = make_windows(SPEC, per_agent=20)
    _, metrics = model.loss(windows)
    chance = sum(math.log(SPEC.num_actions[mate]) for focal in range(3) for mate in SPEC.mates(focal)) / 3
    assert metrics["teammates"].item() == pytest.approx(chance, rel=0.25)


@pytest.mark.parametrize("code", ["one_hot", "ordinal"])
def test_a_window_read_at_once_and_row_by_row_gives_the_same_probabilities(code):
    model = make_learner(SPEC, toy_config(SPEC, {"world_model.dropout": 0.0, "world_model.latent_code": code})).world_model.eval()
    predictor = model.teammates
    index = torch.randint(4, (3, 6, 4), generator=torch.Generator().manual_seed(0))
    agent, valid = torch.arange(3), torch.ones(3, 6, dtype=torch.bool)
    z = model.autoencoder.code.read(torch.nn.functional.one_hot(index, 4).float())
    positions = torch.arange(6).expand(3, 6)
    allowed = torch.ones(6, 6).tril().bool().expand(3, 6, 6)
    full = predictor(z, agent, positions, allowed).exp()
    probs, memory = predictor.prefill(index[:, :3], agent, valid[:, :3], 6)
    assert torch.allclose(probs, full[:, 2], atol=1e-6)
    for t in range(3, 6):
        assert torch.allclose(predictor.step(index[:, t], memory), full[:, t], atol=1e-6)


def test_no_gradient_reaches_the_latents(predictor):
    z = torch.randn(3, 4, 16, requires_grad=True)
    windows = make_windows(SPEC, per_agent=1, length=4)
    positions = torch.arange(4).expand(3, 4)
    allowed = torch.ones(4, 4).tril().bool().expand(3, 4, 4)
    log_probs = predictor(z, windows.agent, positions, allowed)
    masked_mean(teammate_loss(log_probs, windows.mate_actions), windows.is_valid).backward()
    assert z.grad is None
    assert all(parameter.grad is not None for parameter in predictor.parameters())
