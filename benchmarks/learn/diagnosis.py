"""Finds out what limits learning: holds a checkpoint's world model, critics and policies against fresh episodes of its own play."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.learn.fresh import Fresh, one_hots, play
from matwm.actor_critic.joint import team_rewards
from matwm.batches import Rollout, Windows
from matwm.checkpoint import Checkpoint
from matwm.config import Config
from matwm.errors import UserError
from matwm.imagination import imagine
from matwm.learner import Learner
from matwm.nets.distributions import symexp, symlog
from matwm.nets.team import mate_actions
from matwm.params_yaml import restored_config
from matwm.rng import seed_torch
from matwm.stateful import State
from matwm.trainer import prepare_torch

IMAGES = "none: a diagnosis reads the entries of observations, and here agents see images"
SAMPLES = 4
"""Rollouts from each start: their mean is the prediction."""
STARTS = 3
"""In each episode: at its beginning, after a fifth, after two fifths."""
RARE = 0.95
"""Rewards of a magnitude beyond this quantile (or not zero, if that is zero) are rare: contacts in Simple Tag."""
EXPLAINED = 0.95
"""Share of an entry's variance that a linear map from another agent's observation must explain, for both to see the same there."""
UNCHANGING = 1e-6
SHOWN_STEPS = (1, 2, 3, 5, 8, 12, 15)

Numbers = dict[str, dict[str, float]]
"""Column (a role) -> measure -> number."""


@dataclass(frozen=True)
class Diagnosis:
    """What was found; errors of observations are root mean squares in symlog space."""

    play: Numbers
    """By role: policies, values against realised returns, imagined returns against realised ones."""
    world_model: dict[str, float]
    """Whole windows, all agents: the losses beside what they are to be held against."""
    horizon: dict[str, dict[int, dict[str, float]]]
    """By role and open-loop step k (0: reconstruction): observations and rewards, predicted under the real actions."""
    entries: dict[str, list[dict[str, float]]]
    """By role and entry of the observation: its spread, and errors after 0, 1 and all steps."""


def diagnose(checkpoint: Checkpoint, *, episodes: int, first_seed: int) -> Diagnosis:
    """Return the diagnosis of a checkpoint on fresh episodes; the same arguments give the same numbers.

    Raises:
        CheckpointError: a file is damaged.
        ConfigError: the checkpoint is of another version's configuration.
        UserError: its agents see images.
    """
    if checkpoint.spec.image_shape:
        raise UserError(f"{checkpoint.path}: {IMAGES}")
    learner = learner_of(checkpoint, checkpoint.load())
    config = learner.config
    fresh = play(learner, config.env, episodes=episodes, first_seed=first_seed, acting_context=config.schedule.acting_context)
    with torch.no_grad():
        steps = open_loop(learner, fresh, first_seed)
        return Diagnosis(
            play=_by_role(fresh, played(fresh) | values(fresh, config) | imagined(learner, fresh, first_seed)),
            world_model=whole_windows(learner, fresh, first_seed) | views_apart(learner, fresh, first_seed),
            horizon={role: {k: step.numbers(agents) for k, step in enumerate(steps)} for role, agents in fresh.spec.roles().items()},
            entries={role: list(_entries(fresh, steps, agents[0])) for role, agents in fresh.spec.roles().items()},
        )


def learner_of(checkpoint: Checkpoint, parts: Mapping[str, State]) -> Learner:
    """Return a checkpoint's networks from its parts, on the CPU, wherever they were trained."""
    config = restored_config(checkpoint.config, source=str(checkpoint.path / "manifest.json"))
    config = config.model_copy(update={"run": config.run.model_copy(update={"device": "cpu", "cuda_graphs": False})})
    learner = Learner(checkpoint.spec, config, prepare_torch(config))
    learner.load(parts)
    return learner


def played(fresh: Fresh) -> dict[str, Tensor]:
    """Return what the policies did, a number for each agent."""
    acted = fresh.action >= 0
    probs = fresh.probs
    entropy = torch.special.entr(probs).sum(-1)
    most = torch.tensor(fresh.spec.num_actions).clamp(min=2).log()
    often = torch.stack([(fresh.action == action).sum((0, 1)) for action in range(probs.shape[-1])], -1)
    return {
        "return": fresh.reward.sum(1).mean(0),
        "entropy / ln A": _mean(entropy, acted) / most,
        "likeliest action's probability": _mean(probs.max(-1).values, acted),
        "share of its most frequent action": often.max(-1).values / often.sum(-1),
    }


def values(fresh: Fresh, config: Config) -> dict[str, Tensor]:
    """Return how the critics' values of who is alive compare with realised discounted returns in the first half of the episodes.

    A time limit is no ending: where the episode stops, the critic's own value of the last state stands for the rest.
    """
    discount, length = config.actor_critic.discount, fresh.length[:, None]
    rows = torch.arange(fresh.reward.shape[1])
    reward = _as_learned(fresh, config)
    following = fresh.value.gather(1, length[..., None].expand(-1, 1, fresh.spec.num_agents))[:, 0]
    realised = torch.zeros_like(fresh.value)
    for t in reversed(range(fresh.reward.shape[1])):
        is_action = (t < length).float()
        earned = reward[:, t] + discount * (1 - fresh.terminated[:, t].float()) * following
        following = is_action * earned + (1 - is_action) * following
        realised[:, t] = following
    counts = (rows < (length + 1) // 2)[..., None] & fresh.alive
    return {
        "value: mean": _mean(fresh.value, counts),
        "value: realised mean": _mean(realised, counts),
        "value: bias": _mean(fresh.value - realised, counts),
        "value: rmse": _mean((fresh.value - realised).square(), counts).sqrt(),
        "value: spread of realised": _spread(realised, counts),
        "value: correlation": _correlation(fresh.value, realised, counts),
    }


def _as_learned(fresh: Fresh, config: Config) -> Tensor:
    """Return the rewards that critics learn of, (E, T+1, N): those of the team, where it shares them."""
    sharing = config.actor_critic.team_reward
    if sharing == "none":
        return fresh.reward
    teams = fresh.spec.roles().values() if sharing == "role" else [range(fresh.spec.num_agents)]
    by_agent, alive = fresh.reward.movedim(-1, 0), fresh.alive.movedim(-1, 0)
    return team_rewards(by_agent, alive, [torch.tensor(list(team)) for team in teams]).movedim(0, -1)


def imagined(learner: Learner, fresh: Fresh, seed: int) -> dict[str, Tensor]:
    """Return how imagined discounted rewards over the horizon compare with what the same policies then really earned.

    Where a time limit cut an episode short of the horizon, nobody knows: such starts do not count, nor do those of the dead.
    """
    config, n = learner.config, fresh.spec.num_agents
    horizon = _horizon(fresh, config)
    episode, start = _starts(fresh, horizon)
    contexts = _contexts(fresh, episode, start, config)
    seed_torch(seed, "diagnosis/imagine", 0)
    from_prior = config.actor_critic.imagination.start_state == "prior"
    rollout = imagine(
        learner.world_model,
        learner.actors,
        contexts,
        horizon=horizon,
        from_prior=from_prior,
        together=config.actor_critic.imagination.is_joint,
    )
    weights = config.actor_critic.discount ** torch.arange(horizon)
    goes_on = torch.cat([torch.ones(len(rollout.continues), 1), rollout.continues[:, :-1]], 1).cumprod(1)
    dreamt = (rollout.reward * goes_on * weights).sum(1).view(n, SAMPLES, -1).mean(1).T  # (b, N)
    episode, start = (each[: len(start) // SAMPLES] for each in (episode, start))
    rows = (start[:, None] + torch.arange(horizon)).clamp(max=fresh.reward.shape[1] - 1)
    earned = fresh.reward * (fresh.action >= 0)
    real = (earned[episode[:, None], rows] * weights[:, None]).sum(1)
    length = fresh.length[episode]
    is_told = (start + horizon <= length)[:, None] | fresh.terminated[episode, length]
    counts = (is_told & fresh.alive[episode, start])[:, None]
    dreamt, real = dreamt[:, None], real[:, None]
    return {
        f"reward over {horizon} steps: imagined": _mean(dreamt, counts),
        f"reward over {horizon} steps: real": _mean(real, counts),
        f"reward over {horizon} steps: correlation": _correlation(dreamt, real, counts),
    }


def whole_windows(learner: Learner, fresh: Fresh, seed: int) -> dict[str, float]:
    """Return the loss terms on whole episodes beside the figures to hold them against."""
    rows = min(fresh.obs.shape[1], learner.config.world_model.window_length)
    episode = torch.arange(len(fresh.length))
    seed_torch(seed, "diagnosis/windows", 0)
    _, metrics = learner.world_model.loss(fresh.windows(episode, torch.arange(rows).expand(len(episode), rows)))
    wanted = ("kl", "kl_clipped", "posterior_entropy", "reward", "reward_marginal", "continues", "teammates", "teammate_accuracy")
    found = {name: metrics[name].item() for name in (*wanted, "teammate_majority") if name in metrics}
    acted = fresh.action >= 0
    found["teammate_accuracy if policies were known"] = _mean(fresh.probs.max(-1).values, acted).mean().item()
    return found


@dataclass(frozen=True)
class Step:
    """Predictions k steps after the starts, under the agents' real actions; (b, N) and (b, N, O)."""

    predicted: Tensor
    real: Tensor
    held: Tensor
    """The observation at the start: what somebody predicts who knows of no change."""
    counts: Tensor
    """(b, N, O): entries of somebody who is alive and sees them."""
    acted: Tensor
    """(b, N): whose reward there is."""
    reward_predicted: Tensor
    reward_real: Tensor
    is_rare: Tensor

    def numbers(self, agents: list[int]) -> dict[str, float]:
        """Return errors of some agents' observations and rewards."""
        counts, acted = self.counts[:, agents], self.acted[:, agents]
        found = {"observation": _rms((self.predicted - self.real)[:, agents][counts])}
        found["unchanged"] = _rms((self.held - self.real)[:, agents][counts])
        if not len(self.reward_real):
            return found
        real, predicted, is_rare = (each[:, agents][acted] for each in (self.reward_real, self.reward_predicted, self.is_rare))
        every = torch.ones(len(real), 1, 1, dtype=torch.bool)
        found["reward correlation"] = _correlation(predicted[:, None, None], real[:, None, None], every).item()
        for name, rows in (("usual", ~is_rare), ("rare", is_rare)):
            found |= {f"{name}: predicted": predicted[rows].mean().item(), f"{name}: real": real[rows].mean().item()}
            found[f"{name}: rows"] = int(rows.sum())
        return found


def open_loop(learner: Learner, fresh: Fresh, seed: int) -> list[Step]:
    """Return predictions after 0 to H steps: the posterior's reconstruction first, then the prior's, never shown what came."""
    config, model, n = learner.config, learner.world_model, fresh.spec.num_agents
    horizon = _horizon(fresh, config)
    episode, start = _starts(fresh, horizon)
    seed_torch(seed, "diagnosis/open_loop", 0)
    state = model.observe(_contexts(fresh, episode, start, config), horizon=horizon)
    once = slice(0, len(start) // SAMPLES)
    target, exists = symlog(fresh.obs), torch.from_numpy(fresh.spec.obs_exists)
    sees = fresh.alive & (torch.arange(fresh.obs.shape[1]) <= fresh.length[:, None])[..., None]
    held, starts = target[episode[once], start[once]], sees[episode[once], start[once]]
    threshold = _threshold(fresh)
    nothing = torch.zeros(0, n)
    steps = [
        Step(_decoded(learner, state.latent, n), held, held, starts[..., None] & exists, nothing.bool(), nothing, nothing, nothing.bool())
    ]
    for k in range(1, horizon + 1):
        # Behind an episode's end nothing counts: its last row stands there.
        before, now = ((start + step).clamp(max=fresh.obs.shape[1] - 1) for step in (k - 1, k))
        taken = fresh.action[episode, before]
        mates = mate_actions(taken.T.flatten(), n)
        state = model.advance(state, taken.clamp(min=0).T.flatten(), mates)
        reward, _ = model.outcomes(state.hidden[:, None], state.latent[:, None], mates[:, None])
        real = fresh.reward[episode[once], before[once]]
        counts = starts & sees[episode[once], now[once]] & (start[once] + k == now[once])[:, None]
        steps.append(
            Step(
                predicted=_decoded(learner, state.latent, n),
                real=target[episode[once], now[once]],
                held=held,
                counts=counts[..., None] & exists,
                acted=taken[once] >= 0,
                reward_predicted=_mean_of_samples(reward[:, 0], n),
                reward_real=real,
                is_rare=real.abs() >= threshold,
            )
        )
    return steps


def views_apart(learner: Learner, fresh: Fresh, seed: int) -> dict[str, float]:
    """Return how far agents' imagined views of one world drift apart, by the policies' own play.

    What one agent sees tells in part what another sees: a linear map between their observations is fitted to one half of the real
    episodes, for each pair, and the entries of which it explains all but a twentieth in the other half count. Its error on what both
    imagine, a root mean square in units of the entries' spread, is 0 where both imagine the same world; on the other half of the
    real rows it is the map's own error. All act by their policies here, whoever was predicted in training.
    Nothing is returned of worlds in which no agent sees what another does, nor of steps at which no two of them are left.
    """
    config, n = learner.config, fresh.spec.num_agents
    horizon = _horizon(fresh, config)
    episode, start = _starts(fresh, horizon)
    seed_torch(seed, "diagnosis/views", 0)
    contexts = _contexts(fresh, episode, start, config)
    rollout = imagine(
        learner.world_model, learner.actors, contexts, horizon=horizon, from_prior=False, together=config.actor_critic.imagination.is_joint
    )
    seen = symexp(learner.world_model.autoencoder.decode(_latents(learner, rollout))).unflatten(0, (n, -1))  # (N, rows, H+1, O)
    alive = rollout.alive.unflatten(0, (n, -1)) & fresh.alive[episode, start].T.unsqueeze(-1)
    rows = torch.arange(fresh.obs.shape[1]) <= fresh.length[:, None]
    errors: dict[str, list[Tensor]] = {}
    for one, other in itertools.permutations(range(n), 2):
        both = rows & fresh.alive[..., one] & fresh.alive[..., other]
        x, y = fresh.obs[:, :, one], fresh.obs[:, :, other]
        halves = [(x[part::2][both[part::2]], y[part::2][both[part::2]]) for part in (0, 1)]
        if min(len(half[0]) for half in halves) < 2:
            continue
        link = _Link.fit(*halves[0], *halves[1])
        if not link.entries.any():
            continue
        errors.setdefault("real rows", []).append(link.errors(*halves[1]))
        for k in (0, *(k for k in SHOWN_STEPS if k < horizon), horizon):
            both_live = alive[one, :, k] & alive[other, :, k]
            errors.setdefault(f"after {k}", []).append(link.errors(seen[one, :, k][both_live], seen[other, :, k][both_live]))
    joined = {name: torch.cat(found) for name, found in errors.items()}
    return {f"views apart: {name}": _rms(found) for name, found in joined.items() if len(found)}


@dataclass(frozen=True)
class _Link:
    """A linear map from what one agent sees to what another sees, with the entries that it explains."""

    weight: Tensor
    spread: Tensor
    entries: Tensor

    @classmethod
    def fit(cls, x: Tensor, y: Tensor, other_x: Tensor, other_y: Tensor) -> "_Link":
        weight = torch.linalg.lstsq(_with_ones(x), y.double(), driver="gelsd").solution
        spread = torch.cat([y, other_y]).double().std(0)
        left = (other_y - _with_ones(other_x) @ weight).square().mean(0).sqrt()
        return cls(weight, spread, (spread > UNCHANGING) & (left < (1 - EXPLAINED) ** 0.5 * spread))

    def errors(self, x: Tensor, y: Tensor) -> Tensor:
        return ((y - _with_ones(x) @ self.weight) / self.spread)[:, self.entries].flatten()


def _with_ones(x: Tensor) -> Tensor:
    return torch.cat([x.double(), torch.ones(len(x), 1, dtype=torch.float64)], 1)


def _latents(learner: Learner, rollout: Rollout) -> Tensor:
    """Return what a decoder reads of the states of a rollout, (B, H+1, Z)."""
    size = learner.config.world_model.latent_size
    if not rollout.latent_rows.shape[-1]:
        return rollout.numbers[..., :size]
    z = torch.zeros(*rollout.latent_rows.shape[:-1], size)
    return z.scatter_(-1, rollout.latent_rows.long(), 1.0)


def _horizon(fresh: Fresh, config: Config) -> int:
    return min(config.regime(fresh.spec.num_agents).horizon, int(fresh.length.max()))


def _starts(fresh: Fresh, horizon: int) -> tuple[Tensor, Tensor]:
    """Return (episode, row) of the starts, all of them `SAMPLES` times, with room for the horizon where the episode is as long."""
    rows = [sorted({min(max(0, length - horizon), number * length // 5) for number in range(STARTS)}) for length in fresh.length.tolist()]
    episode = torch.arange(len(rows)).repeat_interleave(torch.tensor([len(each) for each in rows]))
    return episode.repeat(SAMPLES), torch.tensor([row for each in rows for row in each]).repeat(SAMPLES)


def _contexts(fresh: Fresh, episode: Tensor, start: Tensor, config: Config) -> Windows:
    """Return the rows before the starts; of the dead, who count nowhere, the start alone: nothing would be a context of no rows."""
    length = config.actor_critic.imagination.context_length
    windows = fresh.windows(episode, start[:, None] + torch.arange(1 - length, 1))
    is_valid = windows.is_valid & windows.is_valid[:, -1:]
    if not config.actor_critic.imagination.is_joint:  # to teammates the dead must be dead
        is_valid[:, -1] = True
    return replace(windows, is_valid=is_valid)


def _decoded(learner: Learner, latent: Tensor, n: int) -> Tensor:
    """Return the mean over samples of what latents (N*S*b, K) look like, (b, N, O) in symlog space."""
    return _mean_of_samples(learner.world_model.autoencoder.decode(one_hots(learner, latent))[:, 0], n)


def _mean_of_samples(rows: Tensor, n: int) -> Tensor:
    return rows.view(n, SAMPLES, -1, *rows.shape[1:]).mean(1).transpose(0, 1)


def _threshold(fresh: Fresh) -> Tensor:
    """Return each agent's smallest magnitude of a rare reward, (N,)."""
    found = [fresh.reward[..., agent][fresh.action[..., agent] >= 0].abs() for agent in range(fresh.spec.num_agents)]
    return torch.stack([rewards.quantile(RARE) for rewards in found]).clamp(min=1e-6)


def _entries(fresh: Fresh, steps: list[Step], agent: int) -> Iterator[dict[str, float]]:
    shown = {k: steps[k] for k in sorted({0, 1, len(steps) - 1})}
    for entry in range(fresh.spec.obs_sizes[agent]):
        errors = {k: _rms((step.predicted - step.real)[:, agent, entry][step.counts[:, agent, entry]]) for k, step in shown.items()}
        spread = steps[-1].real[:, agent, entry][steps[-1].counts[:, agent, entry]].std().item()
        yield {"spread": spread, **{f"after {k}": error for k, error in errors.items()}}


def _by_role(fresh: Fresh, by_agent: Mapping[str, Tensor]) -> Numbers:
    roles = fresh.spec.roles().items()
    return {role: {name: numbers[agents].mean().item() for name, numbers in by_agent.items()} for role, agents in roles}


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    """Return means over rows (E, T, N) that count, (N,)."""
    return (x * mask).sum((0, 1)) / mask.sum((0, 1)).clamp(min=1)


def _spread(x: Tensor, mask: Tensor) -> Tensor:
    return _mean((x - _mean(x, mask)).square(), mask).sqrt()


def _correlation(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """Return Pearson's correlation over rows that count; 0 where one of the two never changes."""
    covariance = _mean((x - _mean(x, mask)) * (y - _mean(y, mask)), mask)
    spreads = _spread(x, mask) * _spread(y, mask)
    return torch.where(spreads > 1e-8, covariance / spreads.clamp(min=1e-8), 0.0)


def _rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()
