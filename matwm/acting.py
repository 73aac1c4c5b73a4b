"""Chooses actions from what running episodes have shown so far."""

from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int, UInt8
from torch import Tensor

from matwm.actor_critic import Actors
from matwm.batches import Windows, on_device
from matwm.types import NO_ACTION
from matwm.world_model import WorldModel

Seen = Float32[np.ndarray, "E n O"] | UInt8[np.ndarray, "E n channels height width"]
"""Observations of n agents in E episodes: padded vectors, or images."""


class EpisodeContext:
    """The last rows of E episodes that run in step, as n focal agents saw them.

    Raw observations are kept and encoded anew at every step: latents would mix versions of the weights.
    """

    def __init__(self, agents: Sequence[int], limit: int) -> None:
        self.agents = torch.tensor(list(agents))
        self._obs: deque[Seen] = deque(maxlen=limit)
        self._actions: deque[Int[np.ndarray, "E n"]] = deque(maxlen=limit - 1)

    def clear(self) -> None:
        """Forget everything: an episode begins."""
        self._obs.clear()
        self._actions.clear()

    def see(self, obs: Seen) -> None:
        """Take in the present observations."""
        self._obs.append(obs)

    def did(self, action: Int[np.ndarray, "E n"]) -> None:
        """Take in the actions that were taken on them."""
        self._actions.append(action)

    def windows(self, length: int | None = None) -> Windows:
        """Return the rows so far, grouped by focal agent, padded on the left to `length`; the last row has no action yet."""
        obs = torch.from_numpy(np.stack(self._obs)).transpose(0, 2).flatten(0, 1)  # (T, E, n, ...) -> (n*E, T, ...)
        rows, seen = obs.shape[:2]
        length = length or seen
        action = torch.full((rows, length), NO_ACTION)
        if self._actions:
            action[:, length - seen : -1] = torch.from_numpy(np.stack(self._actions)).permute(2, 1, 0).flatten(0, 1)
        if length > seen:
            obs = torch.cat([obs.new_zeros(rows, length - seen, *obs.shape[2:]), obs], 1)
        zeros = torch.zeros(1, 1).expand(rows, length)
        no = torch.zeros(1, 1, dtype=torch.bool).expand(rows, length)
        return Windows(
            agent=self.agents.repeat_interleave(rows // len(self.agents)),
            obs=obs,
            action=action,
            mate_actions=action.new_empty(rows, length, 0),
            action_mask=no[..., None][..., :0],
            reward=zeros,
            continues=zeros,
            is_first=no,
            is_valid=(torch.arange(length) >= length - seen).expand(rows, length),
        )


def choose_actions(
    world_model: WorldModel, actors: Actors, context: EpisodeContext, mask: Bool[np.ndarray, "E n A"], *, greedy: bool
) -> Int[np.ndarray, "E n"]:
    """Return the policies' actions on the posterior of the present observations, under the environment's real masks (Algorithm 2)."""
    device = actors.net.output_bias.device
    return in_memory(decide(world_model, actors, context.windows().to(device), legal_on(device, mask), greedy=greedy))


@torch.no_grad()
def decide(world_model: WorldModel, actors: Actors, windows: Windows, legal: Bool[Tensor, "n E A"], *, greedy: bool) -> Int[Tensor, "n E"]:
    """Return the same where the networks are, of contexts and masks that are there."""
    features = world_model.features(world_model.observe(windows, horizon=0), len(legal))
    return actors.choose(features, legal, greedy=greedy)


def legal_on(device: torch.device, mask: Bool[np.ndarray, "E n A"]) -> Bool[Tensor, "n E A"]:
    """Return masks on a device, by agent."""
    return on_device(torch.from_numpy(np.ascontiguousarray(mask)).transpose(0, 1), device)


def in_memory(actions: Int[Tensor, "n E"]) -> Int[np.ndarray, "E n"]:
    """Return actions by episode, waiting for them."""
    return actions.cpu().numpy().T


def random_actions(rng: np.random.Generator, mask: Bool[np.ndarray, "*batch A"]) -> Int[np.ndarray, "*batch"]:
    """Draw uniformly over legal actions."""
    return np.where(mask, rng.random(mask.shape), -1.0).argmax(-1)
