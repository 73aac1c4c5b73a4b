"""Brings trained networks back from a checkpoint, to play with: nothing of training is read or built."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from matwm.acting import EpisodeContext, choose_actions
from matwm.actor_critic import Actors
from matwm.checkpoint import Checkpoint, CheckpointError, read_manifest
from matwm.config import ActorCriticConfig, EnvConfig, WorldModelConfig
from matwm.envs.images import small
from matwm.envs.legal import checked_mask
from matwm.rng import seed_torch
from matwm.types import EnvSpec
from matwm.world_model import WorldModel


@dataclass(frozen=True)
class Networks:
    """What acting needs of a checkpoint: the world model and the policies, and what they were trained with."""

    env: EnvConfig
    spec: EnvSpec
    world_model: WorldModel
    actors: Actors
    """Of the agents that were asked for, in their order."""
    acting_context: int
    """Rows of the running episode that the policies saw while training."""


class Policy:
    """One trained agent for other code: it remembers the running episode and answers observations with actions.

    Other random draws of the program neither change what it does nor are changed by it.
    """

    def __init__(self, networks: Networks, agent: int, *, seed: int = 0) -> None:
        """`networks` holds this one agent's policy."""
        spec = networks.spec
        self.agent = spec.agents[agent]
        self.obs_size, self.num_actions = spec.obs_sizes[agent], spec.num_actions[agent]
        self._networks, self._seed = networks, seed
        self._context = EpisodeContext([agent], networks.acting_context)
        self._num_actions_chosen = 0

    def reset(self) -> None:
        """Forget the episode: another begins. The random draws go on, so that sampled episodes differ."""
        self._context.clear()

    def act(self, observation: ArrayLike, action_mask: ArrayLike | None = None, *, greedy: bool = False) -> int:
        """Return the index of the action on the agent's own (unpadded) observation: sampled, or the likeliest.

        Index 0 is the first action of its space: what PettingZoo's `step` takes is the index + `action_space(agent).start`.
        An image is given as uint8 (3, 64, 64), or as a picture (height, width, channels) of any size.
        `action_mask` is True for each of the agent's actions that is legal now; it may be left out where the environment has no masks.

        Raises:
            ValueError: the observation or the mask is of another size, the one not finite or the other not of 0 and 1, or nothing is
                legal, or there is no mask where the environment has some.
        """
        spec = self._networks.spec
        seen = np.zeros((1, 1, *spec.obs_shape), spec.obs_dtype)
        if spec.image_shape:
            seen[0, 0] = self._checked_image(observation)
        else:
            seen[0, 0, : self.obs_size] = self._checked(observation)
        mask = np.zeros((1, 1, spec.action_size), bool)
        mask[0, 0, : self.num_actions] = self._legal(action_mask)
        self._context.see(seen)
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            seed_torch(self._seed, f"policy/{self.agent}", self._num_actions_chosen)
            action = choose_actions(self._networks.world_model, self._networks.actors, self._context, mask, greedy=greedy)[0]
        self._num_actions_chosen += 1
        self._context.did(action[None])
        return int(action[0])

    def _legal(self, action_mask: ArrayLike | None) -> np.ndarray:
        if action_mask is not None:
            return checked_mask(self.agent, action_mask, self.num_actions)
        spec = self._networks.spec
        if spec.has_action_masks:
            everything = f"{self.num_actions} ones if all is legal"
            raise ValueError(f"{self.agent} got no action_mask, but {spec.name} has masks: give the present one, or {everything}")
        return np.ones(self.num_actions, bool)

    def _checked(self, observation: ArrayLike) -> np.ndarray:
        array = np.asarray(observation, np.float32)
        if array.shape != (self.obs_size,):
            raise ValueError(
                f"the observation has the shape {array.shape}, but {self.agent} sees ({self.obs_size},): give its own, without padding"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"the observation of {self.agent} holds a value that is not finite")
        return array

    def _checked_image(self, observation: ArrayLike) -> np.ndarray:
        array, shape = np.asarray(observation), self._networks.spec.image_shape
        is_picture = array.ndim == 3 and array.shape[2] in (1, 3) and array.size > 0
        if array.dtype != np.uint8 or not (is_picture or array.shape == shape):
            raise ValueError(
                f"the observation is {array.dtype} {array.shape}, but {self.agent} sees images: give uint8 {shape}, or (height, width, 3)"
            )
        return array if array.shape == shape else small(array)


def load_policy(checkpoint: str | Path | Checkpoint, agent: str, *, seed: int = 0) -> Policy:
    """Return one agent of a checkpoint, ready to act; `seed` decides its draws.

    Reads the manifest, `world_model.safetensors` and `policies/<agent>.safetensors`; other files may be absent.

    Raises:
        ValueError: there is no such agent (the sentence names those there are), or a file is damaged (CheckpointError).
    """
    opened = checkpoint if isinstance(checkpoint, Checkpoint) else read_manifest(checkpoint)
    if agent not in opened.spec.agents:
        raise ValueError(f"{opened.path} has no agent {agent!r}: it has {', '.join(opened.spec.agents)}")
    return Policy(_networks(opened, [agent]), opened.spec.agents.index(agent), seed=seed)


def load_networks(checkpoint: Checkpoint) -> Networks:
    """Return the world model and all agents' policies of a checkpoint, on the CPU.

    Raises:
        CheckpointError: a file is absent or damaged, or does not fit the configuration in the manifest.
    """
    return _networks(checkpoint, list(checkpoint.spec.agents))


def _networks(checkpoint: Checkpoint, agents: list[str]) -> Networks:
    config, spec = checkpoint.config, checkpoint.spec
    actor_config = ActorCriticConfig.model_validate(config["actor_critic"])
    with torch.random.fork_rng(range(torch.cuda.device_count())):  # fresh networks draw their weights, which are then replaced
        world_model = WorldModel(spec, WorldModelConfig.model_validate(config["world_model"]))
        actors = Actors(len(agents), world_model.feature_size, spec.action_size, actor_config)
    policies = [checkpoint.policy(agent) for agent in agents]
    stacked = {name: torch.cat([policy[name] for policy in policies]) for name in policies[0]}
    try:
        world_model.load_state_dict(checkpoint.world_model())
        actors.load_state_dict(stacked)
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint.path}: the networks do not fit the configuration in the manifest: {error}") from None
    env = EnvConfig.model_validate(config["env"])
    return Networks(env, spec, _frozen(world_model), _frozen(actors), config["schedule"]["acting_context"])


def _frozen(network: Any) -> Any:
    return network.eval().requires_grad_(requires_grad=False)
