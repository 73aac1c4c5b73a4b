"""Whole episodes: whose actions count, what is summed up, and that nobody notices an evaluation."""

import contextlib
import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from matwm import evaluation
from matwm.acting import EpisodeContext
from matwm.actor_critic import Actors
from matwm.config import Config, EnvConfig
from matwm.envs import make_env
from matwm.envs.scripted import LineUp
from matwm.evaluation import Guest, Result, Summary, evaluate, play_episodes, reference_lines
from matwm.params_yaml import load_config, preset_path
from matwm.policy import Networks
from matwm.stateful import fingerprint
from matwm.trainer import Trainer, build_trainer
from matwm.types import EnvSpec
from tests.matwm.tiny import tiny_config
from tests.matwm.toy_envs import CounterEnv

torch.set_num_threads(1)

STILL_V_STILL = LineUp(("still", "still"))


def tiny(name: str = "simple_tag_v3", **options: object) -> Config:
    config = load_config(preset_path("ci-tiny"))
    env = EnvConfig.model_validate({"family": "mpe", "name": name, "options": {"max_cycles": 6, **options}})
    schedule = config.schedule.model_copy(update={"warmup_steps": 20, "acting_context": 4})
    return config.model_copy(update={"env": env, "schedule": schedule})


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    return build_trainer(tiny())


def networks(trainer: Trainer) -> Networks:
    learner, config = trainer.learner, trainer.config
    return Networks(config.env, trainer.spec, learner.world_model, learner.actors, config.schedule.acting_context)


def run(
    net: Networks, *, modes: Sequence[evaluation.Mode] = ("greedy",), episodes: int = 3, against: list[LineUp] | None = None
) -> list[Result]:
    return evaluate(
        net.world_model, net.actors, net.env,
        episodes=episodes, first_seed=7, modes=modes, acting_context=net.acting_context, against=against,
    )  # fmt: skip


def always(spec: EnvSpec, trainer: Trainer, actions: Sequence[int]) -> Actors:
    """Policies of which agent i takes actions[i] whatever it sees."""
    actors = Actors(spec.num_agents, trainer.learner.world_model.feature_size, spec.action_size, trainer.config.actor_critic)
    with torch.no_grad():
        for agent, action in enumerate(actions):
            actors.net.output_weight[agent].zero_()
            actors.net.output_bias[agent, 0, action] = 50.0
    return actors


def returns_of(config: EnvConfig, seed: int, actions: Sequence[int]) -> np.ndarray:
    """What constant actions earn, one environment at a time."""
    env = make_env(config)
    tick = env.reset(seed)
    total = np.zeros(len(actions))
    while not tick.is_over:
        tick = env.step(np.array(actions))
        total += tick.reward
    return total


def test_a_guest_plays_its_seats_and_the_learner_the_others(trainer: Trainer) -> None:
    net = networks(trainer)
    learner, guest = (
        always(net.spec, trainer, [1, 1, 1, 2]),
        Guest(net.world_model, always(net.spec, trainer, [3, 4, 3, 0]), 4, greedy=True),
    )
    line_ups = [LineUp((None, "friend")), LineUp(("friend", None))]
    given = {"episodes": 2, "first_seed": 7, "modes": ["greedy"], "acting_context": 4, "against": line_ups, "guests": {"friend": guest}}
    first, second = evaluate(net.world_model, learner, net.env, **given)
    assert (first.matchup, first.learned, second.matchup, second.learned) == ("learned_v_friend", (0, 1, 2), "friend_v_learned", (3,))
    assert np.unique(first.actions.reshape(-1, 4), axis=0).tolist() == [[1, 1, 1, 0]]
    assert np.unique(second.actions.reshape(-1, 4), axis=0).tolist() == [[3, 4, 3, 2]]


def test_a_summary_is_what_one_works_out_by_hand() -> None:
    # Mean 4, squared deviations 9 + 4 + 1 + 36 = 50 over 3, and four episodes.
    assert Summary.of(np.array([1.0, 2.0, 3.0, 10.0])) == Summary(4.0, 2.5, (50 / 3) ** 0.5, (50 / 3) ** 0.5 / 2, 1.0, 10.0, 4)


def test_an_episode_that_is_over_counts_no_further() -> None:
    envs = [CounterEnv(length=2), CounterEnv(length=3)]
    # Legal whenever the other parity is not: action 1 at even t, 0 at odd t (short); (t + 1) % 3 (long).
    steps = iter(range(3))

    def choose(obs: np.ndarray, mask: np.ndarray) -> np.ndarray:
        t = next(steps)
        return np.tile([(t + 1) % 2, (t + 1) % 3], (2, 1))

    played = play_episodes(envs, [1, 2], choose)
    returns, actions = played.returns, played.actions
    # Rewards of agent 0 at t: 10t + a = 1, 10, 21; of agent 1: 1000 + 10t + a = 1001, 1012, 1020.
    assert returns.tolist() == [[11, 2013], [32, 3033]]
    assert actions[:, :, 0].tolist() == [[1, 0, -1], [1, 0, 1]]
    assert actions[:, :, 1].tolist() == [[1, 2, -1], [1, 2, 0]]


def test_side_by_side_is_the_same_as_one_by_one() -> None:
    config = tiny().env
    (result,) = reference_lines(config, episodes=4, first_seed=11, line_ups=[STILL_V_STILL])
    assert result.returns.tolist() == [returns_of(config, seed, [0, 0, 0, 0]).tolist() for seed in (11, 12, 13, 14)]
    assert result.seeds == (11, 12, 13, 14)


def test_more_episodes_than_run_side_by_side_come_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny().env
    (at_once,) = reference_lines(config, episodes=5, first_seed=3, line_ups=[STILL_V_STILL])
    monkeypatch.setattr(evaluation, "LOCKSTEP", 2)
    (in_groups,) = reference_lines(config, episodes=5, first_seed=3, line_ups=[STILL_V_STILL])
    assert np.array_equal(at_once.returns, in_groups.returns)
    assert np.array_equal(at_once.actions, in_groups.actions)


def test_every_group_of_episodes_begins_with_an_empty_memory(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    remembered: list[int] = []

    def spy(world_model: object, actors: object, context: EpisodeContext, mask: np.ndarray, *, greedy: bool) -> np.ndarray:
        remembered.append(context.windows().obs.shape[1])
        return np.zeros(mask.shape[:2], np.int64)

    monkeypatch.setattr(evaluation, "choose_actions", spy)
    monkeypatch.setattr(evaluation, "LOCKSTEP", 2)
    run(networks(trainer), episodes=4, against=[LineUp((None, None))])
    assert remembered == [1, 2, 3, 4, 4, 4] * 2  # six steps an episode, of which the policy sees four


@pytest.mark.parametrize(
    ("tactics", "played"),
    [((None, None), [1, 2, 3, 4]), ((None, "still"), [1, 2, 3, 0]), (("still", None), [0, 0, 0, 4])],
)
def test_each_agent_plays_its_own_policy_and_opponents_their_script(
    trainer: Trainer, tactics: tuple[str | None, ...], played: list[int]
) -> None:
    net = dataclasses.replace(networks(trainer), actors=always(trainer.spec, trainer, [1, 2, 3, 4]))
    (result,) = run(net, against=[LineUp(tactics)])
    assert (result.actions == played).all()
    assert result.returns.tolist() == [returns_of(net.env, seed, played).tolist() for seed in (7, 8, 9)]
    assert result.learned == tuple(number for number, action in enumerate(played) if action)


def test_a_competitive_scenario_meets_every_frozen_opponent_in_every_mode(trainer: Trainer) -> None:
    found = [(result.mode, result.matchup) for result in run(networks(trainer), modes=["sampled", "greedy"], episodes=2)]
    one_mode = ["self_play", "learned_v_random", "learned_v_still", "learned_v_flee"]
    one_mode += ["random_v_learned", "still_v_learned", "chase_v_learned"]
    assert found == [(mode, matchup) for mode in ("sampled", "greedy") for matchup in one_mode]


def test_a_team_without_opponents_only_plays_itself_and_scripts_are_the_lines_to_reach() -> None:
    spread = build_trainer(tiny("simple_spread_v3"))
    assert [result.matchup for result in run(networks(spread), episodes=2)] == ["self_play"]
    names = [result.matchup for result in reference_lines(spread.config.env, episodes=2, first_seed=0)]
    assert names == ["random", "still", "nearest_landmark", "assignment"]


def test_a_role_is_summed_up_by_its_mean_in_each_episode(trainer: Trainer) -> None:
    (result,) = reference_lines(trainer.config.env, episodes=4, first_seed=0, line_ups=[LineUp(("chase", "random"))])
    assert list(result.agents) == list(trainer.spec.agents)
    assert list(result.roles) == ["adversary", "agent"]
    means = result.returns[:, :3].mean(1)
    assert result.roles["adversary"] == Summary.of(means)
    assert result.roles["agent"] == result.agents["agent_0"]
    assert means[result.typical] == sorted(means)[1]


def test_a_match_up_does_not_depend_on_what_else_is_evaluated(trainer: Trainer) -> None:
    net = networks(trainer)
    everything = run(net, modes=["greedy", "sampled"])
    (alone,) = run(net, modes=["sampled"], against=[LineUp(("random", None))])
    (same,) = [result for result in everything if (result.mode, result.matchup) == ("sampled", "random_v_learned")]
    assert np.array_equal(alone.actions, same.actions)
    assert np.array_equal(alone.returns, same.returns)


def test_another_first_seed_gives_other_episodes(trainer: Trainer) -> None:
    lines = [reference_lines(trainer.config.env, episodes=2, first_seed=seed, line_ups=[LineUp(("random", "random"))]) for seed in (0, 50)]
    assert not np.array_equal(lines[0][0].actions, lines[1][0].actions)


def test_training_does_not_notice_an_evaluation() -> None:
    watched, alone = build_trainer(tiny()), build_trainer(tiny())
    for step in range(33):
        if step in (10, 27, 29):  # in the warm-up, in mid-episode, between updates
            before = torch.get_rng_state()
            run(networks(watched), modes=["sampled"], episodes=2, against=[LineUp((None, "random"))])
            assert torch.equal(torch.get_rng_state(), before)
        watched.step()
        alone.step()
    assert watched.learner.world_model.training == alone.learner.world_model.training
    assert fingerprint(watched.parts()) == fingerprint(alone.parts())


def test_an_evaluation_that_is_not_wanted_any_more_stops_at_the_next_step_without_a_result(trainer: Trainer) -> None:
    net, before, looks = networks(trainer), torch.get_rng_state(), []
    results = evaluate(
        net.world_model, net.actors, net.env, episodes=2, first_seed=7, modes=["sampled"], acting_context=net.acting_context,
        should_stop=lambda: looks.append(None) is None and len(looks) == 4,
    )  # fmt: skip
    assert (results, len(looks)) == ([], 4), "episodes have 6 steps"
    assert torch.equal(torch.get_rng_state(), before)


def test_policies_that_see_images_are_judged_beside_random_play() -> None:
    arena = {"env.family": "pettingzoo", "env.name": "tests.matwm.arena:parallel_env", "env.options": {"see": "image", "max_cycles": 5}}
    trainer = build_trainer(tiny_config(arena))
    results = run(networks(trainer), episodes=2)
    lines = reference_lines(trainer.config.env, episodes=2, first_seed=100)
    assert [result.matchup for result in results] == ["self_play"]
    assert [line.matchup for line in lines] == ["random"]
    assert all(np.isfinite(result.returns).all() for result in (*results, *lines))


def test_who_watches_sees_every_moment_of_every_episode(trainer: Trainer) -> None:
    net = networks(trainer)
    scenes: list[evaluation.Scene] = []
    (result,) = evaluate(
        net.world_model, net.actors, net.env,
        episodes=2, first_seed=7, modes=["sampled"], acting_context=net.acting_context, against=[LineUp((None, None))], watch=scenes.append,
    )  # fmt: skip
    assert [(scene.seed, scene.step, scene.is_last) for scene in scenes] == [(s, t, t == 6) for s in (7, 8) for t in range(7)]
    assert np.array_equal([scene.returns for scene in scenes if scene.is_last], result.returns)
    assert not scenes[0].returns.any()
    for episode, seed in enumerate((7, 8)):  # the pictures are those of the episode that was played
        with contextlib.closing(make_env(net.env, render=True)) as env:
            env.reset(seed)
            for step in range(7):
                assert np.array_equal(scenes[7 * episode + step].picture, env.render())
                if step < 6:
                    env.step(result.actions[episode, step])


def test_a_single_episode_has_no_spread() -> None:
    summary = Summary.of(np.array([3.0]))
    assert (summary.mean, summary.episodes) == (3.0, 1)
    assert np.isnan([summary.std, summary.stderr]).all()
