"""Owns every network and optimizer, and is the only caller of `backward()`."""

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import fields
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from matwm.actor_critic import Actors, Critics, ReturnBounds
from matwm.actor_critic.losses import actor_loss, critic_loss, trajectory_weights
from matwm.actor_critic.returns import lambda_returns
from matwm.config import Config
from matwm.graphs import Graphed
from matwm.imagination import imagine
from matwm.optimizer import NamedAdam
from matwm.precision import matrix_products
from matwm.readings import Readings
from matwm.stateful import State
from matwm.types import EnvSpec, Features, Rollout, Windows
from matwm.world_model import WorldModel

DataT = TypeVar("DataT", Rollout, Windows)


class Learner:
    """World model, actors, critics, slow critics, return bounds and two optimizers."""

    def __init__(self, spec: EnvSpec, config: Config, device: torch.device) -> None:
        ac = config.actor_critic
        self.config, self.spec, self.device = config, spec, device
        self.world_model = WorldModel(spec, config.world_model).to(device)
        size = self.world_model.feature_size
        self.actors = Actors(spec.num_agents, size, spec.action_size, ac).to(device)
        self.critics = Critics(spec.num_agents, size, ac).to(device)
        self.slow_critics = copy.deepcopy(self.critics).requires_grad_(requires_grad=False)
        self.bounds = ReturnBounds(spec.num_agents).to(device)
        self.looks_at_once = device.type == "cpu"
        """Whether an update raises if it finds numbers that are not finite, or leaves that to whoever looks at them."""
        self._has_diverged = torch.zeros((), device=device)
        self._largest_entropy = torch.tensor(spec.num_actions, device=device).clamp(min=2).log()  # 0 where there is no choice
        self.agents = nn.ModuleDict(
            {"actors": self.actors, "critics": self.critics, "slow_critics": self.slow_critics, "return_bounds": self.bounds}
        )
        self.world_model_optimizer = NamedAdam(
            self.world_model.named_parameters(),
            learning_rate=config.world_model.learning_rate,
            betas=config.world_model.adam_betas,
            epsilon=config.world_model.adam_epsilon,
            own_rates={
                ("autoencoder",): config.world_model.autoencoder_learning_rate,
                ("heads.reward", "heads.arrival"): config.world_model.reward_learning_rate or config.world_model.learning_rate,
            },
            capturable=config.run.cuda_graphs,
        )
        self.agents_optimizer = NamedAdam(
            ((name, p) for name, p in self.agents.named_parameters() if p.requires_grad),
            learning_rate=ac.learning_rate,
            betas=ac.adam_betas,
            epsilon=ac.adam_epsilon,
            capturable=config.run.cuda_graphs,
        )
        self._step_world_model: Callable[..., Readings] = self._world_model_step
        self._step_agents: Callable[..., Readings] = self._agents_step
        if config.run.cuda_graphs:
            self.record_steps()

    def record_steps(self) -> None:
        """Record both updates at their first calls and launch them as CUDA graphs from then on.

        What they change stays where it is: a state that is loaded later is copied there.
        """
        self._step_world_model = Graphed(self._world_model_step, self._changing)
        self._step_agents = Graphed(self._agents_step, self._changing)

    def update_world_model(self, windows: Windows) -> Readings:
        """Take one gradient step on Eq. 3; return what to log.

        Raises:
            NonFiniteLossError: names the term; no parameter has changed (see `_apply`).
        """
        return self._step_world_model(**vars(windows.to(self.device)))

    def update_agents(self, contexts: Windows) -> Readings:
        """Imagine from the contexts and take one gradient step on Eq. 10 and 11 for every agent; return what to log.

        An agent whose contexts are padding throughout learns nothing, and all that is logged of it is 0.

        Raises:
            NonFiniteLossError: names the term and the agent; no parameter has changed (see `_apply`).
        """
        return self._step_agents(**vars(contexts.to(self.device)))

    def _world_model_step(self, **windows: Tensor) -> Readings:
        self.world_model.train()
        with self.products():
            loss, metrics = self.world_model.loss(Windows(**windows))
        loss.backward()
        norm = nn.utils.clip_grad_norm_(list(self.world_model_optimizer.named.values()), self.config.world_model.clip_norm)
        metrics["gradient_norm"] = norm
        readings = Readings(
            [f"world_model/{name}" for name in metrics], torch.stack([value.detach().float() for value in metrics.values()])
        )
        self._apply(self.world_model_optimizer, readings)
        return readings

    def _agents_step(self, **windows: Tensor) -> Readings:
        ac, num_agents, contexts = self.config.actor_critic, self.spec.num_agents, Windows(**windows)
        from_prior = ac.imagination.start_state == "prior"
        with self.products():
            rollout = imagine(
                self.world_model, self.actors, contexts, horizon=self.config.regime(num_agents).horizon, from_prior=from_prior
            )
        rollout = map_tensors(rollout, lambda tensor: tensor.unflatten(0, (num_agents, -1)))  # (N, b, H, ...)
        learns = contexts.is_valid[:, -1].view(num_agents, -1).any(1)
        with self.products():
            loss, metrics = self._agents_loss(rollout, learns)
        loss.backward()
        metrics["gradient_norm"] = self._clip_each_agent(ac.clip_norm)
        metrics["reward_real"] = real_reward(contexts, num_agents)
        if self.spec.has_action_masks:
            metrics["illegal"] = illegal_share(contexts, rollout)
        names = [f"agents/{name}/{key}" for key in metrics for name in self.spec.agents]
        readings = Readings(names, torch.cat([value.detach() * learns for value in metrics.values()]))
        self._apply(self.agents_optimizer, readings)
        with torch.no_grad():
            for slow, fast in zip(self.slow_critics.parameters(), self.critics.parameters(), strict=True):
                slow.lerp_(fast, 1 - ac.slow_decay)
        return readings

    def _apply(self, optimizer: NamedAdam, readings: Readings) -> None:
        """Take a gradient step, unless what was read on the way is not finite.

        To look would make the host wait for a GPU. There the device itself leaves the step out, and all that follow:
        whoever looks at the readings hears of it, at parameters that no step has changed since.
        """
        if self.looks_at_once:
            readings.check()
            optimizer.step()
        else:
            self._has_diverged.masked_fill_(~readings.are_finite(), 1.0)
            optimizer.step(unless=self._has_diverged)

    def _changing(self) -> list[Tensor]:
        """Return every tensor that updates change."""
        of_networks = [*self.world_model.state_dict().values(), *self.agents.state_dict().values()]
        moments = [one.adam.state.values() for one in (self.world_model_optimizer, self.agents_optimizer)]
        return [*of_networks, *(tensor for states in moments for state in states for tensor in state.values()), self._has_diverged]

    def _agents_loss(self, rollout: Rollout, learns: Bool[Tensor, " N"]) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the sum of Eq. 10 and 11 over agents on a rollout (N, b, ...), and what to log of each agent, (N,)."""
        ac = self.config.actor_critic
        states, final = states_of(rollout)
        each = rollout.action.shape[1:]  # (b, H)
        bins = self.critics.bins
        log_values = F.log_softmax(self.critics(states), -1)
        with torch.no_grad():
            value = torch.cat([bins.expectation(log_values.exp()).unflatten(1, each), bins.mean(self.critics(final)).unsqueeze(-1)], -1)
            returns = lambda_returns(rollout.reward, rollout.continues, value, discount=ac.discount, lambda_=ac.lambda_)
            self.bounds.update(returns.flatten(1), learns, low=ac.return_low, high=ac.return_high, decay=ac.return_decay)
            scale = self.bounds.scale(ac.return_scale_min)
            advantage = (returns - value[..., :-1]) / scale[:, None, None]
            weight = trajectory_weights(rollout.continues) * learns[:, None, None]
            slow_value = bins.mean(self.slow_critics(states))
        log_probs = self.actors.log_probs(states, rollout.action_mask.flatten(1, 2))
        policy_loss, entropy = actor_loss(
            log_probs, rollout.action.flatten(1), advantage.flatten(1), weight.flatten(1), entropy_weight=ac.entropy
        )
        value_loss = critic_loss(
            log_values,
            returns.flatten(1),
            slow_value,
            weight.flatten(1),
            bins,
            slow_weight=ac.slow_weight,
        )
        metrics = {
            "actor_loss": policy_loss,
            "critic_loss": value_loss,
            "entropy": entropy,
            "entropy_share": entropy / self._largest_entropy,
            "value": value.mean((1, 2)),
            "return": returns.mean((1, 2)),
            "return_scale": scale,
            "advantage_magnitude": advantage.abs().mean((1, 2)),
            "return_clipped": (returns.abs() > bins.bins[-1]).float().mean((1, 2)),
            "reward_imagined": rollout.reward.mean((1, 2)),
        }
        return (policy_loss + value_loss).sum(), metrics

    def products(self) -> AbstractContextManager[None]:
        """Return the context in which the networks compute while training."""
        return matrix_products(self.config.run.precision, self.device)

    def parts(self) -> dict[str, State]:
        """Return the state of everything owned, by part of the checkpoint."""
        return {
            "world_model": self.world_model.state_dict(),
            "agents": self.agents.state_dict(),
            "optimizers": {
                "world_model": self.world_model_optimizer.state_dict(),
                "agents": self.agents_optimizer.state_dict(),
            },
        }

    def load(self, parts: Mapping[str, State]) -> None:
        """Copy a saved state into the existing tensors; raise ValueError if it does not fit."""
        try:
            self.world_model.load_state_dict(dict(parts["world_model"]))
            self.agents.load_state_dict(dict(parts["agents"]))
        except RuntimeError as error:
            raise ValueError(f"the checkpoint's networks do not fit the configuration: {error}") from None
        optimizers = parts["optimizers"]
        for name, optimizer in (("world_model", self.world_model_optimizer), ("agents", self.agents_optimizer)):
            state = optimizers[name]
            assert isinstance(state, Mapping)
            optimizer.load_state_dict(state)
        self._has_diverged.zero_()

    def policy(self, agent: int) -> dict[str, Tensor]:
        """Return one agent's actor: with the world model it is all that acting needs."""
        return {name: tensor[agent : agent + 1].clone() for name, tensor in self.actors.state_dict().items()}

    def _clip_each_agent(self, limit: float) -> Tensor:
        """Scale each agent's gradients to at most `limit`; return the norms before, (N,).

        One norm over all agents would let one that diverges stall the others.
        """
        gradients = [p.grad for p in self.agents_optimizer.named.values() if p.grad is not None]
        norm = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0).sqrt()
        factor = (limit / (norm + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factor.view(-1, *[1] * (gradient.ndim - 1)))
        return norm


def policy_in(agents: State, number: int) -> dict[str, Tensor]:
    """Return one agent's actor out of the part `agents` of a state, not copied."""
    actors = {name.removeprefix("actors."): tensor for name, tensor in agents.items() if name.startswith("actors.")}
    return {name: tensor[number : number + 1] for name, tensor in actors.items() if isinstance(tensor, Tensor)}


def states_of(rollout: Rollout) -> tuple[Features, Features]:
    """Return the states of a rollout (N, b, H+1, ...) in which agents act, (N, b*H, ...), and those at which it ends, (N, b, ...)."""
    acting = Features(rollout.latent_rows[:, :, :-1].flatten(1, 2), rollout.numbers[:, :, :-1].flatten(1, 2))
    return acting, Features(rollout.latent_rows[:, :, -1], rollout.numbers[:, :, -1])


def real_reward(contexts: Windows, num_agents: int) -> Tensor:
    """Return each agent's mean reward over the contexts' rows, to hold imagined rewards against, (N,)."""
    acted = contexts.is_valid & (contexts.action >= 0)
    reward = (contexts.reward * acted).view(num_agents, -1).sum(1)
    return reward / acted.view(num_agents, -1).sum(1).clamp(min=1)


def illegal_share(contexts: Windows, rollout: Rollout) -> Tensor:
    """Return which share of each agent's first imagined actions the environment's own mask forbids, (N,).

    The predicted mask allows every imagined action; of later states nobody knows what is legal.
    """
    first = rollout.action[:, :, :1]
    real = contexts.action_mask[:, -1].unflatten(0, first.shape[:2])
    return 1 - real.gather(-1, first).squeeze(-1).float().mean(1)


def map_tensors(data: DataT, function: Callable[[Tensor], Tensor]) -> DataT:
    """Return a copy of a dataclass of tensors with `function` applied to each."""
    return type(data)(**{field.name: function(getattr(data, field.name)) for field in fields(data)})  # type: ignore[arg-type]
