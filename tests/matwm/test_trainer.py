import dataclasses
import json
import math
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from matwm import scenarios
from matwm.config import ConfigError
from matwm.envs import is_installed
from matwm.manifest import ROOT
from matwm.readings import NonFiniteLossError
from matwm.rng import generator_for, seed_torch
from matwm.stateful import Chunk, chunks_in, digest_of, fingerprint, join, split
from matwm.store import LocalStore
from matwm.trainer import build_trainer
from tests.matwm.envs.mistakes import Plain
from tests.matwm.tiny import LEVELS, make_trainer, run, scenario_config, tiny_config
from tests.matwm.toy_envs import CounterEnv, RingEnv


def through_files(parts):
    """Give the parts back as a checkpoint would: tensors copied, the rest through JSON."""
    chunks = {digest_of(chunk): Chunk({k: v.copy() for k, v in chunk.arrays.items()}) for chunk in chunks_in(parts["replay"])}
    loaded = {}
    for name, state in parts.items():
        tensors, rest = split(state)
        loaded[name] = join({path: tensor.clone() for path, tensor in tensors.items()}, json.loads(json.dumps(rest)), chunks.__getitem__)
    return loaded


def digest(trainer):
    return fingerprint(trainer.parts())


def resumed(trainer, make_env=None):
    again = make_trainer(make_env, trainer.config)
    again.load(through_files(trainer.parts()))
    return again


# ---- exact resume


RING = tiny_config(
    {
        "replay.capacity": 40,
        "replay.chunk_rows": 8,
        "world_model.reward_learning_rate": 3e-3,
        **LEVELS,
    }
)
"""Interrupted below as cpu-small trains; the other environments with `straight_through`, one-hots and rewards read from h_t."""


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param((0,), id="before the first step"),
        pytest.param((5,), id="in warm-up"),
        pytest.param((12,), id="where warm-up ends"),
        pytest.param((21,), id="mid-episode"),
        pytest.param((24,), id="at an episode boundary"),
        pytest.param((51,), id="after the ring has wrapped"),
        pytest.param((50, 1), id="twice in a row"),
        pytest.param((25, 0, 27), id="saved, loaded and saved again"),
    ],
)
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(steps):
    """Simple Tag, episodes of 6 steps (7 rows): the ring of 40 rows has wrapped after 36 steps."""
    target = sum(steps) + 9
    whole = run(make_trainer(None, RING), target)
    trainer = make_trainer(None, RING)
    for part in steps:
        trainer = resumed(run(trainer, part))
    run(trainer, target - trainer.env_step)
    assert digest(trainer) == digest(whole)
    assert trainer.history == whole.history
    for key, points in whole.history.metrics.items():
        assert trainer.history.metrics[key] == points


FAMILIES = [
    ("butterfly", "knights_archers_zombies_v11", {"spawn_delay": 3}),
    ("smax", "2m_vs_1z", {}),
    ("pettingzoo", "tests.matwm.arena:parallel_env", {"masks": "info"}),
]


@pytest.mark.parametrize(("family", "name", "options"), FAMILIES, ids=[family for family, *_ in FAMILIES])
def test_every_family_resumes_exactly_within_an_episode(family, name, options):
    if not is_installed(family):
        pytest.skip(scenarios.family(family).install)
    config = tiny_config({"env.family": family, "env.name": name, "env.options": options})
    trainer = run(make_trainer(None, config), 17)
    while trainer.env.tick is None:
        trainer.step()
    again = resumed(trainer)
    assert digest(run(again, 9)) == digest(run(trainer, 9))


def test_training_goes_on_with_a_fresh_episode_where_the_running_one_cannot_come_back(caplog):
    """Episodes of 5 steps: 17 end in the fourth, whose number is 3; it is given up, and its last row has no action any more."""
    name = "tests.matwm.envs.mistakes:UnseededAndSaysSo"
    config = tiny_config({"env.family": "pettingzoo", "env.name": name, "env.options": {}})
    trainer = run(make_trainer(None, config), 17)
    again = resumed(trainer)
    assert "is given up and a fresh one begins" in caplog.text
    assert again.parts()["progress"]["collector"]["given_up"] == [3]
    assert again.env_step == 17
    run(again, 9)
    assert [episode.length for episode in again.history.episodes] == [5] * 4
    assert np.isfinite(again.history.metrics["world_model/total"][-1][1])
    assert resumed(again).collector.given_up == [3, 5], "number 4 was played to its end"


def test_who_says_only_by_now_that_episodes_do_not_come_back_goes_on_from_before(tmp_path, monkeypatch, caplog):
    """What one process plays otherwise than another is noticed when a run is to go on: that must not be its end."""
    config = tiny_config({"env.family": "pettingzoo", "env.name": "tests.matwm.envs.mistakes:Plain", "env.options": {}})
    trainer, store = run(make_trainer(None, config), 17), LocalStore(tmp_path)
    trainer.save(store, ROOT)
    monkeypatch.setitem(Plain.metadata, "nondeterministic", True)
    again = make_trainer(None, config)
    again.resume(store.open(17))
    assert "2 steps old, is given up and a fresh one begins" in caplog.text
    assert (again.collector.given_up, again.env_step) == ([3], 17)
    run(again, 3).save(store, ROOT)
    assert store.open(20).manifest["spec"]["resume"] == "episode"
    monkeypatch.delitem(Plain.metadata, "nondeterministic")
    with pytest.raises(ValueError, match="trained with .*resume='episode'.* but the environment is .*resume='replay'"):
        make_trainer(None, config).resume(store.open(20))


IMAGES = {
    "env.family": "pettingzoo",
    "env.name": "tests.matwm.arena:parallel_env",
    "env.options": {"see": "image"},
    "world_model.loss_weights.reconstruction": 0.01,
}


def test_images_train_and_resume_exactly_and_stay_bytes_until_the_networks():
    """Episodes of up to 20 steps with masks and deaths: interrupted in warm-up and twice after it."""
    config = tiny_config(IMAGES)
    trainer = make_trainer(None, config)
    for steps in (7, 14, 6):
        trainer = resumed(run(trainer, steps))
    kinds = []
    world, agents = trainer.learner.update_world_model, trainer.learner.update_agents
    trainer.learner.update_world_model = lambda w: kinds.append(w.obs.dtype) or world(w)
    trainer.learner.update_agents = lambda c: kinds.append(c.obs.dtype) or agents(c)
    run(trainer, 5)
    whole = run(make_trainer(None, config), 32)
    assert digest(trainer) == digest(whole)
    assert trainer.history == whole.history
    assert kinds and set(kinds) == {torch.uint8}
    assert trainer.replay._rows["obs"].dtype == np.uint8
    assert all(math.isfinite(value) for curve in trainer.history.metrics.values() for _, value in curve)


def test_one_batch_of_images_is_learned_by_heart():
    config = tiny_config(
        {**IMAGES, "world_model.encoder_width": 32, "world_model.learning_rate": 5e-3, "world_model.loss_weights.reconstruction": 1.0}
        | {"world_model.latents": 8, "world_model.classes": 8, "world_model.latent_gradient": "reinmax"}
    )
    trainer = run(make_trainer(None, config), 11)
    windows, _ = trainer.replay.sample_windows(generator_for(0, "t", 0), per_agent=1, length=8)
    errors = [trainer.learner.update_world_model(windows)["world_model/reconstruction"] for _ in range(150)]
    assert min(errors[-10:]) < errors[0] / 10, (errors[0], errors[-10:])


@pytest.mark.parametrize("every", [0, 2])
def test_an_agent_that_is_seldom_or_never_there_is_no_hindrance(every):
    name = {"env.family": "pettingzoo", "env.name": "tests.matwm.envs.mistakes:Reserve", "env.options": {"every": every}}
    config = tiny_config({**name, "replay.capacity": 24})
    trainer = resumed(run(make_trainer(None, config), 31))
    run(trainer, 29)
    assert digest(trainer) == digest(run(make_trainer(None, config), 60))
    curves = trainer.history.metrics
    assert all(math.isfinite(value) for curve in curves.values() for _, value in curve)
    entropies = [value for _, value in curves["agents/third/entropy"]]
    assert 0.0 in entropies, "its rows have left the replay, if there were any"
    assert any(entropies) == bool(every)
    assert all(value > 0 for _, value in curves["agents/left/entropy"])


def test_a_team_whose_size_only_the_environment_knows_is_checked_when_it_is_made():
    arena = {"env.family": "pettingzoo", "env.name": "tests.matwm.arena:parallel_env", "env.options": {"knights": 3}}
    regimes = [{"max_agents": 3, "starts": 4, "horizon": 3}, {"max_agents": None, "starts": 4, "horizon": 30}]
    config = tiny_config({**arena, "actor_critic.imagination.regimes": regimes})
    with pytest.raises(ConfigError, match="context_length \\+ horizon is 34, more than world_model.max_positions = 32"):
        build_trainer(config)


@pytest.mark.parametrize("make_env", [CounterEnv, RingEnv])
@pytest.mark.parametrize("steps", [17, 20])
def test_environments_with_masks_and_terminations_resume_exactly_too(make_env, steps):
    whole = run(make_trainer(make_env), steps)
    again = resumed(whole, make_env)
    assert digest(run(again, 8)) == digest(run(whole, 8))


def test_a_loaded_trainer_forgets_what_it_was():
    """Load into one that has gone elsewhere, with Adam moments, bounds and a running episode of its own."""
    whole, other = run(make_trainer(), 22), run(make_trainer(None, tiny_config({"seed": 4})), 31)
    again = make_trainer()
    again.load(through_files(other.parts()))
    run(again, 3)
    again.load(through_files(whole.parts()))
    assert digest(again) == digest(whole)
    assert digest(run(again, 9)) == digest(run(whole, 9))


def test_stray_draws_between_steps_change_nothing():
    calm, disturbed = make_trainer(), make_trainer()
    for step in range(20):
        calm.step()
        torch.rand(step + 1)
        np.random.rand(3)  # noqa: NPY002
        disturbed.step()
        seed_torch(1, "test", step)
    assert digest(calm) == digest(disturbed)


def test_looking_at_the_state_changes_nothing():
    calm, watched = make_trainer(), make_trainer()
    for _ in range(20):
        calm.step()
        watched.step()
        digest(watched)
        watched.policies()
        watched.drain()
    assert digest(calm) == digest(watched)


def test_the_seed_decides():
    digests = [digest(run(make_trainer(None, tiny_config({"seed": seed})), 14)) for seed in (3, 3, 4)]
    assert digests[0] == digests[1] != digests[2]


def test_a_checkpoint_of_agents_in_another_order_is_refused(tmp_path):
    trainer = make_trainer(None)
    run(trainer, 3)
    spec = dataclasses.replace(trainer.spec, agents=trainer.spec.agents[::-1])
    store = LocalStore(tmp_path)
    store.save(3, trainer.parts(), parent=ROOT, config={}, spec=spec, policies=trainer.policies())
    with pytest.raises(ValueError, match="trained with .*agent_0.*adversary_0.* but the environment is"):
        make_trainer(None).resume(store.open(3))


def test_a_checkpoint_whose_state_is_of_another_step_is_refused(tmp_path):
    trainer, store = make_trainer(), LocalStore(tmp_path)
    run(trainer, 3)
    parts = trainer.parts()
    store.save(4, parts, parent=ROOT, config=trainer.config.shaping(), spec=trainer.spec, policies=trainer.policies())
    with pytest.raises(ValueError, match="it is called step 4, but holds the state of step 3"):
        make_trainer().resume(store.open(4))


def test_a_run_of_another_configuration_is_refused_where_it_cannot_fit():
    parts = through_files(run(make_trainer(), 14).parts())
    with pytest.raises(ValueError, match="do not fit"):
        make_trainer(None, tiny_config({"actor_critic.width": 8})).load(parts)
    with pytest.raises(ValueError, match="do not fit|other"):
        make_trainer(None, scenario_config("simple_push_v3")).load(parts)


@pytest.mark.parametrize("steps", [5, 21, 60])
def test_a_snapshot_saved_while_training_goes_on_is_the_checkpoint_of_its_step(tmp_path, steps):
    """Byte for byte, though the ring (7 chunks of 8 rows) goes round more than once before the last chunk is written."""
    at_once, later = run(make_trainer(None, RING), steps), run(make_trainer(None, RING), steps)
    snapshot = later.snapshot()
    before = later.env_step
    writing = threading.Thread(target=snapshot.save, args=(LocalStore(tmp_path / "later", chunks_from=[]), ROOT))
    run(later, 60)
    writing.start()
    while writing.is_alive():
        later.step()
    writing.join()
    expected = at_once.save(LocalStore(tmp_path / "at_once"), ROOT)
    assert (before, snapshot.step) == (steps, steps)
    assert LocalStore(tmp_path / "later").open(steps).digest == expected.digest
    assert digest(later) == digest(run(at_once, later.env_step - steps)), "saving does not disturb training"


def test_the_replay_and_the_history_are_not_copied_for_a_snapshot(monkeypatch):
    trainer = run(make_trainer(None, RING), 40)
    monkeypatch.setattr("matwm.replay._copies", pytest.fail)
    snapshot = trainer.snapshot()
    curve = trainer.history.metrics["world_model/total"]
    assert snapshot.parts["history"]["metrics/world_model/total"].data_ptr() == curve.view().ctypes.data


# ---- no state outside the parts


NOT_STATE = {
    "_points": "points that nobody has drained: the caller's, who drains before it saves",
    "replay._full_chunks": "chunks made for an earlier checkpoint, to be shared with the next: derived from the rows",
    "collector.replay._full_chunks": "the same",
    "replay._readers": "who must be told before rows are overwritten: the states that are still in somebody's hands",
    "collector.replay._readers": "the same",
}
OF_A_FINISHED_EPISODE = {
    "collector.context": "rows that the next episode begins by forgetting",
    "env._env": "the environment where the last episode left it: the next one resets it",
}


def own_leaves(node: Any, path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Yield every value reachable through attributes and containers, of all objects but configuration."""
    seen = set() if seen is None else seen
    if path in NOT_STATE:
        return
    if isinstance(node, torch.Tensor):
        yield path, node.detach().clone()
        if node.grad is not None:
            yield f"{path}.grad", node.grad.clone()
    elif isinstance(node, np.ndarray):
        yield path, torch.from_numpy(node.copy())
    elif isinstance(node, bool | int | float | str | None):
        yield path, node
    elif isinstance(node, Mapping):
        yield f"{path}.keys", sorted(map(str, node)) if all(isinstance(key, str) for key in node) else len(node)
        for number, (key, value) in enumerate(node.items()):
            yield from own_leaves(value, f"{path}.{key if isinstance(key, str) else number}", seen)
    elif isinstance(node, list | tuple | deque | set | frozenset):
        yield f"{path}.len", len(node)
        for number, value in enumerate(node):
            yield from own_leaves(value, f"{path}.{number}", seen)
    elif type(node).__module__.startswith(("mpe2", "pettingzoo")) or (callable(node) and not isinstance(node, nn.Module)):
        return  # the package's own world is brought back by replaying its actions (tests/matwm/envs/test_episode_log.py)
    elif hasattr(node, "__dict__") and id(node) not in seen:
        if type(node).__module__ == "matwm.config":
            return  # configuration
        seen.add(id(node))
        for name, value in vars(node).items():
            yield from own_leaves(value, f"{path}.{name}" if path else name, seen)


def same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    return type(left) is type(right) and left == right


@pytest.mark.parametrize("make_env", [None, CounterEnv])
@pytest.mark.parametrize("steps", [(26, 45), (24, 41), (45, 26)])
def test_whoever_has_the_same_parts_is_the_same_everywhere(make_env, steps):
    """Trainer B goes its own way and then takes over A's parts: what still differs is state that no part holds.

    Rows of the ring that A has not written, or has dropped, are not state either: they are blanked in both.
    """
    a, b = run(make_trainer(make_env), steps[0]), run(make_trainer(make_env), steps[1])
    expected, other = leaves_of(a), leaves_of(b)
    moved = {path.rsplit(".", 1)[-1] for path in expected if not same(other.get(path), expected[path])}
    assert moved >= MUST_MOVE, "the walk no longer reaches what it is for"
    b.load(through_files(a.parts()))
    found = leaves_of(b)
    if a.env.tick is None:
        found, expected = (without(leaves, OF_A_FINISHED_EPISODE) for leaves in (found, expected))
    assert found.keys() == expected.keys()
    assert [path for path, value in expected.items() if not same(found[path], value)] == []


MUST_MOVE = {"output_weight", "low", "high", "exp_avg", "exp_avg_sq", "step", "env_step", "num_episodes", "obs", "total_rows", "_seed"}


def without(leaves, prefixes):
    return {path: value for path, value in leaves.items() if not path.startswith(tuple(prefixes))}


def leaves_of(trainer) -> dict[str, Any]:
    leaves = dict(own_leaves(trainer))
    replay = trainer.replay
    rows = np.arange(max(replay.total_rows - replay.config.capacity, 0), replay.total_rows) % replay._storage
    for path, value in leaves.items():
        if "_rows." in path and isinstance(value, torch.Tensor) or path.endswith("_episode_start"):
            leaves[path] = value[rows]
        elif path.endswith("_starts_before"):  # counts from anywhere: only their differences are state
            leaves[path] = value[rows] - value[rows[:1]]
        elif path.endswith("._array"):  # a table of the history, longer than what it holds
            leaves[path] = value[: leaves[path.removesuffix("array") + "count"]]
    return leaves


def test_the_walk_fails_on_state_that_no_part_holds():
    class Forgetful(nn.Module):
        def __init__(self):
            super().__init__()
            self.updates = 0

    a, b = make_trainer(), make_trainer()
    for trainer, count in ((a, 1), (b, 2)):
        trainer.learner.world_model.forgetful = Forgetful()
        trainer.learner.world_model.forgetful.updates = count
    b.load(through_files(a.parts()))
    found, expected = leaves_of(b), leaves_of(a)
    left = [path for path in expected if not same(found[path], expected[path])]
    assert [path.rsplit(".", 1)[-1] for path in left] == ["updates"]


def test_the_parts_are_those_of_a_checkpoint():
    assert list(make_trainer().parts()) == ["world_model", "agents", "optimizers", "replay", "progress", "history"]


# ---- Algorithm 2


def test_updates_begin_after_warm_up_and_follow_their_intervals():
    trainer = make_trainer(None, tiny_config({"schedule.world_model_every": 3, "schedule.agents_every": 4}))
    calls = []
    world, agents = trainer.learner.update_world_model, trainer.learner.update_agents
    trainer.learner.update_world_model = lambda windows: calls.append(("world", trainer.env_step, windows)) or world(windows)
    trainer.learner.update_agents = lambda contexts: calls.append(("agents", trainer.env_step, contexts)) or agents(contexts)
    run(trainer, 24)
    assert [step for kind, step, _ in calls if kind == "world"] == [12, 15, 18, 21, 24]
    assert [step for kind, step, _ in calls if kind == "agents"] == [12, 16, 20, 24]
    windows, contexts = (next(data for kind, _, data in calls if kind == wanted) for wanted in ("world", "agents"))
    assert windows.obs.shape[:2] == (4, 8)
    assert contexts.obs.shape[:2] == (8, 4)


@pytest.mark.parametrize(
    ("is_total", "windows", "starts", "expected"),
    [(True, 4, 8, (4, 8)), (True, 5, 9, (8, 12)), (True, 1, 1, (4, 4)), (False, 2, 3, (8, 12))],
)
def test_batches_are_totals_rounded_up_per_agent_or_per_agent(is_total, windows, starts, expected):
    """With 16 windows for 3 agents an earlier MATWM came out at 15 and never trained."""
    regimes = [{"max_agents": None, "starts": starts, "horizon": 2}]
    changes = {"schedule.batch_is_total": is_total, "world_model.windows": windows, "actor_critic.imagination.regimes": regimes}
    trainer, rows = make_trainer(None, tiny_config(changes)), []
    world, agents = trainer.learner.update_world_model, trainer.learner.update_agents
    trainer.learner.update_world_model = lambda w: rows.append(len(w.agent)) or world(w)
    trainer.learner.update_agents = lambda c: rows.append(len(c.agent)) or agents(c)
    run(trainer, 12)
    assert tuple(rows) == expected


def test_the_policies_act_from_the_end_of_warm_up_on(monkeypatch):
    from matwm import trainer as module

    trainer, chosen = make_trainer(), []
    real = module.choose_actions
    monkeypatch.setattr(module, "choose_actions", lambda *a, **k: chosen.append(trainer.env_step) or real(*a, **k))
    run(trainer, 15)
    assert chosen == [12, 13, 14]


def test_metrics_are_drained_once_and_kept_in_the_history():
    trainer = run(make_trainer(), 24)
    points = trainer.drain()
    assert trainer.drain() == []
    curves = {}
    for point in points:
        curves.setdefault(point.key, []).append((point.step, point.value))
    episodes = {key for key in curves if key.startswith("episode/")}
    assert {key: curve for key, curve in curves.items() if key not in episodes} == trainer.history.metrics
    assert [step for step, _ in trainer.history.metrics["world_model/total"]] == [15, 20]
    assert curves["episode/length"] == [(6, 6.0), (12, 6.0), (18, 6.0), (24, 6.0)]
    assert episodes == {"episode/length", *(f"episode/return/{name}" for name in trainer.spec.agents)}
    assert [episode.end_step for episode in trainer.history.episodes] == [6, 12, 18, 24]
    assert [value for _, value in curves["episode/return/agent_0"]] == [episode.returns[3] for episode in trainer.history.episodes]


def test_divergence_names_the_term_and_the_environment_step():
    trainer = run(make_trainer(), 13)
    with torch.no_grad():
        trainer.learner.world_model.heads.reward[-1].bias[0] = float("nan")
    with pytest.raises(NonFiniteLossError, match="world_model/.* is not finite at environment step 14") as caught:
        trainer.step()
    assert caught.value.step == 14


def test_training_is_the_same_where_nobody_looks_until_metrics_are_due():
    """As on a GPU: metrics of 5 steps are read together, and those that are left before a checkpoint."""
    looking, patient = make_trainer(), make_trainer()
    patient.learner.looks_at_once = False
    for trainer in (looking, patient):
        run(trainer, 23)
    assert [step for step, _ in patient._unread] == [21, 22, 22, 23]
    assert digest(patient) == digest(looking)
    assert patient.history == looking.history
    run(patient, 9)
    assert digest(patient) == digest(run(resumed(looking), 9))


def test_divergence_that_nobody_saw_at_once_is_told_of_its_own_step_and_no_checkpoint_is_made():
    trainer = run(make_trainer(), 12)
    trainer.learner.looks_at_once = False
    with torch.no_grad():
        trainer.learner.world_model.heads.reward[-1].bias[0] = float("nan")
    run(trainer, 2)
    for look in (trainer.parts, trainer.snapshot, trainer.step):
        with pytest.raises(NonFiniteLossError, match="world_model/.* is not finite at environment step 13") as caught:
            look()
        assert caught.value.step == 13


def test_policies_are_named_and_their_own():
    trainer = run(make_trainer(), 14)
    policies = trainer.policies()
    assert list(policies) == list(trainer.spec.agents)
    assert torch.equal(policies["agent_0"]["net.output_bias"][0], trainer.learner.actors.net.output_bias[3])


def test_a_missing_device_is_refused_in_words(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="run.device is cuda, but torch sees no CUDA device"):
        build_trainer(tiny_config({"run.device": "cuda"}))


# ---- every environment


def changed_parameters(trainer, steps):
    before = {name: p.detach().clone() for name, p in trainer.learner.agents.named_parameters()}
    before |= {name: p.detach().clone() for name, p in trainer.learner.world_model.named_parameters()}
    run(trainer, steps)
    after = dict(trainer.learner.agents.named_parameters()) | dict(trainer.learner.world_model.named_parameters())
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("name", scenarios.names("mpe"))
def test_every_scenario_trains(name):
    """Unequal observations, unequal action counts, one agent, eight agents: all weights that can move do, and stay finite."""
    trainer = make_trainer(None, scenario_config(name, {"world_model.free_nats": 0.0}))
    changed = changed_parameters(trainer, 16)
    parameters = dict(trainer.learner.agents.named_parameters()) | dict(trainer.learner.world_model.named_parameters())
    unmoved = {path.split(".")[0] for path in parameters.keys() - changed}
    assert not unmoved - {"actors", "heads"}, unmoved  # layers behind an output of zeros may wait
    assert all(parameter.isfinite().all() for parameter in parameters.values())
    assert all(math.isfinite(value) for curve in trainer.history.metrics.values() for _, value in curve)
    assert ("world_model/teammates" in trainer.history.metrics) == (trainer.spec.num_agents > 1)
    assert {f"agents/{agent}/actor_loss" for agent in trainer.spec.agents} <= trainer.history.metrics.keys()
    assert all(len(episode.returns) == trainer.spec.num_agents for episode in trainer.history.episodes)
    assert len(trainer.history.episodes) == 2


def test_successes_end_episodes_truly_while_training():
    """A scenario that may end, and here does at once: episodes of one step, stored as terminations and learned from."""
    trainer = make_trainer(None, scenario_config("simple_spread_v3", N=1, terminate_on_success=True, max_cycles=6))
    raw = trainer.env._env
    real = raw.step
    raw.step = lambda actions: dataclasses.replace(real(actions), terminated=np.ones(1, bool))
    run(trainer, 24)
    assert [episode.length for episode in trainer.history.episodes] == [1] * 24
    stored = trainer.replay._rows["terminated"][: trainer.replay.total_rows, 0]
    assert stored.all()
    assert trainer.history.metrics["world_model/continues"][-1][1] < trainer.history.metrics["world_model/continues"][0][1]


def test_masks_of_the_environment_are_learned_and_obeyed():
    """The environment raises on an illegal action, in warm-up and after it."""
    trainer = run(make_trainer(CounterEnv), 40)
    assert trainer.learner.world_model.heads.action_mask is not None
    assert trainer.history.metrics["world_model/action_mask"][-1][1] < trainer.history.metrics["world_model/action_mask"][0][1]
    assert {episode.length for episode in trainer.history.episodes} == {5}


ARENA = {"env.family": "pettingzoo", "env.name": "tests.matwm.arena:parallel_env"}


def spoil(trainer, *, dead):
    """Overwrite what the replay says of agents that are dead, or of those that are alive."""
    rows, total = trainer.replay._rows, trainer.replay.total_rows
    at = np.nonzero(rows["alive"][:total] != dead)
    is_last = rows["is_last"][at[0]]
    for name, value in (("obs", 0.7), ("reward", 5), ("action_mask", True), ("terminated", False)):
        rows[name][at] = value
    rows["action"][at[0][~is_last], at[1][~is_last]] = 2
    return len(at[0])


def test_what_the_replay_says_of_the_dead_changes_no_update():
    trainer = run(make_trainer(None, tiny_config({**ARENA, "env.options": {"cells": 5}})), 60)
    same, other = resumed(trainer), resumed(trainer)
    assert spoil(same, dead=True) > 40
    assert spoil(other, dead=False) > 40
    count = len(trainer.history.metrics)
    for one in (trainer, same, other):
        run(one, 6)
    assert fingerprint(same.learner.parts()) == fingerprint(trainer.learner.parts()) != fingerprint(other.learner.parts())
    assert same.history == trainer.history
    assert len(trainer.history.metrics) == count
    assert 0 <= trainer.history.metrics["agents/scout_0/illegal"][-1][1] <= 1


def test_the_ablations_train():
    changes = {"world_model.teammates.enabled": False, "world_model.action_words": "shared", "replay.recency_decay": 1.0}
    changes |= {"actor_critic.imagination.start_state": "prior", "actor_critic.actor_unimix": 0.01, "world_model.agent_identity": False}
    trainer = run(make_trainer(None, tiny_config(changes)), 16)
    assert trainer.learner.world_model.feature_size == 32
    assert all(math.isfinite(value) for curve in trainer.history.metrics.values() for _, value in curve)
