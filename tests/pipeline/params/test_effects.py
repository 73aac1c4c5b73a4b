"""What a person is told of a changed value beside the value itself."""

import pytest

from matwm.changes import changes
from matwm.manifest import ROOT
from matwm.store import LocalStore
from pipeline.params.effects import effect
from tests.matwm.tiny import make_trainer, run, tiny_config


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return run(make_trainer(None, tiny_config()), 14).save(LocalStore(tmp_path_factory.mktemp("parent")), ROOT)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("schedule.agents_from", 20, "random actions and no updates of agents until step 20"),
        ("schedule.agents_from", 13, "no effect: step 14 is past it"),
        ("actor_critic.return_debias", True, "no effect: the bounds of returns of this state count as past their start"),
        ("actor_critic.epochs", 2, ""),
    ],
)
def test_a_value_that_does_more_or_less_than_it_says_is_told_about(checkpoint, path, value, told):
    parent, config = tiny_config(), tiny_config({path: value})
    (change,) = changes(parent, config)
    assert change.path == path
    assert effect(change, checkpoint, parent, config) == told
