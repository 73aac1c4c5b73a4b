"""Brings trained networks back from a checkpoint, to play with: nothing of training is read or built."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from torch import Tensor, nn

from matwm.acting import EpisodeContext, choose_actions
from matwm.actor_critic import Actors, Critics
from matwm.actor_critic.joint import with_mates_latents
from matwm.checkpoint import Checkpoint, CheckpointError, read_manifest
from matwm.config import Config, ConfigError, EnvConfig
from matwm.envs.images import small
from matwm.envs.legal import checked_mask
from matwm.learner import make_critics
from matwm.nets.distributions import class_at
from matwm.params_yaml import restored_config
from matwm.program import ActingProgram, Memory
from matwm.rng import generator_for, seed_torch
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
            seen[0, 0] = _checked_image(self.agent, observation, spec.image_shape)
        else:
            seen[0, 0, : self.obs_size] = _checked_vector(self.agent, observation, self.obs_size)
        mask = np.zeros((1, 1, spec.action_size), bool)
        mask[0, 0, : self.num_actions] = _legal(spec, self.agent, action_mask)
        self._context.see(seen)
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            seed_torch(self._seed, f"policy/{self.agent}", self._num_actions_chosen)
            action = choose_actions(self._networks.world_model, self._networks.actors, self._context, mask, greedy=greedy)[0]
        self._num_actions_chosen += 1
        self._context.did(action[None])
        return int(action[0])


@dataclass(frozen=True)
class Decision:
    """What policies make of B observations of each agent."""

    actions: dict[str, Int[np.ndarray, " B"]]
    """Indices: 0 is the first action of the agent's space."""
    logits: dict[str, Float[np.ndarray, "B a"]]
    """Log-probabilities of the agent's own actions, -inf for illegal ones."""
    values: dict[str, Float[np.ndarray, " B"]]
    """What the critics expect of the rest of the episode, discounted."""


class Policies:
    """All agents of a checkpoint for other code, in B episodes at once, each of which may begin anew at any time.

    Other random draws of the program neither change what they do nor are changed by it.
    """

    def __init__(self, networks: Networks, critics: Critics, *, reads_mates: bool = False, seed: int = 0) -> None:
        """`reads_mates`: whether critics read the teammates' latents, too."""
        self.agents, self.spec = networks.spec.agents, networks.spec
        self._program = ActingProgram(networks.world_model, networks.actors, range(networks.spec.num_agents), networks.acting_context)
        self._reads_mates = reads_mates
        self._latent_size = networks.world_model.config.latent_size
        self._critics, self._seed = critics, seed
        self._memory: Memory | None = None
        self._previous = torch.zeros(0, 0, dtype=torch.int64)
        self._num_calls = 0

    def reset(self) -> None:
        """Forget all episodes: others begin, as many as the next call has. The random draws go on."""
        self._memory = None

    @torch.no_grad()
    def act(
        self,
        observations: Mapping[str, ArrayLike],
        action_masks: Mapping[str, ArrayLike] | None = None,
        *,
        alive: Mapping[str, ArrayLike] | None = None,
        is_first: ArrayLike | None = None,
        greedy: bool = False,
    ) -> Decision:
        """Return what the agents do on their own (unpadded) observations, (B, …) for each: sampled, or the likeliest.

        Images and masks are as `Policy.act` takes them, with a first axis more. Who is left out of `observations` is gone in all
        episodes, who is False in `alive` (B,) in that one: what is given of it there does not count, and it does action 0.
        Where `is_first` (B,) is True an episode begins; after `reset`, and at the first call, all of them do.

        Raises:
            ValueError: there is no such agent, the episodes are not as many for each, or not as many as before; or as in `Policy.act`.
        """
        seen, legal, lives = self._checked(observations, action_masks or {}, alive or {})
        fresh = self._program.inputs(self.spec, len(seen))
        memory = self._memory or Memory(fresh["memory_probs"], fresh["memory_action"], fresh["memory_rows"])
        previous = fresh["previous_action"] if self._memory is None else self._previous
        if len(seen) != len(memory.rows):
            raise ValueError(f"there are {len(seen)} episodes, but {len(memory.rows)} are under way: call reset first")
        begins = np.zeros(len(seen), bool) if is_first is None else np.asarray(is_first)
        if begins.dtype != bool or begins.shape != (len(seen),):
            raise ValueError(f"is_first is {begins.dtype} {begins.shape}, expected a bool for each of the {len(seen)} episodes")
        draws = generator_for(self._seed, "policies", self._num_calls)
        uniform = torch.from_numpy(draws.random(tuple(fresh["uniform"].shape), np.float32))
        features, self._memory = self._program.read(torch.from_numpy(seen), torch.from_numpy(begins), previous, uniform, memory)
        log_probs = self._program.log_probs(features, torch.from_numpy(legal))
        choice = torch.from_numpy(draws.random((*log_probs.shape[:2], 1), np.float32))
        action = log_probs.argmax(-1) if greedy else class_at(log_probs.exp(), choice)
        self._previous, self._num_calls = action, self._num_calls + 1
        if self._reads_mates:
            features = with_mates_latents(features, torch.from_numpy(lives.T), self._latent_size)
        values = self._critics.bins.mean(self._critics(features))
        counts = self.spec.num_actions
        return Decision(
            {name: action[:, n].numpy() for n, name in enumerate(self.agents)},
            {name: log_probs[:, n, : counts[n]].numpy() for n, name in enumerate(self.agents)},
            {name: values[n].numpy() for n, name in enumerate(self.agents)},
        )

    def _checked(
        self, observations: Mapping[str, ArrayLike], masks: Mapping[str, ArrayLike], alive: Mapping[str, ArrayLike]
    ) -> tuple[np.ndarray, Bool[np.ndarray, "B N A"], Bool[np.ndarray, "B N"]]:
        """Return padded observations, masks and who is there."""
        spec, sizes = self.spec, {len(np.atleast_1d(rows)) for rows in (*observations.values(), *masks.values(), *alive.values())}
        if unknown := (observations.keys() | masks.keys() | alive.keys()) - set(self.agents):
            raise ValueError(f"there is no agent {min(unknown)!r}: there are {', '.join(self.agents)}")
        if len(sizes) != 1:
            raise ValueError(f"agents have {' and '.join(map(str, sorted(sizes)))} episodes" if sizes else "there are no observations")
        batch = sizes.pop()
        seen = np.zeros((batch, spec.num_agents, *spec.obs_shape), spec.obs_dtype)
        legal = np.zeros((batch, spec.num_agents, spec.action_size), bool)
        lives = np.zeros((batch, spec.num_agents), bool)
        legal[:, :, 0] = True
        for number, name in enumerate(self.agents):
            if name not in observations:
                continue
            lives[:, number] = np.asarray(alive.get(name, np.ones(batch)), bool)
            rows, own = np.asarray(observations[name]), np.asarray(masks[name]) if name in masks else None
            for episode in np.flatnonzero(lives[:, number]):
                if spec.image_shape:
                    seen[episode, number] = _checked_image(name, rows[episode], spec.image_shape)
                else:
                    seen[episode, number, : spec.obs_sizes[number]] = _checked_vector(name, rows[episode], spec.obs_sizes[number])
                legal[episode, number, : spec.num_actions[number]] = _legal(spec, name, None if own is None else own[episode])
        return seen, legal, lives


def load_policies(checkpoint: str | Path | Checkpoint, *, seed: int = 0) -> Policies:
    """Return all agents of a checkpoint, ready to act in batches of episodes; `seed` decides their draws.

    Reads the manifest, `world_model.safetensors`, `agents.safetensors` and `policies/`; other files may be absent.

    Raises:
        ValueError: a file is damaged (CheckpointError).
    """
    opened = checkpoint if isinstance(checkpoint, Checkpoint) else read_manifest(checkpoint)
    config = _config(opened)
    networks = _networks(opened, config, opened.spec.agents)
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        critics = make_critics(networks.world_model, opened.spec, config.actor_critic)
    own = {name.removeprefix("critics."): value for name, value in opened.agents().items() if name.startswith("critics.")}
    _fill(opened, critics, own)
    return Policies(networks, _frozen(critics), reads_mates=config.actor_critic.critic_reads == "joint", seed=seed)


def load_policy(checkpoint: str | Path | Checkpoint, agent: str, *, seed: int = 0) -> Policy:
    """Return one agent of a checkpoint, ready to act; `seed` decides its draws.

    Reads the manifest, `world_model.safetensors` and `policies/<agent>.safetensors`; other files may be absent.

    Raises:
        ValueError: there is no such agent (the sentence names those there are), or a file is damaged (CheckpointError).
    """
    opened = checkpoint if isinstance(checkpoint, Checkpoint) else read_manifest(checkpoint)
    if agent not in opened.spec.agents:
        raise ValueError(f"{opened.path} has no agent {agent!r}: it has {', '.join(opened.spec.agents)}")
    return Policy(load_networks(opened, [agent]), opened.spec.agents.index(agent), seed=seed)


def load_networks(checkpoint: Checkpoint, agents: Sequence[str] | None = None) -> Networks:
    """Return the world model and the policies of a checkpoint, of these agents or of all, on the CPU.

    Raises:
        CheckpointError: a file is absent or damaged, or does not fit the configuration in the manifest.
    """
    return _networks(checkpoint, _config(checkpoint), checkpoint.spec.agents if agents is None else agents)


def _networks(checkpoint: Checkpoint, config: Config, agents: Sequence[str]) -> Networks:
    spec = checkpoint.spec
    with torch.random.fork_rng(range(torch.cuda.device_count())):  # fresh networks draw their weights, which are then replaced
        try:
            world_model = WorldModel(spec, config.world_model)
            actors = Actors(len(agents), world_model.feature_size, spec.action_size, config.actor_critic)
        except (RuntimeError, MemoryError) as error:
            why = str(error).split("\n")[0]
            raise CheckpointError(f"{checkpoint.path}/manifest.json describes networks that cannot be made here: {why}") from None
    policies = [checkpoint.policy(agent) for agent in agents]
    stacked = {name: torch.cat([policy[name] for policy in policies]) for name in policies[0]}
    _fill(checkpoint, world_model, checkpoint.world_model())
    _fill(checkpoint, actors, stacked)
    return Networks(config.env, spec, _frozen(world_model), _frozen(actors), config.schedule.acting_context)


def _config(checkpoint: Checkpoint) -> Config:
    try:
        return restored_config(checkpoint.config, source=f"{checkpoint.path}/manifest.json")
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


def _fill(checkpoint: Checkpoint, network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint.path}: the networks do not fit the configuration in the manifest: {error}") from None


def _frozen(network: Any) -> Any:
    return network.eval().requires_grad_(requires_grad=False)


def _legal(spec: EnvSpec, agent: str, action_mask: ArrayLike | None) -> Bool[np.ndarray, " a"]:
    count = spec.num_actions[spec.agents.index(agent)]
    if action_mask is not None:
        return checked_mask(agent, action_mask, count)
    if spec.has_action_masks:
        everything = f"{count} ones if all is legal"
        raise ValueError(f"{agent} got no action_mask, but {spec.name} has masks: give the present one, or {everything}")
    return np.ones(count, bool)


def _checked_vector(agent: str, observation: ArrayLike, size: int) -> Float[np.ndarray, " o"]:
    array = np.asarray(observation, np.float32)
    if array.shape != (size,):
        raise ValueError(f"the observation has the shape {array.shape}, but {agent} sees ({size},): give its own, without padding")
    if not np.isfinite(array).all():
        raise ValueError(f"the observation of {agent} holds a value that is not finite")
    return array


def _checked_image(agent: str, observation: ArrayLike, shape: tuple[int, int, int]) -> np.ndarray:
    array = np.asarray(observation)
    is_picture = array.ndim == 3 and array.shape[2] in (1, 3) and array.size > 0
    if array.dtype != np.uint8 or not (is_picture or array.shape == shape):
        raise ValueError(
            f"the observation is {array.dtype} {array.shape}, but {agent} sees images: give uint8 {shape}, or (height, width, 3)"
        )
    return array if array.shape == shape else small(array)
