"""Owns every network and optimizer, and is the only caller of `backward()`."""

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from matwm.actor_critic import Actors, Critics, ReturnBounds
from matwm.actor_critic.joint import joint_size, team_rewards, with_mates_latents
from matwm.actor_critic.losses import actor_loss, critic_loss, entropy, trajectory_weights
from matwm.actor_critic.returns import lambda_returns
from matwm.batches import Features, Rollout, Windows
from matwm.config import ActorCriticConfig, Config
from matwm.graphs import Graphed
from matwm.imagination import Control, control_of, imagine
from matwm.nets.distributions import pick
from matwm.optimizer import NamedAdam
from matwm.precision import matrix_products
from matwm.readings import Readings
from matwm.stateful import State, save_parts
from matwm.types import EnvSpec
from matwm.world_model import WorldModel

DataT = TypeVar("DataT", Rollout, Windows, Control)


@dataclass(frozen=True)
class Targets:
    """What the passes over one rollout aim at; none of it carries a gradient."""

    returns: Float[Tensor, "N b H"]
    value: Float[Tensor, "N b H+1"]
    scale: Float[Tensor, " N"]
    advantage: Float[Tensor, "N b H"]
    weight: Float[Tensor, "N rows"]
    slow_value: Float[Tensor, "N rows"]
    log_prob: Float[Tensor, "N rows"] | None = None
    """Of each action as it was drawn; None where there is one pass."""


class Learner:
    """World model, actors, critics, slow critics, return bounds and two optimizers."""

    def __init__(self, spec: EnvSpec, config: Config, device: torch.device) -> None:
        ac = config.actor_critic
        self.config, self.spec, self.device = config, spec, device
        self.world_model = WorldModel(spec, config.world_model).to(device)
        self.actors = Actors(spec.num_agents, self.world_model.feature_size, spec.action_size, ac).to(device)
        self.critics = make_critics(self.world_model, spec, ac).to(device)
        self.slow_critics = copy.deepcopy(self.critics).requires_grad_(requires_grad=False)
        self.bounds = ReturnBounds(spec.num_agents, debias=ac.return_debias).to(device)
        teams = spec.roles().values() if ac.team_reward == "role" else [range(spec.num_agents)]
        self._together = ac.imagination.is_joint
        self._teams = [torch.tensor(list(team), device=device) for team in teams]
        self._controls: dict[int, Control | None] = {}
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
        )
        self.agents_optimizer = NamedAdam(
            ((name, p) for name, p in self.agents.named_parameters() if p.requires_grad),
            learning_rate=ac.learning_rate,
            betas=ac.adam_betas,
            epsilon=ac.adam_epsilon,
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
        """Imagine from the contexts and take `epochs` gradient steps on Eq. 10 and 11 for every agent; return what to log of the last.

        An agent whose contexts are padding throughout learns nothing, and all that is logged of it is 0.

        Raises:
            NonFiniteLossError: names the term and the agent; the step that it was found in has changed no parameter (see `_apply`).
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
        ac, contexts = self.config.actor_critic, Windows(**windows)
        rollout, counts, legal = self._learnt_from(self.imagine(contexts), contexts)
        learns, targets = counts.any(1), None
        beside = {"reward_real": real_reward(contexts, self.spec.num_agents)}
        if self.spec.has_action_masks:
            beside["illegal"] = illegal_share(rollout.action[:, :, 0], legal, counts if self._together else None)
        passes: list[Readings] = []
        for _ in range(ac.epochs):
            with self.products():
                loss, metrics, targets = self._agents_loss(rollout, counts, targets)
            loss.backward()
            metrics |= {"gradient_norm": self._clip_each_agent(ac.clip_norm), **beside}
            names = [f"agents/{name}/{key}" for key in metrics for name in self.spec.agents]
            passes.append(Readings(names, torch.cat([value.detach() * learns for value in metrics.values()])))
            self._apply(self.agents_optimizer, passes[-1])
        with torch.no_grad():
            for slow, fast in zip(self.slow_critics.parameters(), self.critics.parameters(), strict=True):
                slow.lerp_(fast, 1 - ac.slow_decay)
        return passes[-1]

    def imagine(self, contexts: Windows) -> Rollout:
        """Return the rollout of all agents from the contexts, (N, m, ...)."""
        imagination, num_agents = self.config.actor_critic.imagination, self.spec.num_agents
        with self.products():
            rollout = imagine(
                self.world_model,
                self.actors,
                contexts,
                horizon=self.config.regime(num_agents).horizon,
                from_prior=imagination.start_state == "prior",
                together=self._together,
                control=self._control(len(contexts.agent) // num_agents),
            )
        return map_tensors(rollout, lambda tensor: tensor.unflatten(0, (num_agents, -1)))

    def _control(self, moments: int) -> Control | None:
        """Return who acts by its policy at so many moments, made once."""
        if moments not in self._controls:
            control = control_of(self.config.actor_critic.imagination, self.spec, moments)
            self._controls[moments] = control and map_tensors(control, lambda tensor: tensor.to(self.device))
        return self._controls[moments]

    def _learnt_from(self, rollout: Rollout, contexts: Windows) -> tuple[Rollout, Bool[Tensor, "N b"], Bool[Tensor, "N b A"]]:
        """Return of a rollout (N, m, ...) what agents learn from, (N, b, ...), and of its starts who is alive and what is really legal."""
        num_agents = self.spec.num_agents
        counts = contexts.is_valid[:, -1].view(num_agents, -1)
        legal = contexts.action_mask[:, -1].unflatten(0, (num_agents, -1))
        if self.config.actor_critic.team_reward != "none":
            rollout = replace(rollout, reward=team_rewards(rollout.reward, rollout.alive[..., :-1], self._teams))
        states = Features(rollout.latent_rows, rollout.numbers)
        rollout = replace(rollout, **vars(self.as_critics_read(states, rollout.alive)))
        if (control := self._control(counts.shape[1])) is None:
            return rollout, counts, legal
        agent = torch.arange(num_agents, device=counts.device)[:, None]
        # Who is dead predicts nobody.
        is_led = (control.leader < 0) | counts.gather(0, control.leader.clamp(min=0)[None]).squeeze(0)
        rollout = map_tensors(rollout, lambda tensor: tensor[agent, control.rows])
        return rollout, (counts & is_led)[agent, control.rows], legal[agent, control.rows]

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
        moments = [one.moments.values() for one in (self.world_model_optimizer, self.agents_optimizer)]
        return [*of_networks, *(tensor for states in moments for state in states for tensor in state.values()), self._has_diverged]

    def _agents_loss(
        self, rollout: Rollout, counts: Bool[Tensor, "N b"], targets: "Targets | None"
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor], "Targets"]:
        """Return the sum of Eq. 10 and 11 over agents on a rollout (N, b, ...), and what to log of each agent, (N,).

        The first pass over a rollout makes the targets, which later passes are given.
        """
        ac = self.config.actor_critic
        states, final = states_of(rollout)
        acting = self._as_actors_read(states)
        bins = self.critics.bins
        log_values = F.log_softmax(self.critics(states), -1)
        log_probs = self.actors.log_probs(acting, rollout.action_mask.flatten(1, 2))
        if targets is None:
            targets = self._targets(rollout, counts, log_values.detach(), states, final)
        action, ratio = rollout.action.flatten(1), None
        if ac.epochs > 1:
            taken = pick(log_probs, action)
            drawn_with = taken.detach() if targets.log_prob is None else targets.log_prob
            ratio, targets = (taken - drawn_with).exp(), replace(targets, log_prob=drawn_with)
        policy_loss, mean_entropy = actor_loss(
            log_probs,
            action,
            targets.advantage.flatten(1),
            targets.weight,
            entropy_weight=ac.entropy,
            ratio=ratio,
            ratio_clip=ac.ratio_clip,
        )
        value_loss = critic_loss(
            log_values, targets.returns.flatten(1), targets.slow_value, targets.weight, bins, slow_weight=ac.slow_weight
        )
        mean = partial(mean_of_starts, counts=counts if self._together else None)
        if self._together:
            mean_entropy = mean(entropy(log_probs.detach()).unflatten(1, rollout.action.shape[1:]))
        metrics = {
            "actor_loss": policy_loss,
            "critic_loss": value_loss,
            "entropy": mean_entropy,
            "entropy_share": mean_entropy / self._largest_entropy,
            "value": mean(targets.value),
            "return": mean(targets.returns),
            "return_scale": targets.scale,
            "advantage_magnitude": mean(targets.advantage.abs()),
            "return_clipped": mean((targets.returns.abs() > bins.bins[-1]).float()),
            "reward_imagined": mean(rollout.reward),
        }
        if ratio is not None:
            clipped = (ratio.detach() - 1).abs() > ac.ratio_clip
            metrics["ratio_clipped"] = mean(clipped.float().unflatten(1, rollout.action.shape[1:]))
        return (policy_loss + value_loss).sum(), metrics, targets

    @torch.no_grad()
    def _targets(
        self,
        rollout: Rollout,
        counts: Bool[Tensor, "N b"],
        log_values: Float[Tensor, "N rows R"],
        states: Features,
        final: Features,
    ) -> "Targets":
        """Return what the passes over a rollout aim at, from the critics' log-probabilities in its states; update the bounds of returns."""
        ac, bins = self.config.actor_critic, self.critics.bins
        value = torch.cat(
            [bins.expectation(log_values.exp()).unflatten(1, rollout.action.shape[1:]), bins.mean(self.critics(final)).unsqueeze(-1)], -1
        )
        returns = lambda_returns(rollout.reward, rollout.continues, value, discount=ac.discount, lambda_=ac.lambda_)
        each = counts.repeat_interleave(returns.shape[-1], 1) if self._together else None
        self.bounds.update(returns.flatten(1), counts.any(1), low=ac.return_low, high=ac.return_high, decay=ac.return_decay, counts=each)
        scale = self.bounds.scale(ac.return_scale_min)
        advantage = (returns - value[..., :-1]) / scale[:, None, None]
        weight = trajectory_weights(rollout.continues) * counts[..., None]
        if self._together:  # Losses are means over starts: those at which an agent is dead must not shrink its gradient.
            weight = weight * (counts.shape[1] / counts.sum(1).clamp(min=1))[:, None, None]
        return Targets(returns, value, scale, advantage, weight.flatten(1), bins.mean(self.slow_critics(states)))

    def as_critics_read(self, states: Features, alive: Bool[Tensor, "N *b"]) -> Features:
        """Return states (N, *b, ...) of all agents at the same moments, with the teammates' latents if critics read them."""
        if self.config.actor_critic.critic_reads == "own":
            return states
        return with_mates_latents(states, alive, self.config.world_model.latent_size)

    def _as_actors_read(self, states: Features) -> Features:
        """Return states without the teammates' latents, which critics alone read."""
        if self.config.actor_critic.critic_reads == "own":
            return states
        own = self.world_model.feature_size
        picks = states.latent_rows.shape[-1] // self.spec.num_agents
        size = own - (self.config.world_model.latent_size if picks else 0)
        return Features(states.latent_rows[..., :picks], states.numbers[..., :size])

    def products(self) -> AbstractContextManager[None]:
        """Return the context in which the networks compute while training."""
        return matrix_products(self.config.run.precision, self.device)

    def parts(self) -> dict[str, State]:
        """Return the state of everything owned, by part of the checkpoint."""
        networks = save_parts({"world_model": self.world_model, "agents": self.agents})
        return {**networks, "optimizers": save_parts({"world_model": self.world_model_optimizer, "agents": self.agents_optimizer})}

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


def make_critics(world_model: WorldModel, spec: EnvSpec, config: ActorCriticConfig) -> Critics:
    """Return new critics of all agents."""
    size, zero_row = world_model.feature_size, None
    if config.critic_reads == "joint":
        one_hot, z = world_model.config.latent_code == "one_hot", world_model.config.latent_size
        size, zero_row = joint_size(size, z, spec.num_agents, one_hot=one_hot), z * spec.num_agents if one_hot else None
    return Critics(spec.num_agents, size, config, zero_row=zero_row)


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


def illegal_share(first: Int[Tensor, "N b"], legal: Bool[Tensor, "N b A"], counts: Bool[Tensor, "N b"] | None) -> Float[Tensor, " N"]:
    """Return which share of each agent's first imagined actions the environment's own mask forbids, at the starts that count (None: all).

    The predicted mask allows every imagined action; of later states nobody knows what is legal.
    """
    is_legal = legal.gather(-1, first.unsqueeze(-1)).squeeze(-1).float()
    if counts is None:
        return 1 - is_legal.mean(1)
    return ((1 - is_legal) * counts).sum(1) / counts.sum(1).clamp(min=1)


def mean_of_starts(values: Float[Tensor, "N b steps"], *, counts: Bool[Tensor, "N b"] | None) -> Float[Tensor, " N"]:
    """Return each agent's mean over the steps of the starts that count (None: all), 0 if none does."""
    if counts is None:
        return values.mean((1, 2))
    return (values * counts.unsqueeze(-1)).sum((1, 2)) / (counts.sum(1).clamp(min=1) * values.shape[-1])


def map_tensors(data: DataT, function: Callable[[Tensor], Tensor]) -> DataT:
    """Return a copy of a dataclass of tensors with `function` applied to each."""
    return type(data)(**{field.name: function(getattr(data, field.name)) for field in fields(data)})  # type: ignore[arg-type]
