import pytest

import matwm
from matwm.checkpoint import open_parent
from matwm.config import ConfigError, merge
from matwm.manifest import ROOT
from matwm.params_yaml import read_params
from matwm.readings import NonFiniteLossError
from matwm.store import LocalStore
from matwm.trainer import build_trainer
from matwm.version import NUMERICS

TINY = {
    "world_model": {"windows": 4, "window_length": 8},
    "schedule": {"warmup_steps": 20},
    "run": {"save_interval": 30, "metrics_interval": 10},
    "segments": {"s00": {"from": "checkpoints/root", "until": 60}},
}


@pytest.fixture
def params():
    return merge(read_params(matwm.preset_path("ci-tiny")), TINY)


def test_the_root_of_the_interface_is_the_root_in_the_repository():
    assert open_parent("checkpoints/root") == ROOT


def test_training_returns_agents_returns_and_curves(params):
    agents, episode_returns, metrics = matwm.train(params)
    assert list(agents) == ["adversary_0", "adversary_1", "adversary_2", "agent_0"]
    assert {name: len(returns) for name, returns in episode_returns.items()} == dict.fromkeys(agents, 60 // 25)
    assert [step for step, _ in metrics["world_model/total"]] == [20, 30, 40, 50, 60]
    assert 0 <= agents["agent_0"].act([0.0] * 14) < 5


def test_training_that_diverged_where_nobody_looked_yet_is_no_result(params, monkeypatch):
    """As on a GPU, whose losses are read where an interval of the metrics ends."""

    def build(config):
        trainer = build_trainer(config)
        trainer.learner.looks_at_once = False
        return trainer

    monkeypatch.setattr("matwm.api.build_trainer", build)
    wild = merge(params, {"world_model": {"learning_rate": 1e30}, "run": {"metrics_interval": 1000}})
    with pytest.raises(NonFiniteLossError, match="at environment step 2"):
        matwm.train(wild, until=30)


def test_going_on_from_a_checkpoint_ends_where_one_run_ends(params, tmp_path):
    whole = matwm.train(params, checkpoint_dir=tmp_path / "whole")
    half = matwm.train(params, until=30, checkpoint_dir=tmp_path / "half")
    rest = matwm.train(params, tmp_path / "half" / "step_000000030", checkpoint_dir=tmp_path / "rest")
    assert len(half.metrics["world_model/total"]) == 2
    assert rest.metrics == whole.metrics
    assert rest.episode_returns == whole.episode_returns
    assert LocalStore(tmp_path / "rest").open(60).fingerprint == LocalStore(tmp_path / "whole").open(60).fingerprint
    policy = matwm.load_policy(tmp_path / "rest" / "step_000000060", "adversary_1")
    assert [policy.act([0.1] * 16) for _ in range(5)] == [rest.agents["adversary_1"].act([0.1] * 16) for _ in range(5)]


def test_what_a_checkpoint_fixes_cannot_be_changed(params, tmp_path):
    matwm.train(params, until=30, checkpoint_dir=tmp_path)
    other = merge(params, {"world_model": {"hidden_size": 32}})
    with pytest.raises(ConfigError, match=r"world_model\.hidden_size is 32, but .*step_000000030 was trained with 64"):
        matwm.train(other, tmp_path / "step_000000030")
    with pytest.raises(ConfigError, match="until is 30, which is not beyond step 30"):
        matwm.train(params, tmp_path / "step_000000030", until=30)
    other = merge(params, {"env": {"options": {**read_params(matwm.preset_path("ci-tiny"))["env"]["options"], "max_cycles": 7}}})
    with pytest.raises(ConfigError, match=r"^env\.options\.max_cycles is 7, but .* was trained with 25: training cannot go on") as caught:
        matwm.train(other, tmp_path / "step_000000030")
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("until", ["5", 5.0, True])
def test_a_step_that_is_no_whole_number_is_refused(params, until):
    with pytest.raises(ConfigError, match=r"^until is .*, which is no whole number: say to which environment step to train$"):
        matwm.train(params, until=until)


def test_the_first_segments_override_counts(params, tmp_path):
    params["segments"]["s00"]["override"] = {"replay": {"recency_decay": 1.0}}
    matwm.train(params, until=30, checkpoint_dir=tmp_path)
    assert LocalStore(tmp_path).open(30).config["replay"]["recency_decay"] == 1.0


def test_going_on_with_other_numerics_is_said(params, tmp_path, monkeypatch, caplog):
    matwm.train(params, until=30, checkpoint_dir=tmp_path)
    monkeypatch.setattr("matwm.api.NUMERICS", 77)
    matwm.train(params, tmp_path / "step_000000030", until=31)
    assert f"trained by numerics {NUMERICS}, this code has 77" in caplog.text


def test_a_diverged_loss_stops_with_its_name_and_keeps_the_last_checkpoint(params, tmp_path):
    wild = merge(params, {"world_model": {"learning_rate": 1.0e30}, "run": {"save_interval": 10}})
    with pytest.raises(NonFiniteLossError, match=r"(world_model|agents)/\S+ is not finite at environment step \d+"):
        matwm.train(wild, checkpoint_dir=tmp_path)
    assert LocalStore(tmp_path).newest() is not None
