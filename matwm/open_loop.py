"""Holds what a world model imagines against real episodes, from the same moment on and under the same actions.

It is shown the episode until step `start`, as its policies are while they act, and then nothing any more but the actions that were
really taken, its own and, where it reads them, the teammates'.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from matwm import scenarios
from matwm.acting import EpisodeContext, choose_actions
from matwm.batches import Windows
from matwm.envs import make_env
from matwm.envs.base import Env
from matwm.nets.distributions import sample_index, symexp
from matwm.nets.team import mate_actions
from matwm.policy import Networks
from matwm.rng import seed_torch
from matwm.types import NO_ACTION, EnvSpec
from matwm.world_model import FocalState, WorldModel


@dataclass(frozen=True)
class OpenLoop:
    """E episodes, H imagined steps, N agents. Row 0 is the moment `start`, row k is k steps later.

    Observations are padded vectors in the environment's units, or images from 0 to 1.
    """

    spec: EnvSpec
    start: int
    """Steps of each episode that were shown."""
    seeds: tuple[int, ...]
    real: Float[np.ndarray, "E H+1 N *shape"]
    imagined: Float[np.ndarray, "E H+1 N *shape"]
    """Decoded from one draw of the prior; row 0 from the posterior."""
    reconstructed: Float[np.ndarray, "E H+1 N *shape"]
    """Decoded from the posterior of the real observation of that very step: what imagination cannot surpass."""
    reward: Float[np.ndarray, "E H N"]
    imagined_reward: Float[np.ndarray, "E H N"]
    """For the actions that led from row k to row k + 1."""
    counts: Bool[np.ndarray, "E H+1 N"]
    """Who was there at the start and is still at that step of an episode that goes on; other rows mean nothing."""

    def errors(self, of: Float[np.ndarray, "E H+1 N *shape"] | None = None) -> Float[np.ndarray, "H+1 N"]:
        """Return each agent's error by step: root mean square over its entries and the episodes; of what is imagined, or of `of`.

        NaN at steps at which the agent is in no episode.
        """
        squares = np.square((self.imagined if of is None else of) - self.real)
        exists = self.counts.reshape(*self.counts.shape, *(1,) * (squares.ndim - 3))
        if not self.spec.image_shape:
            exists = exists & self.spec.obs_exists
        exists = np.broadcast_to(exists, squares.shape)
        axes = (0, *range(3, squares.ndim))
        with np.errstate(invalid="ignore"):
            return np.sqrt((squares * exists).sum(axes) / exists.sum(axes))

    @property
    def held(self) -> Float[np.ndarray, "E H+1 N *shape"]:
        """The last observation shown, at every step: what imagination must surpass."""
        return np.broadcast_to(self.real[:, :1], self.real.shape)


@torch.no_grad()
def open_loop(networks: Networks, *, episodes: int, first_seed: int, start: int, horizon: int) -> OpenLoop:
    """Play episodes by the (sampled) policies of all agents, and imagine `horizon` steps from step `start` of each.

    Nothing outside notices: random numbers are as before.

    Raises:
        ValueError: the horizon is longer than the model's memory, or no episode lasts until `start`.
    """
    context, memory = min(start + 1, networks.acting_context), networks.world_model.config.max_positions
    if context + horizon > memory:
        raise ValueError(
            f"{horizon} steps behind a context of {context} rows exceed world_model.max_positions = {memory}: "
            f"imagine {memory - context} steps at most"
        )
    seeds = tuple(range(first_seed, first_seed + episodes))
    family = scenarios.family(networks.env.family)
    with contextlib.ExitStack() as opened, torch.random.fork_rng(range(torch.cuda.device_count())):
        envs = [opened.enter_context(contextlib.closing(make_env(networks.env)))]
        at_once = 1 if family.is_heavy or envs[0].spec.one_at_a_time else episodes
        envs += [opened.enter_context(contextlib.closing(make_env(networks.env))) for _ in range(1, at_once)]
        groups: list[dict[str, np.ndarray]] = []
        for group in range(0, episodes, at_once):
            seed_torch(first_seed, "open_loop", group)
            played, windows = _played(networks, envs, seeds[group : group + at_once], start, horizon)
            groups.append(played | _imagined(networks, windows, played))
    joined = {name: np.concatenate([one[name] for one in groups]) for name in groups[0] if name != "action"}
    if not joined["counts"][:, 1].any():
        raise ValueError(f"no episode of {networks.spec.name} goes on beyond step {start}: begin to imagine earlier")
    return OpenLoop(networks.spec, start, seeds, **joined)


def _played(
    networks: Networks, envs: Sequence[Env], seeds: Sequence[int], start: int, horizon: int
) -> tuple[dict[str, np.ndarray], Windows]:
    """Play `start + horizon` steps side by side; return what came from step `start` on, and the contexts at that step.

    An episode that is over stands still. Actions are -1 of the dead and of episodes that are over.
    """
    n = networks.spec.num_agents
    context = EpisodeContext(range(n), networks.acting_context)
    ticks = [env.reset(seed) for env, seed in zip(envs, seeds, strict=False)]
    rows: dict[str, list[np.ndarray]] = {"real": [], "counts": [], "action": [], "reward": []}
    windows: Windows | None = None
    has_ended = np.zeros(len(ticks), bool)
    for step in range(start + horizon + 1):
        obs, alive = np.stack([tick.obs for tick in ticks]), np.stack([tick.alive for tick in ticks])
        rows["real"].append(obs)
        rows["counts"].append(alive & ~has_ended[:, None])
        has_ended = np.array([tick.is_over for tick in ticks])
        context.see(obs)
        if step == start:
            windows = context.windows()
        if step == start + horizon:
            break
        mask = np.stack([tick.action_mask for tick in ticks])
        action = choose_actions(networks.world_model, networks.actors, context, mask, greedy=False)
        context.did(action)
        ticks = [tick if tick.is_over else env.step(one) for env, tick, one in zip(envs, ticks, action, strict=False)]
        rows["action"].append(np.where(alive & ~has_ended[:, None], action, NO_ACTION))
        rows["reward"].append(np.stack([tick.reward for tick in ticks]).astype(np.float32))
    assert windows
    played = {name: np.stack(found, 1)[:, start:] for name, found in rows.items()}
    played["counts"] = played["counts"] & played["counts"][:, :1]
    return played | {"real": _scaled(played["real"])}, windows


def _imagined(networks: Networks, windows: Windows, played: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what the model makes of contexts under the actions that were taken, and of the real observations."""
    model, n, action = networks.world_model, networks.spec.num_agents, torch.from_numpy(played["action"])
    state = model.observe(windows, horizon=action.shape[1])
    seen, rewards = [_decoded(model, state.latent[:, None])[:, 0]], []
    for taken in action.unbind(1):  # (E, N)
        state, mates = _after(model, state, taken.T.flatten(), n)
        seen.append(_decoded(model, state.latent[:, None])[:, 0])
        rewards.append(model.outcomes(state.hidden[:, None], state.latent[:, None], mates[:, None])[0][:, 0])
    real = torch.from_numpy(played["real"]).movedim(2, 0).flatten(0, 1)  # (E, H+1, N, ...) -> (N*E, H+1, ...)
    if networks.spec.image_shape:
        real = (real * 255).round().to(torch.uint8)
    latent = sample_index(model.autoencoder.posterior(real, windows.agent))
    return {
        "imagined": _by_episode(torch.stack(seen, 1), n),
        "reconstructed": _by_episode(_decoded(model, latent), n),
        "imagined_reward": _by_episode(torch.stack(rewards, 1), n),
    }


def _after(model: WorldModel, state: FocalState, action: Int[Tensor, " B"], num_agents: int) -> tuple[FocalState, Int[Tensor, "B M"]]:
    """Return the state after real actions, -1 where there is none, and the teammates' actions."""
    mates = mate_actions(action, num_agents)
    return model.advance(state, action.clamp(min=0), mates), mates


def _decoded(model: WorldModel, latent: Int[Tensor, "B T K"]) -> Tensor:
    """Return the observations that latents stand for, as `OpenLoop` has them."""
    decoded = model.autoencoder.decode(model.autoencoder.code.read_index(latent))
    return decoded.clamp(0, 1) if decoded.ndim == 5 else symexp(decoded)


def _by_episode(grouped: Tensor, num_agents: int) -> np.ndarray:
    """Return values (N*E, T, ...) as (E, T, N, ...)."""
    return grouped.unflatten(0, (num_agents, -1)).movedim(0, 2).numpy()


def _scaled(obs: np.ndarray) -> np.ndarray:
    return obs.astype(np.float32) / 255 if obs.dtype == np.uint8 else obs
