"""A branch trains by its own values: every field that may change does act after loading, and nothing that is loaded overrules it.

The fields are those of the schema, so that a new one is tested, or missed, by itself.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from matwm.checkpoint import Checkpoint
from matwm.config import Config, leaves, merge
from matwm.manifest import ROOT
from matwm.params_yaml import parse_config
from matwm.replay import rows_held
from matwm.settings import in_force, too_few_rows
from matwm.stateful import fingerprint
from matwm.store import LocalStore
from matwm.trainer import Trainer, build_trainer
from tests.matwm.test_config import BASE, MOVES, NEEDS
from tests.matwm.tiny import make_trainer, run, tiny_config
from tests.matwm.toy_envs import CounterEnv

FORK, END = 24, 32
PARENT = {**BASE, "env.options": {"max_cycles": 6}}
MARKS = {path: marks for path, _, marks in leaves(tiny_config())}
CHANGED = {
    **MOVES,
    "schedule.warmup_steps": 30,  # beyond the fork: one before it has no say any more
    "schedule.agents_from": 30,
    "run.threads": 2,
    "run.device": "cpu",  # the only one that every machine has
    "run.cuda_graphs": False,  # what it can be there
}
SHAPING = [path for path, marks in MARKS.items() if marks["shapes"] and marks["branch"] != "fixed"]
MASKS = "world_model.loss_weights.action_mask"
NOT_IN_NUMBERS = {"run.device", "run.threads", "run.cuda_graphs", MASKS, "actor_critic.imagination.opponents_predicted"}
"""… of Simple Spread on a CPU: there is one role, so nobody has opponents (tests/matwm/test_together.py has some)."""


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def saved(folder: Path, config: Config, steps: int) -> Checkpoint:
    return run(build_trainer(config), steps).save(LocalStore(folder), ROOT)


def branch(start: Checkpoint, config: Config) -> Trainer:
    trainer = build_trainer(config)
    trainer.resume(start)
    return trainer


def everything(trainer: Trainer) -> str:
    """The fingerprint, histories included: metrics_interval shows in them alone."""
    return fingerprint(trainer.parts())


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A parent that has trained a little: its optimizers have moments, its replay has rows."""
    return saved(tmp_path_factory.mktemp("parent"), tiny_config(PARENT), FORK)


@pytest.fixture(scope="module")
def unchanged(parent: Checkpoint) -> str:
    return everything(run(branch(parent, tiny_config(PARENT)), END - FORK))


@pytest.mark.parametrize("path", SHAPING)
def test_a_changed_value_is_in_force_after_loading_and_trains_otherwise(parent: Checkpoint, unchanged: str, path: str) -> None:
    needs = {key: value for key, value in NEEDS.get(path, {}).items() if not key.startswith("env.")}
    trainer = branch(parent, tiny_config({**PARENT, **needs, path: CHANGED[path]}))
    found = [value for name, value in in_force(trainer.learner, trainer.replay, trainer.collector) if name == path]
    assert found
    assert all(value == CHANGED[path] for value in found)
    if path not in NOT_IN_NUMBERS:
        before = everything(run(branch(parent, tiny_config({**PARENT, **needs})), END - FORK)) if needs else unchanged
        assert everything(run(trainer, END - FORK)) != before


def test_the_weight_of_action_masks_acts_where_there_are_masks() -> None:
    """Scenarios of MPE have none."""
    parts = run(make_trainer(CounterEnv), 20).parts()
    ends = []
    for weight in (0.5, CHANGED[MASKS]):
        data = merge(make_trainer(CounterEnv).config.resolved(), {"world_model": {"loss_weights": {"action_mask": weight}}})
        trainer = make_trainer(CounterEnv, parse_config(data))
        trainer.load(parts)
        ends.append(everything(run(trainer, 8)))
    assert ends[0] != ends[1]


@pytest.mark.parametrize("path", [path for path, marks in MARKS.items() if not marks["shapes"]])
def test_what_does_not_shape_training_changes_none_of_it(parent: Checkpoint, unchanged: str, path: str) -> None:
    """Where these act is the pipeline's business: tests/pipeline/params/test_overrides.py and the tests of what reads them."""
    assert everything(run(branch(parent, tiny_config({**PARENT, path: CHANGED[path]})), END - FORK)) == unchanged


@pytest.mark.parametrize(("section", "rates"), [("world_model", [0.25, 0.75, 0.5]), ("actor_critic", [0.25])])
def test_the_optimizers_step_by_the_new_values_with_the_old_moments(parent: Checkpoint, section: str, rates: list[float]) -> None:
    values = {"adam_betas": [0.5, 0.75], "adam_epsilon": 0.125}
    values |= dict(zip(("learning_rate", "autoencoder_learning_rate", "reward_learning_rate"), rates, strict=False))
    trainer = branch(parent, tiny_config({**PARENT, **{f"{section}.{name}": value for name, value in values.items()}}))
    learner = trainer.learner
    optimizer = {"world_model": learner.world_model_optimizer, "actor_critic": learner.agents_optimizer}[section]
    groups = optimizer.groups
    assert [(group.learning_rate, group.betas, group.epsilon) for group in groups] == [(rate, (0.5, 0.75), 0.125) for rate in rates]
    if section == "world_model":
        whose = [set(group.names) for group in groups]
        own = [
            {name for name in optimizer.named if name.startswith(below)}
            for below in (("autoencoder.",), ("heads.reward.", "heads.arrival."))
        ]
        assert whose == [optimizer.named.keys() - own[0] - own[1], *own]
    moments: Any = parent.load()["optimizers"]
    for name, moment in moments["world_model" if section == "world_model" else "agents"].items():
        assert torch.equal(optimizer.moments[name]["exp_avg"], moment["exp_avg"])


# ---- the replay's capacity adapts


@pytest.mark.parametrize(("before", "after", "held", "kept"), [(200, 20, 28, 20), (20, 200, 20, 20), (18, 200, 18, 20), (20, 17, 20, 17)])
def test_rows_are_kept_as_is_said(tmp_path: Path, before: int, after: int, held: int, kept: int) -> None:
    """24 steps in episodes of 6 make 28 rows; files of 4 may hold some rows that had left a small replay already."""
    files = {**PARENT, "replay.chunk_rows": 4}
    start = saved(tmp_path, tiny_config({**files, "replay.capacity": before}), FORK)
    state: Any = start.replay()
    one, other = (tiny_config({**files, "replay.capacity": capacity}) for capacity in (before, after))
    assert rows_held(state["total_rows"], len(state["chunks"]), one.replay) == len(branch(start, one).replay) == held
    trainer = branch(start, other)
    assert rows_held(state["total_rows"], len(state["chunks"]), other.replay) == len(trainer.replay) == kept
    whole = run(branch(start, other), 12)
    middle = run(trainer, 5).save(LocalStore(tmp_path / "middle"), ROOT)
    assert everything(run(branch(middle, other), 7)) == everything(whole), "and the branch resumes exactly"


def test_longer_sight_than_the_replay_kept_begins_with_what_there_is(tmp_path: Path) -> None:
    small = {**PARENT, "env.options": {"max_cycles": 50}, "replay.capacity": 16, "replay.chunk_rows": 4, "schedule.acting_context": 5}
    start = saved(tmp_path, tiny_config(small), FORK)
    wide = tiny_config({**small, "replay.capacity": 200, "schedule.acting_context": 24})
    whole = run(branch(start, wide), 9)
    middle = run(branch(start, wide), 4).save(LocalStore(tmp_path / "middle"), ROOT)
    assert everything(run(branch(middle, wide), 5)) == everything(whole)


def test_windows_longer_than_what_the_replay_kept_are_refused(tmp_path: Path) -> None:
    small = {**PARENT, "replay.capacity": 16, "replay.chunk_rows": 4}
    start = saved(tmp_path, tiny_config(small), FORK)
    longer = {**small, "replay.capacity": 200, "world_model.window_length": 20, "schedule.warmup_steps": 20}
    sentence = r"^world_model\.window_length is 20, but the replay of step 24 has 16 rows to go on with: lower it, or raise "
    with pytest.raises(ValueError, match=sentence + r"schedule\.warmup_steps to 28 or more$"):
        branch(start, tiny_config(longer))
    assert run(branch(start, tiny_config({**longer, "schedule.warmup_steps": 28})), 20).env_step == 44


@pytest.mark.parametrize(("step", "rows", "refused"), [(24, 8, False), (24, 7, False), (24, 6, True), (3, 3, False), (11, 6, True)])
def test_rows_are_counted_up_to_the_first_update(step: int, rows: int, refused: bool) -> None:
    """Windows of 8, warm-up to step 12, an update every step: at step 25 there is one row more."""
    assert (too_few_rows(tiny_config(), step, rows) is not None) is refused


# ---- nothing overrules the configuration


def overruled(trainer: Trainer, path: str) -> None:
    """Put another value in force, as a loading that knows too much would."""
    learner = trainer.learner
    acts: dict[str, Callable[[], Any]] = {
        "world_model.learning_rate": lambda: setattr(learner.world_model_optimizer.groups[0], "learning_rate", 0.5),
        "actor_critic.adam_betas": lambda: setattr(learner.agents_optimizer.groups[0], "betas", (0.1, 0.2)),
        "actor_critic.adam_epsilon": lambda: setattr(learner.agents_optimizer.groups[0], "epsilon", 1.0),
        "world_model.dropout": lambda: setattr(learner.world_model.trunk.blocks[1], "dropout", 0.5),
        "world_model.unimix": lambda: setattr(learner.world_model.autoencoder, "unimix", 0.5),
        "world_model.loss_weights.reward": lambda: learner.world_model.loss_weights.update(reward=9.0),
        "world_model.free_nats": lambda: setattr(learner.world_model, "config", tiny_config({"world_model.free_nats": 3.0}).world_model),
        "actor_critic.actor_unimix": lambda: setattr(learner.actors, "unimix", 0.5),
        "actor_critic.entropy": lambda: setattr(learner, "config", tiny_config({**PARENT, "actor_critic.entropy": 0.5})),
        "replay.capacity": lambda: setattr(trainer.replay, "config", tiny_config({"replay.capacity": 99}).replay),
        "schedule.acting_context": lambda: setattr(trainer.collector, "acting_context", 2),
        "seed": lambda: setattr(trainer.collector, "seed", 99),
        "run.threads": lambda: torch.set_num_threads(2),
    }
    acts[path]()


@pytest.mark.parametrize(
    "path",
    [
        "world_model.learning_rate", "actor_critic.adam_betas", "actor_critic.adam_epsilon", "world_model.dropout", "world_model.unimix",
        "world_model.loss_weights.reward", "world_model.free_nats", "actor_critic.actor_unimix", "actor_critic.entropy",
        "replay.capacity", "schedule.acting_context", "seed", "run.threads",
    ],
)  # fmt: skip
def test_a_loaded_state_that_overrules_the_configuration_is_refused(parent: Checkpoint, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = build_trainer(tiny_config(PARENT))
    loading = type(trainer.history).load_state_dict

    def load_too_much(history: Any, state: Any) -> None:
        loading(history, state)
        overruled(trainer, path)

    monkeypatch.setattr(type(trainer.history), "load_state_dict", load_too_much)
    with pytest.raises(ValueError, match=rf"^{re.escape(path)} is .* after loading, but .* in the configuration, which"):
        trainer.resume(parent)


def test_every_value_that_shapes_training_is_looked_at() -> None:
    trainer = make_trainer(CounterEnv)
    assert {path for path, _ in in_force(trainer.learner, trainer.replay, trainer.collector)} == {
        path for path, marks in MARKS.items() if marks["shapes"]
    }
