"""A diagnosis says what is so: its figures are held against episodes that were written by hand."""

import dataclasses
import math

import pytest
import torch

from benchmarks import learning
from benchmarks.learn.diagnosis import STARTS, diagnose, imagined, open_loop, played, values, views_apart, whole_windows
from benchmarks.learn.fresh import Fresh, play
from matwm.config import EnvConfig
from matwm.envs import make_env
from matwm.manifest import ROOT
from matwm.nets.distributions import symexp, symlog
from matwm.params_yaml import load_config, preset_path
from matwm.store import LocalStore
from matwm.trainer import build_trainer
from matwm.types import NO_ACTION, EnvSpec
from tests.matwm.tiny import make_learner, make_trainer, tiny_config, toy_config

SPEC = EnvSpec("two", ("a_0", "b_0"), (2, 1), (3, 3))


def written(lengths=(4, 4), spec=SPEC):
    """Return episodes in which every number says whose and when it is."""
    episodes, rows, n = len(lengths), max(lengths) + 1, spec.num_agents
    length = torch.tensor(lengths)
    t = torch.arange(rows).expand(episodes, rows)
    number = 100.0 * torch.arange(episodes)[:, None] + t
    is_action = (t < length[:, None])[..., None].expand(-1, -1, n)
    each = number[..., None] + 10.0 * torch.arange(n)
    return Fresh(
        spec=spec,
        length=length,
        obs=each[..., None].expand(-1, -1, -1, spec.obs_size).float() * torch.from_numpy(spec.obs_exists),
        action_mask=torch.from_numpy(spec.action_exists).expand(episodes, rows, -1, -1),
        action=torch.where(is_action, (t[..., None] + torch.arange(n)) % 3, NO_ACTION),
        reward=each * is_action,
        terminated=torch.zeros(episodes, rows, n, dtype=torch.bool),
        alive=torch.ones(episodes, rows, n, dtype=torch.bool),
        value=torch.zeros(episodes, rows, n),
        probs=torch.full((episodes, rows, n, spec.action_size), 1 / 3),
    )


def test_windows_hold_each_agents_own_rows_and_pad_what_is_outside():
    fresh = written((4, 2))
    windows = fresh.windows(torch.tensor([0, 1]), torch.tensor([[-1, 0, 1], [1, 2, 3]]))
    assert windows.agent.tolist() == [0, 0, 1, 1]
    assert windows.obs[:, :, 0].tolist() == [[0, 0, 1], [101, 102, 0], [0, 10, 11], [111, 112, 0]]
    assert windows.is_valid.tolist() == [[False, True, True], [True, True, False]] * 2
    assert windows.is_first.tolist() == [[False, True, False], [False, False, False]] * 2
    assert windows.action.tolist() == [[-1, 0, 1], [1, -1, -1], [-1, 1, 2], [2, -1, -1]]
    assert windows.mate_actions[..., 0].tolist() == [[-1, 1, 2], [2, -1, -1], [-1, 0, 1], [1, -1, -1]]
    assert windows.reward.tolist() == [[0, 0, 1], [101, 0, 0], [0, 10, 11], [111, 0, 0]]


def test_values_are_held_against_what_came_and_the_critics_own_value_at_the_end():
    config = toy_config(SPEC, {"actor_critic.discount": 0.5})
    fresh = written((4, 2))
    value = torch.zeros_like(fresh.value)
    value[0, 4], value[1, 2] = 8.0, 16.0  # the last states'
    value[0, 0] = 3.0
    found = values(dataclasses.replace(fresh, value=value), config)
    # The first halves: rows 0 and 1 of the first episode, row 0 of the second.
    realised = [0 + 1 / 2 + 2 / 4 + 3 / 8 + 8 / 16, 1 + 2 / 2 + 3 / 4 + 8 / 8, 100 + 101 / 2 + 16 / 4]
    mean = sum(realised) / 3
    assert found["value: realised mean"][0].item() == pytest.approx(mean)
    assert found["value: bias"][0].item() == pytest.approx(1.0 - mean)
    expected = math.sqrt(((3 - realised[0]) ** 2 + realised[1] ** 2 + realised[2] ** 2) / 3)
    assert found["value: rmse"][0].item() == pytest.approx(expected)
    ended = torch.zeros_like(fresh.terminated)
    ended[1, 1] = True  # then nothing follows
    found = values(dataclasses.replace(fresh, value=value, terminated=ended), config)
    assert found["value: realised mean"][0].item() == pytest.approx(mean - 4 / 3)


def test_a_critic_that_is_right_up_to_a_constant_is_biased_and_correlates():
    config = toy_config(SPEC, {"actor_critic.discount": 1.0})
    fresh = written((4, 3))
    to_come = fresh.reward.flip(1).cumsum(1).flip(1)
    found = values(dataclasses.replace(fresh, value=to_come), config)
    assert found["value: correlation"].tolist() == pytest.approx([1.0, 1.0])
    assert found["value: rmse"].tolist() == pytest.approx([0.0, 0.0], abs=1e-3)


@pytest.fixture(scope="module")
def learner():
    return make_learner(SPEC, toy_config(SPEC, {"actor_critic.imagination.context_length": 2}))


def test_an_oracle_has_no_error_and_a_guess_of_no_change_has_that_of_the_change(learner, monkeypatch):
    fresh = written((7, 7, 7))
    horizon = learner.config.regime(learner.spec.num_agents).horizon
    starts = torch.tensor([0, 1, 2])[: min(STARTS, 7 - horizon + 1)]
    calls = iter(range(horizon + 1))

    def decode(_):
        obs = fresh.obs[:, starts + next(calls)]  # (E, starts, N, O)
        rows = obs.flatten(0, 1).transpose(0, 1)[:, None].expand(-1, 4, -1, -1)  # agents, samples, starts
        return symlog(rows).flatten(0, 2)[:, None]

    monkeypatch.setattr(learner.world_model.autoencoder, "decode", decode)
    steps = open_loop(learner, fresh, 0)
    assert len(steps) == horizon + 1
    for k, step in enumerate(steps):
        found = step.numbers([0, 1])
        assert found["observation"] == 0.0
        assert (found["unchanged"] > 0) == (k > 0)
        assert torch.allclose(symexp(step.real[0, 0, 0]), torch.tensor(float(k)), atol=1e-4)
    assert steps[1].reward_real[:, 1].tolist() == pytest.approx([100.0 * e + s + 10 for e in range(3) for s in starts.tolist()])


def test_rewards_are_called_rare_by_their_magnitude(learner):
    fresh = written((7, 7, 7))
    reward = torch.zeros_like(fresh.reward)
    reward[0, 2] = 10.0
    steps = open_loop(learner, dataclasses.replace(fresh, reward=reward), 0)
    rare = [step.numbers([0])["rare: rows"] for step in steps[1:]]
    assert sum(rare) > 0
    assert all(step.numbers([0])["rare: real"] == 10.0 for step, count in zip(steps[1:], rare, strict=True) if count)
    assert all(step.numbers([0])["usual: real"] == 0.0 for step in steps[1:])


def test_imagined_rewards_are_held_against_those_of_the_same_steps(learner):
    fresh = written((7, 7, 7))
    found = imagined(learner, fresh, 0)
    horizon, discount = learner.config.regime(learner.spec.num_agents).horizon, learner.config.actor_critic.discount
    starts = range(min(STARTS, 7 - horizon + 1))
    real = [sum(discount**k * (100 * e + s + k) for k in range(horizon)) for e in range(3) for s in starts]
    assert found[f"reward over {horizon} steps: real"][0].item() == pytest.approx(sum(real) / len(real), rel=1e-5)


def test_the_reward_heads_loss_stands_beside_what_frequencies_alone_would_cost(learner):
    found = whole_windows(learner, written((7, 7, 7)), 0)
    assert found["reward"] >= found["reward_marginal"] > 0  # untrained: uniform over all bins
    assert found["teammate_accuracy if policies were known"] == pytest.approx(1 / 3)


def with_a_death(fresh, *, episode, agent, at):
    """Return the episodes with an agent dead from row `at` on, as `play` writes it down."""
    alive, terminated, action = fresh.alive.clone(), fresh.terminated.clone(), fresh.action.clone()
    alive[episode, at:, agent] = False
    terminated[episode, at - 1 :, agent] = True
    action[episode, at:, agent] = NO_ACTION
    return dataclasses.replace(fresh, alive=alive, terminated=terminated, action=action)


def test_rows_of_the_dead_are_padding_and_they_are_no_mates():
    fresh = with_a_death(written((4,)), episode=0, agent=0, at=2)
    windows = fresh.windows(torch.tensor([0]), torch.arange(5)[None])
    assert windows.is_valid.tolist() == [[True, True, False, False, False], [True] * 5]
    assert windows.continues[0, :2].tolist() == [1, 0] and windows.continues[1].tolist() == [1] * 5
    assert windows.mate_actions[1, :, 0].tolist() == [0, 1, -1, -1, -1]
    assert windows.reward[0].tolist() == [0, 1, 0, 0, 0] and not windows.action_mask[0, 2:].any()


def test_who_has_ended_has_no_legal_actions_at_the_last_row():
    ended = dataclasses.replace(written((2,)), terminated=torch.tensor([[[False, False], [True, False], [True, False]]]))
    windows = ended.windows(torch.tensor([0]), torch.arange(3)[None])
    assert windows.is_valid.all() and windows.action_mask[:, 2].any(-1).tolist() == [False, True]
    assert windows.continues.tolist() == [[1, 0, 1], [1, 1, 1]]


def test_the_dead_count_nowhere(learner):
    fresh = with_a_death(written((7, 7, 7)), episode=0, agent=0, at=1)
    nonsense = fresh.obs.clone()
    nonsense[0, 1:, 0] = 1e6
    one, other = (open_loop(learner, each, 0) for each in (fresh, dataclasses.replace(fresh, obs=nonsense)))
    starts = len(one[0].real)
    assert [step.counts[:, 0, 0].sum().item() for step in one[:2]] == [starts - starts // 3 + 1, starts - starts // 3]
    assert one[1].acted[:, 0].sum() == starts - starts // 3 + 1
    for before, after in zip(one, other, strict=True):
        assert all(before.numbers([0])[key] == after.numbers([0])[key] for key in ("observation", "unchanged"))
    found, every = values(fresh, learner.config), values(written((7, 7, 7)), learner.config)
    assert found["value: realised mean"][0] > every["value: realised mean"][0]  # the first episode's rewards are the smallest
    assert found["value: realised mean"][1] == every["value: realised mean"][1]


def test_rewards_after_a_death_are_not_those_of_the_imagined_agent(learner):
    horizon, discount = learner.config.regime(learner.spec.num_agents).horizon, learner.config.actor_critic.discount
    found = imagined(learner, with_a_death(written((7,)), episode=0, agent=0, at=1), 0)
    # Of its starts only the first row counts, and its one reward there is 0.
    assert found[f"reward over {horizon} steps: real"][0].item() == 0.0
    starts = range(min(STARTS, 7 - horizon + 1))
    real = [sum(discount**k * (10 + s + k) for k in range(horizon)) for s in starts]
    assert found[f"reward over {horizon} steps: real"][1].item() == pytest.approx(sum(real) / len(real), rel=1e-5)


def test_an_episode_cut_short_of_the_horizon_tells_nothing_of_it_but_one_that_ended_does(learner):
    horizon = learner.config.regime(learner.spec.num_agents).horizon
    cut = written((7, 2))
    name = f"reward over {horizon} steps: real"
    alone = imagined(learner, written((7,)), 0)[name]
    assert torch.allclose(imagined(learner, cut, 0)[name], alone)
    terminated = cut.terminated.clone()
    terminated[1, 1:] = True
    assert (imagined(learner, dataclasses.replace(cut, terminated=terminated), 0)[name] > alone).all()
    assert not open_loop(learner, cut, 0)[horizon].counts.view(-1, *cut.obs.shape[2:])[-1].any()


def test_fresh_episodes_with_deaths_are_written_as_a_replay_would():
    env = EnvConfig(family="pettingzoo", name="tests.matwm.arena:parallel_env", options={})
    one = make_env(env)
    learner = make_learner(one.spec, toy_config(one.spec, {}))
    fresh = play(learner, env, episodes=8, first_seed=0, acting_context=4)
    died = ~fresh.alive[torch.arange(8), fresh.length]
    assert died.any() and not died.all()
    assert (fresh.action[~fresh.alive] == NO_ACTION).all()
    assert fresh.terminated[torch.arange(8), fresh.length][died].all()
    episode, agent = died.nonzero(as_tuple=True)
    at = fresh.alive.long().argmin(1)[died]  # the first row at which it is dead
    assert fresh.terminated[episode, at - 1, agent].all()
    late = at > 1
    assert late.any() and not fresh.terminated[episode, at - 2, agent][late].any()
    found = [*imagined(learner, fresh, 0).values(), *values(fresh, learner.config).values(), *played(fresh).values()]
    assert all(torch.isfinite(each).all() for each in found)
    assert all(math.isfinite(value) for value in whole_windows(learner, fresh, 0).values())


def test_fresh_episodes_are_those_of_the_environment():
    config = tiny_config()
    trainer = build_trainer(config)
    fresh = play(trainer.learner, config.env, episodes=3, first_seed=5, acting_context=4)
    assert fresh.length.tolist() == [6, 6, 6]
    assert fresh.obs.shape[:3] == (3, 7, trainer.spec.num_agents)
    assert (fresh.action[:, :6] >= 0).all() and (fresh.action[:, 6] == NO_ACTION).all()
    assert torch.allclose(fresh.probs.sum(-1), torch.ones(()))
    again = play(trainer.learner, config.env, episodes=3, first_seed=5, acting_context=4)
    assert torch.equal(fresh.obs, again.obs) and torch.equal(fresh.action, again.action)


def test_a_checkpoint_is_diagnosed_on_the_command_line_and_twice_the_same(tmp_path, capsys):
    config = load_config(preset_path("ci-tiny"))
    schedule = config.schedule.model_copy(update={"warmup_steps": 40})
    trainer = build_trainer(config.model_copy(update={"schedule": schedule}))
    while trainer.env_step < 48:
        trainer.step()
    checkpoint = trainer.save(LocalStore(tmp_path), ROOT)
    first, second = (diagnose(checkpoint, episodes=4, first_seed=1) for _ in range(2))
    assert repr(first) == repr(second)
    assert set(first.play) == {"adversary", "agent"}
    assert all(math.isfinite(value) for numbers in first.play.values() for value in numbers.values())
    assert len(first.entries["adversary"]) == 16 and len(first.entries["agent"]) == 14
    assert learning.main(["diagnose", str(tmp_path), "--episodes", "4"]) == 0
    shown = capsys.readouterr().out
    assert "step 48" in shown and "value: correlation" in shown and "agent: open loop" in shown
    assert learning.main(["diagnose", str(tmp_path / "nothing")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_what_was_trained_on_a_gpu_is_diagnosed_on_the_cpu(tmp_path):
    trainer = make_trainer()
    for _ in range(8):
        trainer.step()
    trainer.config = tiny_config({"run.device": "cuda", "run.cuda_graphs": True})
    checkpoint = trainer.save(LocalStore(tmp_path), ROOT)
    assert checkpoint.config["run"]["device"] == "cuda"
    found = diagnose(checkpoint, episodes=3, first_seed=1)
    trainer.config = tiny_config()
    assert repr(found) == repr(diagnose(trainer.save(LocalStore(tmp_path / "cpu"), ROOT), episodes=3, first_seed=1))


TOGETHER = {
    "actor_critic.imagination.mates": "imagined",
    "actor_critic.critic_reads": "joint",
    "world_model.dynamics_reads": "joint",
    "world_model.reward_reads": "joint",
    "world_model.reward_input": "arrival",
}


@pytest.mark.parametrize("code", ["one_hot", "ordinal"])
def test_checkpoints_of_agents_imagined_together_are_diagnosed_with_the_dead_among_them(tmp_path, code):
    trainer = make_trainer(None, tiny_config({**TOGETHER, "world_model.latent_code": code}))
    for _ in range(14):
        trainer.step()
    found = diagnose(trainer.save(LocalStore(tmp_path), ROOT), episodes=3, first_seed=7)
    assert set(found.play) == {"adversary", "agent"}
    assert all(math.isfinite(number) for number in found.world_model.values())
    spec, config = SPEC, toy_config(SPEC, {**TOGETHER, "world_model.latent_code": code, "actor_critic.imagination.context_length": 2})
    dead = with_a_death(written((7, 7, 7)), episode=0, agent=0, at=1)
    one = make_learner(spec, config)
    nonsense = dead.obs.clone()
    nonsense[0, 1:, 0] = 1e6
    with torch.no_grad():
        before, after = (open_loop(one, each, 0) for each in (dead, dataclasses.replace(dead, obs=nonsense)))
    for mine, theirs in zip(before, after, strict=True):
        assert mine.numbers([1])["observation"] == theirs.numbers([1])["observation"]
        assert torch.equal(mine.reward_predicted[:, 1:], theirs.reward_predicted[:, 1:])


def test_views_of_one_world_are_as_far_apart_as_what_is_decoded(monkeypatch):
    """Agent 0 sees (x, y), agent 1 x + 10: of what both imagine the second is told to be right, and then a tenth of the spread off."""
    fresh = written((7, 7, 7))
    learner = make_learner(SPEC, toy_config(SPEC, {**TOGETHER, "actor_critic.imagination.context_length": 2}))
    spread = fresh.obs[:, :, 1, 0].flatten().double().std().item()
    off = [0.0]

    def decode(z):
        rows = torch.linspace(1.0, 200.0, z.shape[0] // 2 * z.shape[1]).view(-1, z.shape[1])
        first = torch.stack([rows, rows], -1)
        second = torch.stack([rows + 10.0 + off[0] * spread, torch.zeros_like(rows)], -1)
        return symlog(torch.cat([first, second]))

    monkeypatch.setattr(learner.world_model.autoencoder, "decode", decode)
    with torch.no_grad():
        found = views_apart(learner, fresh, 0)
        off[0] = 0.1
        apart = views_apart(learner, fresh, 0)
    assert found["views apart: real rows"] < 1e-4
    assert found["views apart: after 0"] < 1e-2
    assert apart["views apart: after 1"] == pytest.approx(0.1, rel=0.1)
