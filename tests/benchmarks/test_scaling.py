"""What grows with the work is measured on the preset as it is shipped."""

import importlib

import numpy as np
import pytest

from benchmarks.learning import REPOSITORY
from matwm.params_yaml import load_config, preset_path
from matwm.types import NO_ACTION


@pytest.fixture
def scaling(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    return importlib.import_module("scaling")


def test_agents_imagine_by_the_presets_own_regime(scaling):
    preset = load_config(preset_path("cpu-small"))
    for number in scaling.POINTS[scaling.AGENTS]:
        assert scaling.config_of({**scaling.USUAL, scaling.AGENTS: number}).regime(number) == preset.regime(number)
    assert scaling.config_of(scaling.USUAL).world_model == preset.world_model


def test_horizon_and_batch_depart_from_it(scaling):
    usual = scaling.config_of(scaling.USUAL).regime(4)
    found = scaling.config_of({**scaling.USUAL, scaling.HORIZON: 5}).regime(4)
    assert (found.starts, found.horizon) == (usual.starts, 5)
    found = scaling.config_of({**scaling.USUAL, scaling.BATCH: 2})
    assert (found.regime(4).starts, found.regime(4).horizon) == (2 * usual.starts, usual.horizon)
    assert found.world_model.windows == 2 * scaling.config_of(scaling.USUAL).world_model.windows


def test_a_replay_is_full_of_whole_episodes_and_training_goes_on_from_it(scaling):
    trainer = scaling.trainer_of({**scaling.USUAL, scaling.AGENTS: 2, scaling.ROWS: 208})
    assert trainer.spec.num_agents == 2 and len(trainer.replay) == trainer.replay.total_rows == 208
    rows, length = trainer.replay.state_dict()["chunks"][0].arrays, scaling.EPISODE + 1
    assert np.flatnonzero(rows["is_first"]).tolist() == list(range(0, 208, length))
    assert np.flatnonzero(rows["is_last"]).tolist() == list(range(scaling.EPISODE, 208, length))
    assert ((rows["action"] == NO_ACTION).all(1) == rows["is_last"]).all()
    trainer.step()
    assert trainer.replay.total_rows == 209 and len(trainer.replay) == 208


def test_a_point_is_measured_in_all_its_parts(scaling):
    point = {scaling.AGENTS: 2, scaling.HORIZON: 5, scaling.BATCH: 1, scaling.ROWS: 1000}
    found = scaling.measure(point)
    assert set(found) == {*scaling.PARTS, "memory", "starts"}
    assert min(found[part] for part in scaling.PARTS) > 0 <= found["memory"]
    config = scaling.config_of(point)
    assert found["starts"] == 2 * config.schedule.per_agent(config.regime(2).starts, 2)
    result = {"varied": scaling.AGENTS, "value": 2, "found": found}
    assert scaling.table([result]).splitlines()[-1].startswith(f"| agents | 2 | {found['starts']} |")
