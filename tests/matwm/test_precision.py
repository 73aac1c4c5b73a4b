"""Tests what `run.precision: bfloat16` rounds, and that it rounds nothing else, on the CPU, where autocast works too."""

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from matwm.params_yaml import parse_config
from matwm.rng import generator_for, seed_torch
from matwm.stateful import split
from matwm.trainer import Trainer
from tests.matwm.test_trainer import IMAGES, digest, resumed
from tests.matwm.tiny import LEVELS, make_trainer, run, tiny_config

PRODUCTS = {"linear", "matmul", "bmm", "baddbmm", "conv2d", "conv_transpose2d"}
LOW = {"run.precision": "bfloat16"}


class Recorder(TorchFunctionMode):
    """Notes which functions were given bfloat16, and which returned it."""

    def __init__(self) -> None:
        super().__init__()
        self.called: set[str] = set()
        self.given: set[str] = set()
        self.returned: set[str] = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result, name = func(*args, **(kwargs or {})), getattr(func, "__name__", "")
        self.called.add(name)
        self.given |= {name for value in args if isinstance(value, Tensor) and value.dtype == torch.bfloat16}
        self.returned |= {name for value in [result] if isinstance(value, Tensor) and value.dtype == torch.bfloat16}
        return result


def moved(changes) -> Trainer:
    """Return a trainer some updates from its start, whose heads do not give zero any more."""
    return run(make_trainer(None, tiny_config(changes)), 20)


@pytest.mark.parametrize("changes", [{}, LEVELS, IMAGES], ids=["vectors", "levels", "images"])
def test_only_products_are_rounded_and_their_results_are_float32_again(changes):
    trainer = moved({**changes, **LOW})
    with Recorder() as recorder:
        run(trainer, 2)
    assert recorder.returned == (PRODUCTS if changes is IMAGES else PRODUCTS - {"conv2d", "conv_transpose2d"})
    assert recorder.given == {"__get__", "float"}, "nobody but who asks for the type and makes it float32 again sees a rounded result"
    assert {"softmax", "log_softmax", "layer_norm", "cumprod", "sort", "searchsorted"} <= recorder.called


def test_losses_and_gradients_are_near_those_of_float32():
    exact = moved({})
    found = {}
    for precision in ("float32", "bfloat16"):
        trainer = resumed(exact)
        learner = trainer.learner
        learner.config = tiny_config({"run.precision": precision})
        windows, _ = trainer.replay.sample_windows(generator_for(0, "t", 0), per_agent=4, length=8)
        seed_torch(0, "t", 0)
        learner.world_model.train()
        with learner.products():
            loss, _ = learner.world_model.loss(windows)
        loss.backward()
        gradients = [p.grad for p in learner.world_model.parameters() if p.grad is not None]
        assert loss.dtype == torch.float32
        assert {gradient.dtype for gradient in gradients} == {torch.float32}
        found[precision] = loss.item(), torch.cat([gradient.flatten() for gradient in gradients])
    (loss, gradient), (rounded_loss, rounded_gradient) = found.values()
    assert loss != rounded_loss == pytest.approx(loss, rel=0.02)
    assert torch.cosine_similarity(gradient, rounded_gradient, 0) > 0.99


def test_agents_learn_from_what_the_imagination_before_left_rounded():
    """Autocast keeps rounded weights; those of imagination, which knows no gradient, must not serve the loss."""
    trainer = moved(LOW)
    before = {name: p.detach().clone() for name, p in trainer.learner.agents.named_parameters()}
    run(trainer, 2)
    assert {name for name, p in trainer.learner.agents.named_parameters() if torch.equal(p, before[name])} == set()


def test_training_in_bfloat16_resumes_exactly_and_its_state_is_float32():
    exact, whole = moved({}), moved(LOW)
    assert digest(exact) != digest(whole)
    types = [
        {path: tensor.dtype for path, tensor in split(one.parts()[part])[0].items()}
        for one in (exact, whole)
        for part in one.learner.parts()
    ]
    assert types[: len(types) // 2] == types[len(types) // 2 :]
    assert {dtype for part in types for dtype in part.values()} == {torch.float32}
    again = resumed(whole)
    assert digest(run(again, 5)) == digest(run(whole, 5))
    assert again.history == whole.history


def test_what_is_older_than_the_choice_is_of_float32_whatever_the_rest_comes_from():
    old, low = tiny_config().shaping(), tiny_config(LOW)
    assert "precision" not in old["run"]
    assert low.shaping()["run"]["precision"] == "bfloat16"
    assert parse_config(low.shaped_by(old)) == tiny_config()
    assert parse_config(tiny_config().shaped_by(low.shaping())) == low
