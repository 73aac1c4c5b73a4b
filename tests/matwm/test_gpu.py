"""Tests training on a GPU: skipped where there is none. What can be tested of it on a CPU is tested beside its subject."""

import pytest
import torch

from matwm.acting import random_actions
from matwm.rng import generator_for, seed_torch
from matwm.trainer import Trainer
from tests.matwm.test_trainer import IMAGES, digest, resumed, through_files
from tests.matwm.tiny import LEVELS, TOGETHER, make_trainer, run, tiny_config

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
CUDA = {"run.device": "cuda"}
KINDS = [
    pytest.param({}, id="vectors"),
    pytest.param({"run.precision": "bfloat16"}, id="bfloat16"),
    pytest.param(IMAGES, id="images"),
    pytest.param(LEVELS, id="levels"),
    pytest.param(TOGETHER, id="together"),
    pytest.param({"run.cuda_graphs": True}, id="graphs"),
    pytest.param({"run.cuda_graphs": True, "run.precision": "bfloat16"}, id="graphs of bfloat16"),
    pytest.param({**LEVELS, "run.cuda_graphs": True, "run.precision": "bfloat16"}, id="graphs of bfloat16 and levels"),
    pytest.param({**LEVELS, **TOGETHER, "run.cuda_graphs": True, "run.precision": "bfloat16"}, id="graphs of bfloat16, levels, together"),
]


def trained(changes, steps: int = 20) -> Trainer:
    return run(make_trainer(None, tiny_config({**CUDA, **changes})), steps)


@pytest.mark.parametrize("changes", KINDS)
def test_the_host_waits_for_nothing_while_it_draws_batches_and_updates(changes):
    """Rows that came since the last batch are brought to the device on the way."""
    trainer = trained(changes)
    rng = generator_for(0, "t", 2)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(21, 31):
            trainer.collector.step(lambda _, mask: random_actions(rng, mask), env_step=step)
        rows_behind = trainer.replay.total_rows - trainer.replay._mirror._up_to
        windows, _ = trainer.sample_windows(generator_for(0, "t", 0))
        contexts = trainer.sample_contexts(generator_for(0, "t", 1))
        readings = trainer.learner.update_world_model(windows), trainer.learner.update_agents(contexts)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert rows_behind >= 10 and trainer.replay._mirror._up_to == trainer.replay.total_rows
    assert readings[0]["world_model/total"] > 0
    assert len(readings[1].numbers) > 0


@pytest.mark.parametrize("changes", KINDS)
def test_a_run_that_was_interrupted_ends_bit_for_bit_where_one_that_was_not_does(changes):
    whole = trained(changes, 31)
    part = resumed(run(resumed(trained(changes, 21)), 4))
    run(part, 6)
    assert digest(part) == digest(whole)
    assert part.history == whole.history


@pytest.mark.parametrize("changes", [{}, {**LEVELS, **TOGETHER}], ids=["alone", "together"])
def test_updates_that_are_launched_as_graphs_are_the_updates(changes):
    """Twenty of each on the same batches and draws, the last ten after a load into what was recorded."""
    eager, graphed = trained(changes), trained({**changes, "run.cuda_graphs": True})
    start = through_files(eager.parts())
    for half in range(2):
        graphed.load(start)
        eager.load(start)
        for number in range(10):
            found = []
            for trainer in (eager, graphed):
                seed_torch(0, "t", number)
                windows, _ = trainer.sample_windows(generator_for(half, "t", number))
                contexts = trainer.sample_contexts(generator_for(half, "t", 100 + number))
                world, agents = trainer.learner.update_world_model(windows), trainer.learner.update_agents(contexts)
                found.append({**world.numbers, **agents.numbers})
            assert found[1] == pytest.approx(found[0], rel=1e-3, abs=1e-5)


def test_it_trains_as_the_cpu_does_as_far_as_draws_are_the_same():
    """Warm-up draws nothing by torch, and the first update's reconstruction loss hardly depends on which latents are drawn."""
    on_gpu, on_cpu = trained({}, 12), run(make_trainer(None, tiny_config()), 12)
    losses = [trainer.parts()["history"]["pending/world_model/reconstruction"][0].item() for trainer in (on_gpu, on_cpu)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
