"""Images: in as bytes, out on a scale from 0 to 1, each by itself."""

import pytest
import torch
from torch import nn

from matwm.rng import seed_torch
from matwm.types import EnvSpec
from matwm.world_model.encoder import ImageAutoencoder, VectorAutoencoder, make_autoencoder
from tests.matwm.tiny import toy_config

PIXELS = 3 * 64 * 64
PICTURES = EnvSpec("pictures", ("a_0", "b_0"), (PIXELS, PIXELS), (2, 2), image_shape=(3, 64, 64))
VECTORS = EnvSpec("vectors", ("a_0", "b_0"), (3, 2), (2, 2))


def autoencoder(spec=PICTURES, **changes):
    seed_torch(0, "test", 0)
    return make_autoencoder(toy_config(spec).world_model.model_copy(update=changes), spec)


def images(rows=2, length=3, seed=0):
    return torch.randint(0, 256, (rows, length, 3, 64, 64), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


AGENT = torch.tensor([0, 1])


def test_what_agents_see_decides_the_networks():
    assert isinstance(autoencoder(PICTURES), ImageAutoencoder)
    assert isinstance(autoencoder(VECTORS), VectorAutoencoder)


def test_bytes_become_latents_and_latents_pictures():
    model = autoencoder()
    probs = model.posterior(images(), AGENT)
    assert probs.shape == (2, 3, 4, 4)
    assert torch.allclose(probs.sum(-1), torch.ones(2, 3, 4))
    assert model.decode(probs.flatten(-2)).shape == (2, 3, 3, 64, 64)
    target = model.target(torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 3, 1, 1))
    assert target.flatten().tolist() == [0.0, pytest.approx(0.2), 1.0]


def test_the_papers_four_layers_have_32_to_256_channels_and_a_mirror():
    model = autoencoder(encoder_width=256, latents=32, classes=32)
    down = [m for m in model.convolutions if isinstance(m, nn.Conv2d)]
    up = [m for m in model.decoder if isinstance(m, nn.ConvTranspose2d)]
    assert [(m.in_channels, m.out_channels) for m in down] == [(3, 32), (32, 64), (64, 128), (128, 256)]
    assert [(m.in_channels, m.out_channels) for m in up] == [(256, 128), (128, 64), (64, 32), (32, 3)]
    assert {(m.kernel_size, m.stride, m.padding) for m in [*down, *up]} == {((4, 4), (2, 2), (1, 1))}
    assert (model.encoder.in_features, model.encoder.out_features) == (4096 + 2, 1024)
    assert (model.widen.in_features, model.widen.out_features) == (1024, 4096)


def test_an_image_means_the_same_whatever_else_is_in_the_batch_in_training_and_acting():
    model, seen = autoencoder(), images()
    assert not list(model.buffers())
    together = model.train().posterior(seen, AGENT)
    alone = model.eval().posterior(seen[1:, 2:], AGENT[1:])
    assert torch.allclose(together[1:, 2:], alone, atol=1e-6)


def test_the_encoder_of_images_is_told_who_is_focal_only_if_asked():
    seen = images()[:1].expand(2, -1, -1, -1, -1)
    for told in (True, False):
        probs = autoencoder(agent_identity=told).posterior(seen, AGENT)
        assert torch.allclose(probs[0], probs[1]) != told


def test_every_weight_of_the_autoencoder_has_a_gradient():
    model = autoencoder()
    probs = model.posterior(images(), AGENT)
    (model.decode(probs.flatten(-2)) - model.target(images())).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
