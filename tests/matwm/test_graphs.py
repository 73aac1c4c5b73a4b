"""Tests what is around a CUDA graph on the CPU, with one that calls what was recorded again; real ones are in test_gpu.py."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from matwm.graphs import Graphed
from matwm.rng import seed_torch
from tests.matwm.test_trainer import digest, resumed, through_files
from tests.matwm.tiny import make_trainer, run


class Recording:
    """Stands for a graph: launched, it calls the function on the inputs' places and writes where the recorded output was."""

    owner: Graphed

    def replay(self):
        found = self.owner._function(**self.owner._inputs)
        place = self.owner._output
        if isinstance(place, Tensor):
            place.copy_(found)
        else:
            place._values.copy_(found._values)


@pytest.fixture(autouse=True)
def _graphs_on_the_cpu(monkeypatch):
    stream = SimpleNamespace(wait_stream=lambda other: None)
    record = Graphed._record

    def owned(self, inputs):
        graph = record(self, inputs)
        graph.owner = self
        return graph

    monkeypatch.setattr(Graphed, "_record", owned)
    for name, value in {
        "CUDAGraph": Recording,
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": lambda one: nullcontext(),
        "graph": lambda graph, capture_error_mode: nullcontext(),
        "get_rng_state": torch.get_rng_state,
        "set_rng_state": torch.set_rng_state,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)


def graphed(trainer, *, acting=False):
    """Return the trainer with its steps recorded, as `run.cuda_graphs` asks for."""
    trainer.learner.looks_at_once = False
    trainer.learner.record_steps()
    if acting:
        trainer._graphed_decision = Graphed(trainer._decide, list)
    return trainer


def test_a_recording_leaves_no_trace_and_outputs_are_not_overwritten():
    total = torch.zeros(2)

    def add(x: Tensor) -> Tensor:
        return total.add_(x + torch.rand(2)).clone()

    function = Graphed(add, lambda: [total])
    seed_torch(0, "test", 0)
    expected = torch.stack([torch.rand(2) + 1, torch.rand(2) + 10]).cumsum(0)
    seed_torch(0, "test", 0)
    first, second = function(x=torch.tensor([1.0, 1.0])), function(x=torch.tensor([10.0, 10.0]))
    assert torch.equal(first, expected[0])
    assert torch.allclose(second, expected[1])
    assert torch.equal(total, second)
    with pytest.raises(AssertionError, match="x was"):
        function(x=torch.zeros(1, 2))


def test_updates_that_are_launched_as_graphs_are_the_updates():
    """Simple Tag: 12 updates of the world model, 6 of the agents, and every bit of the state."""
    plain, recorded = make_trainer(), graphed(make_trainer())
    for trainer in (plain, recorded):
        run(trainer, 23)
    assert digest(recorded) == digest(plain)
    assert recorded.history == plain.history


def test_what_was_recorded_goes_on_from_a_state_that_is_loaded_later():
    whole, other = run(make_trainer(), 22), run(graphed(make_trainer()), 15)
    other.load(through_files(whole.parts()))
    assert digest(run(other, 5)) == digest(run(whole, 5))


def test_a_run_by_graphs_is_resumed_exactly_though_it_records_anew():
    whole = run(graphed(make_trainer(), acting=True), 20)
    part = graphed(resumed(run(graphed(make_trainer(), acting=True), 15)), acting=True)
    assert digest(run(part, 5)) == digest(whole)


def test_what_acting_launches_sees_the_rows_of_the_episode_and_nothing_before():
    """Episodes of 6 steps, contexts of 5 rows: padded windows from the first row of an episode to the last."""
    trainer, seen = graphed(make_trainer(), acting=True), []
    decide = trainer._graphed_decision
    trainer._graphed_decision = lambda **inputs: seen.append(inputs) or decide(**inputs)
    run(trainer, 18)
    assert [inputs["is_valid"].sum(1).tolist() for inputs in seen] == [[count] * 4 for count in (1, 2, 3, 4, 5, 5)]
    assert {tuple(inputs["obs"].shape) for inputs in seen} == {(4, 5, 16)}
    for inputs in seen:
        assert inputs["obs"][~inputs["is_valid"]].eq(0).all()
        assert inputs["action"][~inputs["is_valid"]].eq(-1).all()
        assert inputs["is_valid"][:, -1].all()
