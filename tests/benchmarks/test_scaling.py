"""What grows with the work is measured on the preset as it is shipped."""

import importlib

import pytest

from benchmarks.learning import REPOSITORY
from matwm.params_yaml import load_config, preset_path


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
