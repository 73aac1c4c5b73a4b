"""What the games of Butterfly get wrong is put right, and only that."""

import importlib
import inspect

import numpy as np
import pytest

from matwm import scenarios
from matwm.config import EnvConfig
from matwm.envs import make_env
from matwm.envs.butterfly import lift_behind
from matwm.envs.images import small
from matwm.evaluation import reference_lines
from tests.matwm.envs.examples import played

pytest.importorskip("pymunk")
KNIGHTS = "knights_archers_zombies_v11"
OPTIONS = {"spawn_delay": 5, "max_cycles": 300}
NOT_OPTIONS = {"self", "render_mode", "render_fps", "continuous", "randomizer"}
CLASSES = {
    "cooperative_pong_v6": "cooperative_pong.cooperative_pong:CooperativePong",
    "pistonball_v6": "pistonball.pistonball:raw_env",
    KNIGHTS: "knights_archers_zombies.knights_archers_zombies:raw_env",
}


def bare():
    return importlib.import_module(f"pettingzoo.butterfly.{KNIGHTS}").parallel_env(**OPTIONS)


@pytest.mark.parametrize("name", scenarios.names("butterfly"))
def test_options_and_defaults_are_those_of_the_package(name):
    module, _, attribute = CLASSES[name].partition(":")
    maker = getattr(importlib.import_module(f"pettingzoo.butterfly.{module}"), attribute)
    parameters = inspect.signature(maker.__init__).parameters
    expected = {key: parameter.default for key, parameter in parameters.items() if key not in NOT_OPTIONS}
    assert scenarios.complete_options("butterfly", name, {}) == expected
    complete = scenarios.complete_options("butterfly", name, {"n_pistons": 5} if name.startswith("piston") else {})
    spec = make_env(EnvConfig(family="butterfly", name=name, options=complete)).spec
    assert scenarios.num_agents("butterfly", name, complete) == spec.num_agents


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("pistonball_v6", {"continuous": True}, "env.options.continuous is True, but MATWM has discrete actions only: remove it"),
        ("pistonball_v6", {"n_pistons": 3}, "env.options.n_pistons is 3, expected a whole number from 4 to 128"),
        (KNIGHTS, {"obs_method": "vector-sequence"}, "expected one of vector, vector-masked, image (what agents see)"),
        ("cooperative_pong_v5", {}, "env.name 'cooperative_pong_v5' is unknown, did you mean cooperative_pong_v6?"),
    ],
)
def test_wrong_options_are_refused(name, options, sentence):
    with pytest.raises(ValueError) as caught:
        EnvConfig(family="butterfly", name=name, options=options)
    assert sentence in str(caught.value)


def test_knights_and_archers_are_rewarded_in_the_step_of_their_hit():
    """The package gives the first agent's reward in time, and the others' in the next step if they are there."""
    env = make_env(EnvConfig(family="butterfly", name=KNIGHTS, options=OPTIONS))
    hits = 0
    for seed in range(6):
        told, package = played(env, seed, 300), bare()
        package.reset(seed=seed)
        theirs, playing = [], []
        for actions, _ in told[1:]:
            playing.append(list(package.agents))
            rewards = package.step({agent: int(actions[env.spec.agents.index(agent)]) for agent in package.agents})[1]
            theirs.append([rewards[agent] for agent in env.spec.agents])
        ours, theirs = np.array([tick.reward for _, tick in told[1:]]), np.array(theirs)
        for number, agent in enumerate(env.spec.agents):
            for step in range(len(theirs) - 1):
                if agent in playing[step + 1] and playing[step + 1][0] == playing[step][0] == env.spec.agents[0]:
                    assert ours[step, number] == theirs[step + (number > 0), number], (seed, agent, step)
        hits += ours[:, 1:].sum()
    assert hits > 0


def test_a_hit_is_paid_once_to_the_dead_too():
    env = make_env(EnvConfig(family="butterfly", name=KNIGHTS, options={**OPTIONS, "spawn_delay": 100}))
    dying, gone = (env.spec.agents.index(name) for name in ("archer_0", "archer_1"))
    tick = env.reset(0)
    game = env._env.unwrapped
    idle = 5

    def step(killed=None, hits=()):
        """Let hits and a death happen where the package lets them happen, at the end of the step."""

        def end_of_step(original=game.do_zombie_turn):
            original()
            for name in hits:
                game.agent_map[name].score += 1
            if killed:
                game._remove_agent(game.agent_map[killed])

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(game, "do_zombie_turn", end_of_step)
            return env.step(np.where(tick.alive, idle, 0))

    tick = step(killed="archer_1")
    assert not tick.reward.any()
    tick = step(killed="archer_0", hits=("archer_0", "archer_1", "knight_0"))
    assert not tick.alive[[dying, gone]].any()
    assert (tick.reward[dying], tick.reward[gone], tick.reward.sum()) == (1, 1, 3), "an arrow in flight is still paid"
    for _ in range(3):
        tick = step()
        assert not tick.reward.any()
    assert step(hits=("archer_1",)).reward[gone] == 1


def test_the_package_still_carries_its_spawn_counter_over_a_reset():
    """As long as it does, each episode needs a new environment."""

    def zombies(env):
        env.reset(seed=0)
        return [env.step(dict.fromkeys(env.agents, 5))[0]["archer_0"].tobytes() for _ in range(12)]

    fresh, used = bare(), bare()
    used.reset(seed=3)
    for _ in range(3):
        used.step(dict.fromkeys(used.agents, 5))
    assert zombies(fresh) != zombies(used)


def test_pictures_are_shrunk_without_losing_what_is_small():
    picture = np.zeros((280, 480, 3), np.uint8)
    picture[100:110, 200:210] = 250
    shrunk = small(picture)
    assert (shrunk.shape, shrunk.dtype) == ((3, 64, 64), np.uint8)
    # 100 pixels of 250 are a share of 0.186 % of the picture, whatever its size: no sampling between them loses it.
    assert shrunk.mean() == pytest.approx(picture.mean(), rel=0.05)
    assert np.unravel_index(shrunk[0].argmax(), (64, 64)) == (23, 27)
    noise = np.random.default_rng(1).integers(0, 256, (90, 120, 3), np.uint8)
    by_columns = noise.transpose(1, 0, 2).copy().transpose(1, 0, 2)
    assert np.abs(small(noise).astype(int) - small(by_columns)).max() <= 1, "a grey level of rounding, whichever way it lies in memory"
    noise.flags.writeable = False
    assert np.array_equal(small(noise), small(noise[:, ::-1][:, ::-1]))
    exact = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert np.array_equal(small(exact), exact.transpose(2, 0, 1))
    assert np.array_equal(small(exact[:, :, :1]), np.repeat(exact[None, :, :, 0], 3, 0))


def test_pistons_that_lift_behind_the_ball_bring_it_to_the_wall():
    env = EnvConfig(family="butterfly", name="pistonball_v6", options={"n_pistons": 5})
    lines = {result.matchup: result for result in reference_lines(env, episodes=5, first_seed=10_000)}
    assert set(lines) == {"random", "lift"}
    assert lines["lift"].roles["piston"].median > 95 > lines["random"].roles["piston"].median
    lengths = {name: (result.actions[..., 0] >= 0).sum(1).mean() for name, result in lines.items()}
    assert lengths["lift"] < 0.5 * lengths["random"]


def test_a_piston_rises_for_a_ball_on_its_left_alone():
    grey, ball = np.full((4, 3, 64, 64), 255, np.uint8), np.array([65, 159, 221], np.uint8)[:, None, None]
    grey[0, :, 40:50, 5:20] = ball  # gone by
    grey[1, :, 40:50, 44:60] = ball  # still to come
    grey[2, :, 56:60, 5:20] = ball  # that is a piston
    assert lift_behind(grey).tolist() == [2, 0, 0, 0]
