"""The cost of a step is what was timed, weighted by the schedule, and held against the operations that it takes."""

import importlib

import pytest
import torch

from benchmarks.learning import REPOSITORY
from matwm.params_yaml import load_config, preset_path

TIMED = ("act", "environment", "world model", "imagine", "checkpoint", "actor-critic")


@pytest.fixture
def step_cost(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    module = importlib.import_module("step_cost")
    monkeypatch.setattr(module, "MATRIX_SIZE", 128)
    monkeypatch.setattr(module, "ROWS", 100)
    return module


def test_ratios_are_those_that_are_worked_out_by_hand(step_cost):
    one = step_cost.Repetition(
        seconds={"act": 2.0, "environment": 1.0, "world model": 6.0, "imagine": 4.0},
        rate={"act": 10.0, "environment": 8.0, "world model": 5.0, "imagine": 20.0},
    )
    ratios = one.ratios({"act": 5.0, "world model": 10.0, "imagine": 40.0}, {"world model": 2, "imagine": 4})
    # act 2 * 10 / 5, world model 6 * 5 / 10, imagine 4 * 20 / 40; a step 20 + 8 + 30/2 + 80/4 = 63 over 5 + 10/2 + 40/4 = 20.
    assert ratios == {"act": 4.0, "world model": 3.0, "imagine": 2.0, "total": 3.15}


def test_short_parts_are_called_often_and_what_agents_imagine_is_taken_off(step_cost, monkeypatch):
    """By a clock that says 2 s of each matrix product and 60 s of each part, 100 s of the agents' whole update."""
    called = {"act": 0, "imagine": 0, "agents": 0}
    clock = iter([2.0, 60.0, 2.0, 60.0, 4.0, 100.0])

    def timed(call):
        call()
        return next(clock)

    def counting(name):
        def call():
            called[name] += 1

        return call

    monkeypatch.setattr(step_cost, "cpu_seconds", timed)
    one = step_cost.Repetition.of({name: counting(name) for name in called}, torch.ones(1, 1))
    assert called == {"act": 20, "imagine": 1, "agents": 1}
    assert one.seconds == {"act": 3.0, "imagine": 60.0, "actor-critic": 40.0}
    assert one.rate == {"act": 128.0**3, "imagine": 128.0**3, "actor-critic": 128.0**3 / 2}


def test_a_preset_is_measured_in_all_its_parts(step_cost, capsys):
    found, schedule = step_cost.measure("ci-tiny", 1), load_config(preset_path("ci-tiny")).schedule
    seconds, ratios, gflop = found["seconds"], found["ratios"], found["gflop"]
    assert tuple(seconds) == TIMED
    assert min(seconds[part] for part in TIMED if part != "actor-critic") > 0  # which is a difference of two
    every = {"world model": schedule.world_model_every, "imagine": schedule.agents_every, "actor-critic": schedule.agents_every}
    every["checkpoint"] = load_config(preset_path("ci-tiny")).run.save_interval
    assert found["per_step"] == {part: seconds[part] / every.get(part, 1) for part in TIMED}
    assert found["total"] == pytest.approx(sum(found["per_step"].values()))
    rate = dict(zip(TIMED, found["rates"], strict=True))  # of one repetition
    assert min(rate.values()) > 0
    dense = set(TIMED) - {"environment", "checkpoint"}
    assert set(gflop) == set(ratios) == dense | {"total"}
    for part in dense:
        assert ratios[part] == [pytest.approx(seconds[part] * rate[part] / (gflop[part] * 1e9))]
    at_rate = sum(found["per_step"][part] * rate[part] for part in TIMED)
    assert gflop["total"] == pytest.approx(sum(gflop[part] / every.get(part, 1) for part in dense))
    assert ratios["total"] == [pytest.approx(at_rate / (gflop["total"] * 1e9))]
    assert found["checkpoint_bytes"] > 4 * found["parameters"] > 0
    step_cost.show(found)
    assert [line.split("  ")[1] for line in capsys.readouterr().out.splitlines()[3:]][:7] == [*TIMED, "total"]


def test_a_learner_is_compared_with_the_same_one_compiled(step_cost, monkeypatch, capsys):
    """Without the minutes of a compiler: what it is given stays what it is."""
    given = []
    monkeypatch.setattr(torch, "compile", lambda function: given.append(function.__name__) or function)
    importlib.import_module("compile").measure("ci-tiny", 1)
    assert given == ["loss", "advance"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["ci-tiny, world-model update", "ci-tiny, agents' update"]
