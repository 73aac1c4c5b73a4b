"""Does it learn what there is to learn? Known environments, tiny networks, seconds.

Where certainty is judged, the likeliest latent is taken: 1 % unimix redraws one in every few steps even of a certain model.
Training still samples: on likeliest latents the encoder hides everything in nearly uniform posteriors, whose KL is below the
free nats, and the dynamics learn nothing.
"""

import dataclasses
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from matwm.acting import random_actions
from matwm.batches import Windows
from matwm.collector import Collector
from matwm.envs.episode_log import EpisodeLog
from matwm.replay import Replay
from matwm.rng import generator_for, seed_torch
from matwm.types import EnvSpec, Tick
from matwm.world_model import model as model_module
from tests.matwm.tiny import make_learner, make_trainer, make_windows, repeating, run, toy_config
from tests.matwm.toy_envs import AnnouncedEnv, RingEnv

LARGER = {
    "world_model.latents": 8,
    "world_model.classes": 8,
    "world_model.hidden_size": 32,
    "world_model.encoder_width": 32,
    "world_model.head_width": 32,
    "world_model.dropout": 0.0,
    "world_model.learning_rate": 3e-3,
    "world_model.autoencoder_learning_rate": 3e-3,
    "world_model.teammates.hidden_size": 32,
    "world_model.teammates.heads": 2,
    "replay.capacity": 2000,
    "replay.recency_decay": 1.0,
    "schedule.warmup_steps": 20,
}


@contextmanager
def likeliest():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_module, "sample_index", lambda probs: probs.argmax(-1))
        yield


def fit(learner, sample, updates):
    for update in repeating(updates, 2):
        seed_torch(0, "test", update)
        metrics = learner.update_world_model(sample(update))
    return {name.removeprefix("world_model/"): value for name, value in metrics.numbers.items()}


def played(env, choose, steps, config):
    """Fill a replay with what `choose(env, rng, mask)` does."""
    log = EpisodeLog(env)
    collector = Collector(log, Replay(log.spec, config.replay), seed=0, acting_context=1)
    for step in repeating(steps, 24):
        rng = generator_for(0, "test", step)
        collector.step(lambda _, mask, rng=rng: choose(rng, mask), env_step=step + 1)
    return collector.replay


# ---- the world model


def test_one_batch_can_be_learned_by_heart():
    """Every term near its floor; actions and rewards of one step follow from the observations."""
    spec = EnvSpec("masked", ("short_0", "long_0"), (2, 4), (2, 3), has_action_masks=True)
    learner = make_learner(spec, toy_config(spec, LARGER))
    windows = make_windows(spec, per_agent=1, length=8)
    bins = learner.world_model.heads.reward_bins.bins
    reward = bins[torch.randint(6, 15, windows.reward.shape, generator=torch.Generator().manual_seed(0))]
    continues = windows.continues.clone()
    continues[:, 5] = 0.0
    windows = dataclasses.replace(windows, reward=reward, continues=continues)
    with likeliest():
        before = fit(learner, lambda _: windows, 1)
        after = fit(learner, lambda _: windows, 400)
    assert after["reconstruction"] < 1e-3 < before["reconstruction"]
    for term in ("reward", "continuation", "teammates", "action_mask"):
        assert after[term] < 0.05 < before[term], term
    assert after["teammate_accuracy"] == 1.0
    assert after["kl"] < 1.3


def test_each_slot_of_the_teammate_predictor_names_its_own_mate():
    """Each agent sees what the others do next: mixed-up slots, or one row late, and it cannot be predicted."""
    env = AnnouncedEnv()
    config = toy_config(env.spec, {**LARGER, "world_model.windows": 12, "world_model.window_length": 16})
    replay = played(env, lambda *_: env.announced[None], 600, config)
    learner = make_learner(env.spec, config)

    def sample(update):
        return replay.sample_windows(generator_for(1, "w", update), per_agent=4, length=16)[0]

    before = fit(learner, sample, 1)
    fit(learner, sample, 300)
    windows = sample(10_000)
    model = learner.world_model.eval()
    z = torch.nn.functional.one_hot(model.autoencoder.posterior(windows.obs, windows.agent).argmax(-1), 8).flatten(2).float()
    guess = model.teammates(z, windows.agent, *model_module.layout(windows.is_first, windows.is_valid)).argmax(-1)
    assert before["teammate_accuracy"] < 0.6
    for focal in range(3):
        mine = windows.agent == focal
        for slot in range(2):
            actual = windows.mate_actions[mine][..., slot]
            known = actual >= 0
            accuracy = (guess[mine][..., slot] == actual)[known].float().mean().item()
            assert accuracy > 0.97, (focal, slot)


class EndingRing(RingEnv):
    """A ring whose agents also see the clock, and whose episodes truly end after `length` steps."""

    def __init__(self):
        super().__init__(cells=5, length=12)
        self.spec = EnvSpec("ending_ring", self.spec.agents, (6, 6), (3, 3))

    def _tick(self, reward):
        tick = super()._tick(reward)
        clock = np.full((2, 1), self._t / 4, np.float32)
        obs = np.concatenate([3 * tick.obs, clock], 1)
        ends = np.full(2, self._t >= 12)
        return Tick(obs, tick.action_mask, tick.reward, ends, truncated=False, alive=~ends)


@torch.no_grad()
def open_loop(model, windows: Windows, context: int):
    """Imagine on from the first `context` rows by the recorded actions: distances, rewards and continuations."""
    head = Windows(**{name: value if name == "agent" else value[:, :context] for name, value in vars(windows).items()})
    steps = windows.obs.shape[1] - context
    state = model.observe(head, horizon=steps)
    distance, hidden, latents = [], [], []
    for t in range(context - 1, context - 1 + steps):
        state = model.advance(state, windows.action[:, t])
        z = model.autoencoder.code.read_index(state.latent)
        distance.append(model.autoencoder.decode(z[:, None])[:, 0, :5].argmax(-1))
        hidden.append(state.hidden)
        latents.append(state.latent)
    return torch.stack(distance, 1), *model.outcomes(torch.stack(hidden, 1), torch.stack(latents, 1))


@pytest.mark.parametrize(
    "changes", [{}, {"world_model.latent_code": "ordinal", "world_model.reward_input": "arrival"}], ids=["", "ordinal"]
)
def test_imagination_by_recorded_actions_tells_what_happened(changes):
    """Agent 0 wanders, agent 1 walks left: for agent 0 all that follows is determined, eight steps ahead and to the end."""
    env = EndingRing()
    config = toy_config(env.spec, {**LARGER, "world_model.windows": 16, "world_model.window_length": 16, **changes})

    def choose(rng, mask):
        return np.array([[random_actions(rng, mask)[0, 0], 1]])

    replay = played(env, choose, 1200, config)
    learner = make_learner(env.spec, config)
    fit(learner, lambda update: replay.sample_windows(generator_for(1, "w", update), per_agent=8, length=16)[0], 450)
    fresh = played(EndingRing(), lambda rng, mask: choose(np.random.default_rng(rng.integers(2**32)), mask), 480, config)
    starts = np.tile(13 * np.arange(40), 2)[:, None]
    episodes = fresh._gather(starts + np.arange(13), np.ones((80, 13), bool))
    with likeliest():
        distance, reward, continues = open_loop(learner.world_model.eval(), episodes, 5)
    mine = episodes.agent == 0
    right = {
        # After a true ending the agent is gone: what is seen there is no row of its own.
        "observation": (distance[mine] == episodes.obs[mine, 5:, :5].argmax(-1))[:, :-1],
        "reward": (reward[mine] - episodes.reward[mine, 4:-1]).abs() < 0.3,
        "end": (continues[mine] > 0.5) == (episodes.continues[mine, 4:-1] > 0.5),
    }
    assert distance.shape == (80, 8)
    assert not episodes.continues[:, 11].any()
    for name, value in right.items():
        assert value.float().mean() >= 0.95, name


def test_a_time_limit_teaches_nothing_about_endings():
    """25-step episodes that are cut: stored as endings they would teach a continuation of 0.96 everywhere."""
    env = RingEnv(length=25)
    config = toy_config(env.spec, LARGER)
    replay = played(env, random_actions, 200, config)
    learner = make_learner(env.spec, config)
    metrics = fit(learner, lambda update: replay.sample_windows(generator_for(1, "w", update), per_agent=2, length=16)[0], 80)
    assert metrics["continues"] > 0.99


# ---- actors and critics


def constant_world(learner, reward, continues):
    def outcomes(hidden, latent, mate_actions):
        return torch.full(hidden.shape[:2], reward), torch.full(hidden.shape[:2], continues)

    learner.world_model.outcomes = outcomes


@pytest.mark.parametrize(("continues", "expected"), [(1.0, 5.0), (0.0, 1.0)])
def test_the_value_of_one_a_step_is_the_geometric_sum(continues, expected):
    """For ever: 1 / (1 - 0.8); once: 1."""
    spec = EnvSpec("pair", ("a_0", "b_0"), (3, 3), (2, 2))
    changes = {"actor_critic.discount": 0.8, "actor_critic.learning_rate": 5e-3, "actor_critic.slow_decay": 0.8}
    learner = make_learner(spec, toy_config(spec, changes))
    constant_world(learner, 1.0, continues)
    for update in repeating(250, 2):
        seed_torch(0, "test", update)
        metrics = learner.update_agents(make_windows(spec, per_agent=8, length=2, seed=update))
    values = [metrics[f"agents/{name}/value"] for name in spec.agents]
    assert values == pytest.approx([expected] * 2, rel=0.05)


class MatrixGame:
    """One step, worth 0, 1 or 4 as none, one or both choose their last action; then it truly ends."""

    def __init__(self):
        self.spec = EnvSpec("matrix", ("row_0", "column_0"), (1, 1), (3, 3))

    def reset(self, seed):
        return self._tick(0.0, over=False)

    def step(self, actions):
        return self._tick((0.0, 1.0, 4.0)[int((np.asarray(actions) == 2).sum())], over=True)

    def render(self):
        return np.zeros((8, 8, 3), np.uint8)

    def close(self):
        pass

    def _tick(self, reward, *, over):
        obs, ends = np.full((2, 1), over, np.float32), np.full(2, over)
        return Tick(obs, self.spec.action_exists, np.full(2, reward, np.float32), ends, truncated=False, alive=~ends)


def test_two_agents_find_the_best_joint_action_and_its_value():
    """After a true end nothing counts: the value is the reward itself."""
    regimes = [{"max_agents": None, "starts": 32, "horizon": 2}]
    changes = {
        "schedule.warmup_steps": 60,
        "schedule.agents_every": 1,
        "replay.capacity": 2000,
        "actor_critic.imagination.regimes": regimes,
    }
    changes |= {"world_model.learning_rate": 3e-3, "world_model.autoencoder_learning_rate": 3e-3, "actor_critic.learning_rate": 1e-2}
    changes |= {"actor_critic.entropy": 0.01, "actor_critic.slow_decay": 0.8}
    trainer = run(make_trainer(MatrixGame, toy_config(MatrixGame().spec, changes)), 350)
    returns = [episode.returns[0] for episode in trainer.history.episodes]
    assert np.mean(returns[:60]) < 1.5
    assert np.mean(returns[-30:]) > 3.7
    start = trainer.replay._gather(np.array([[0], [0]]), np.ones((2, 1), bool))
    model, critics = trainer.learner.world_model.eval(), trainer.learner.critics
    features = model.features(model.observe(start, horizon=0), 2)
    assert critics.bins.mean(critics(features)).flatten().tolist() == pytest.approx([4.0, 4.0], abs=0.6)


class SeekRing(RingEnv):
    """A ring on which agent 1 stands still whatever it decides, so that agent 0 alone must go there and stay."""

    def step(self, actions):
        return super().step(np.array([actions[0], 0]))

    def _tick(self, reward):
        tick = super()._tick(reward)
        return dataclasses.replace(tick, obs=3 * tick.obs)


def test_a_walker_learns_to_go_where_the_reward_is():
    """Random play is there in one step of five, in 2.4 of 12; going straight there gives 11 of 12 on average, or a little less."""
    regimes = [{"max_agents": None, "starts": 64, "horizon": 5}]
    changes = LARGER | {"schedule.warmup_steps": 100, "schedule.agents_every": 2, "replay.recency_decay": 0.999}
    changes |= {"world_model.windows": 16, "world_model.window_length": 12}
    changes |= {"actor_critic.imagination.regimes": regimes, "actor_critic.learning_rate": 3e-3, "actor_critic.width": 32}
    changes |= {"actor_critic.entropy": 3e-3}
    trainer = run(make_trainer(SeekRing, toy_config(SeekRing().spec, changes)), 440)
    returns = [episode.returns[0] for episode in trainer.history.episodes]
    assert np.mean(returns[:16]) < 4.0
    assert np.mean(returns[-6:]) > 8.0
