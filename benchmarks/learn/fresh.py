"""Plays fresh episodes with the networks of a checkpoint and keeps what the networks thought of every state."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from matwm.acting import EpisodeContext
from matwm.batches import Windows
from matwm.config import EnvConfig
from matwm.envs import make_env
from matwm.learner import Learner
from matwm.nets.distributions import sample_index
from matwm.rng import seed_torch
from matwm.types import NO_ACTION, EnvSpec, Tick


@dataclass(frozen=True)
class Fresh:
    """E episodes of self-play, sampled, side by side; row t is the state before action t, and the row of the last observation the last.

    Behind an episode's end rows repeat its last observation, without action or reward.
    """

    spec: EnvSpec
    length: Tensor
    """Actions of each episode, (E,)."""
    obs: Tensor
    """(E, T+1, N, O)"""
    action_mask: Tensor
    """(E, T+1, N, A)"""
    action: Tensor
    """(E, T+1, N); -1 where there is none, as of the dead."""
    reward: Tensor
    """(E, T+1, N), for the row's actions; the dead may share it."""
    terminated: Tensor
    """(E, T+1, N): the episode has truly ended for the agent, at the latest by the row's action."""
    alive: Tensor
    """(E, T+1, N): who sees `obs`."""
    value: Tensor
    """(E, T+1, N), the critics'."""
    probs: Tensor
    """(E, T+1, N, A), the policies'."""

    def windows(self, episode: Tensor, rows: Tensor) -> Windows:
        """Return rows (b, T) of episodes (b,) as every agent saw them, grouped by focal agent.

        As a replay would give them: rows outside an episode are padding, and those at which the focal agent is dead.
        """
        n = self.spec.num_agents
        is_valid = (rows >= 0) & (rows <= self.length[episode][:, None])
        at = rows.clamp(0, self.obs.shape[1] - 1)

        def of_each(values: Tensor) -> Tensor:
            return values[episode[:, None], at].movedim(2, 0).flatten(0, 1)  # (b, T, N, ...) -> (N*b, T, ...)

        is_valid_each = is_valid.repeat(n, 1) & of_each(self.alive)
        has_ended = of_each(self.terminated) & (rows == self.length[episode][:, None]).repeat(n, 1)
        actions = self.action[episode[:, None], at]
        mates = torch.cat([actions[..., self.spec.mates(agent)] for agent in range(n)])  # (N*b, T, M)
        return Windows(
            agent=torch.arange(n).repeat_interleave(len(rows)),
            obs=of_each(self.obs) * is_valid_each[..., None],
            action=of_each(self.action).masked_fill(~is_valid_each, NO_ACTION),
            mate_actions=mates.masked_fill(~is_valid_each[..., None], NO_ACTION),
            action_mask=of_each(self.action_mask) & (is_valid_each & ~has_ended)[..., None],
            reward=of_each(self.reward) * is_valid_each,
            continues=1.0 - (of_each(self.terminated) & ~has_ended).float(),
            is_first=(rows == 0).repeat(n, 1) & is_valid_each,
            is_valid=is_valid_each,
        )


@torch.no_grad()
def play(learner: Learner, env: EnvConfig, *, episodes: int, first_seed: int, acting_context: int) -> Fresh:
    """Play episodes from the seeds `first_seed` on, all side by side."""
    learner.world_model.eval()
    envs = [make_env(env) for _ in range(episodes)]
    spec, n = envs[0].spec, envs[0].spec.num_agents
    context = EpisodeContext(range(n), acting_context)
    ticks = [each.reset(first_seed + number) for number, each in enumerate(envs)]
    seen: list[dict[str, Tensor]] = []
    length = torch.zeros(episodes, dtype=torch.long)
    seed_torch(first_seed, "diagnosis/play", 0)
    while True:
        row = _thoughts(learner, context, ticks)
        action = torch.full((episodes, n), NO_ACTION)
        reward = torch.zeros(episodes, n)
        drawn = sample_index(row["probs"])
        context.did(drawn.numpy())
        running = [number for number, tick in enumerate(ticks) if not tick.is_over]
        for number in running:
            ticks[number] = envs[number].step(drawn[number].numpy())
            action[number] = torch.where(row["alive"][number], drawn[number], NO_ACTION)
            reward[number] = torch.from_numpy(ticks[number].reward)
            length[number] += 1
        terminated = torch.from_numpy(np.stack([tick.terminated for tick in ticks]))
        seen.append({**row, "action": action, "reward": reward, "terminated": terminated})
        if not running:
            break
    for each in envs:
        each.close()
    return Fresh(spec, length, **{name: torch.stack([row[name] for row in seen], 1) for name in seen[0]})


def _thoughts(learner: Learner, context: EpisodeContext, ticks: list[Tick]) -> dict[str, Tensor]:
    """Return what the agents see, what their critics expect and what their policies would do, (E, N, ...)."""
    n = learner.spec.num_agents
    obs, mask = np.stack([tick.obs for tick in ticks]), np.stack([tick.action_mask for tick in ticks])
    context.see(obs)
    features = learner.world_model.features(learner.world_model.observe(context.windows(), horizon=0), n)
    alive = torch.from_numpy(np.stack([tick.alive for tick in ticks]))
    value = learner.critics.bins.mean(learner.critics(learner.as_critics_read(features, alive.T)))
    probs = learner.actors.log_probs(features, torch.from_numpy(mask).transpose(0, 1)).exp()
    return {
        "obs": torch.from_numpy(obs),
        "action_mask": torch.from_numpy(mask),
        "alive": alive,
        "value": value.transpose(0, 1),
        "probs": probs.transpose(0, 1),
    }


def one_hots(learner: Learner, latent: Tensor) -> Tensor:
    """Return latents (B, K) as the decoder reads them, (B, 1, Z)."""
    return learner.world_model.autoencoder.code.read_index(latent)[:, None]
