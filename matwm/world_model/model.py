"""The world model: a loss over windows of replay, and states to imagine and act from."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from matwm.batches import Features, Windows
from matwm.config import WorldModelConfig
from matwm.nets.distributions import reinmax, sample_index, straight_through, unimix_probs
from matwm.nets.team import mates_beside
from matwm.nets.transformer import Cache, CausalTransformer, layout
from matwm.types import EnvSpec
from matwm.world_model import losses
from matwm.world_model.encoder import make_autoencoder
from matwm.world_model.heads import Heads
from matwm.world_model.teammates import MatesMemory, TeammatePredictor


@dataclass(frozen=True)
class FocalState:
    """What a policy may see, s_t = [z_t, h_{t-1}, p_t], and the memory to go on from; rows grouped by focal agent.

    h_{t-1} has read (z_{t-1}, a_{t-1}): nothing here depends on a_t.
    """

    agent: Int[Tensor, " B"]
    latent: Int[Tensor, "B K"]
    hidden: Float[Tensor, "B D"]
    mate_probs: Float[Tensor, "B M A"]
    action_mask: Bool[Tensor, "B A"]
    """Predicted where the environment has masks, else the agent's own actions."""
    trunk_cache: Cache
    mates_memory: MatesMemory | None


class WorldModel(nn.Module):
    """Autoencoder, action mixer, causal transformer, heads and teammate predictor, shared by all agents (Eq. 2)."""

    obs_exists: Tensor
    action_exists: Tensor
    action_offsets: Tensor

    def __init__(self, spec: EnvSpec, config: WorldModelConfig) -> None:
        super().__init__()
        self.config = config
        self.loss_weights: dict[str, float] = config.loss_weights.model_dump()
        assert self.loss_weights.keys() == losses.TERMS.keys(), "each term of the loss has a weight of its name, and each weight a term"
        self.mates_shape = (spec.num_agents - 1, spec.action_size)
        scaled = config.action_words == "scaled"
        words = spec.vocabulary if scaled else spec.action_size
        self.autoencoder = make_autoencoder(config, spec)
        self.mixer = self.autoencoder.code.linear(words, config.hidden_size)
        self.trunk = CausalTransformer(
            config.hidden_size, config.layers, config.heads, config.feedforward_multiple, config.max_positions, config.dropout
        )
        self.heads = Heads(config, self.autoencoder.code, spec.num_agents - 1, spec.action_size, has_action_masks=spec.has_action_masks)
        predicts_mates = config.teammates.enabled and spec.num_agents > 1
        self.teammates = TeammatePredictor(config, spec, self.autoencoder.code) if predicts_mates else None
        self.register_buffer("obs_exists", torch.from_numpy(spec.obs_exists), persistent=False)
        self.register_buffer("action_exists", torch.from_numpy(spec.action_exists), persistent=False)
        offsets = spec.action_offsets if scaled else (0,) * spec.num_agents
        self.register_buffer("action_offsets", torch.tensor(offsets), persistent=False)

    @property
    def feature_size(self) -> int:
        """F: what actors and critics read."""
        mates = self.mates_shape[0] * self.mates_shape[1] if self.teammates else 0
        return self.config.latent_size + self.config.hidden_size + mates

    def loss(self, windows: Windows) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return Eq. 3 (means over the rows that count) and what to log of it.

        Where the configuration reads teammates' latents, window k of every agent must be the same stretch.
        """
        w, config = windows, self.config
        acted = w.is_valid & (w.action >= 0)
        paired = acted[:, :-1] & w.is_valid[:, 1:]
        probs = self.autoencoder.posterior(w.obs, w.agent)
        log_posterior = probs.log()
        one_hot = reinmax if config.latent_gradient == "reinmax" else straight_through
        index = sample_index(probs.detach())
        z = self.autoencoder.code.read(one_hot(probs, index))
        positions, allowed = layout(w.is_first, w.is_valid)
        h = self.trunk(self.mixer.dense(z, self._words(w.action, w.agent)), positions, allowed)
        mates = self._of_mates(w.mate_actions, z)
        log_prior = self.prior(h[:, :-1], index[:, :-1], None if mates is None else mates[:, :-1]).log()
        continue_logits = self.heads.continuation(h).squeeze(-1)
        reward_logits = self.heads.reward_logits(h, self._arrivals(index, z, h, paired, mates, w.mate_actions))
        dynamics, representation, kl = losses.kl_losses(log_posterior[:, 1:], log_prior, config.free_nats)
        done = losses.ForwardPass(
            windows=w,
            acted=acted,
            paired=paired,
            obs_exists=self.obs_exists[w.agent],
            action_exists=self.action_exists[w.agent],
            latent=z,
            hidden=h,
            decoded=self.autoencoder.decode(z).flatten(2),
            target=self.autoencoder.target(w.obs).flatten(2),
            reward_logits=reward_logits,
            reward_bins=self.heads.reward_bins,
            continue_logits=continue_logits,
            dynamics=dynamics,
            representation=representation,
            mate_log_probs=None if self.teammates is None else self.teammates(z, w.agent, positions, allowed),
            mask_logits=None if self.heads.action_mask is None else self.heads.action_mask(z),
        )
        terms = {name: term for name, function in losses.TERMS.items() if (term := function(done)) is not None}
        metrics: dict[str, Tensor] = {}
        if done.mate_log_probs is not None:
            metrics |= teammate_metrics(done.mate_log_probs.detach(), w.mate_actions)
        if done.mask_logits is not None:
            counts = done.action_exists[:, None] & losses.is_told(w, done.action_exists)[..., None]
            metrics |= action_mask_metrics(done.mask_logits.detach() > 0, w.action_mask, counts)
        means = {name: losses.masked_mean(values, mask) for name, (values, mask) in terms.items()}
        total = torch.stack([self.loss_weights[name] * mean for name, mean in means.items()]).sum()
        with torch.no_grad():
            metrics |= {name: mean.detach() for name, mean in means.items()}
            metrics["total"] = total.detach()
            metrics["kl"] = losses.masked_mean(kl, paired)
            metrics["kl_clipped"] = losses.masked_mean((kl < config.free_nats).float(), paired)
            rows = w.is_valid.sum(1)
            metrics["reconstruction_rmse"] = (
                metrics["reconstruction"] * rows.sum() / (rows * self.obs_exists[w.agent].sum(-1)).sum().clamp(min=1)
            ).sqrt()
            metrics["reward_marginal"] = self.heads.reward_bins.marginal_entropy(w.reward, acted)
            metrics["posterior_entropy"] = losses.masked_mean(-(probs * log_posterior).sum((-2, -1)), w.is_valid)
            metrics["reward_mean_real"] = losses.masked_mean(w.reward, acted)
            metrics["reward_mean_predicted"] = losses.masked_mean(self.heads.reward_bins.mean(reward_logits), acted)
            metrics["reward_clipped"] = self.heads.reward_bins.clipped(w.reward)
            metrics["continues"] = losses.masked_mean(torch.sigmoid(continue_logits), acted)
        return total, metrics

    def prior(
        self, h: Float[Tensor, "*batch D"], latent: Int[Tensor, "*batch K"], mates: Float[Tensor, "*batch X"] | None = None
    ) -> Float[Tensor, "*batch K L"]:
        """Return probabilities of the latent that follows `latent`, which h has consumed last, and what is read of the teammates."""
        return unimix_probs(self.autoencoder.code.prior_logits(self.heads.transition(h, mates), latent), self.config.unimix)

    @torch.no_grad()
    def observe(self, context: Windows, *, horizon: int, from_prior: bool = False) -> FocalState:
        """Return the state at the last row of left-padded contexts, with room for `horizon` steps of imagination.

        Observations are encoded anew, since stored latents would be stale; the last row's own action is not used.
        With `from_prior` the last latent is what the context predicts instead of what the observation says (as STORM).
        """
        length = context.obs.shape[1]
        index = sample_index(self.autoencoder.posterior(context.obs, context.agent))
        past_valid = context.is_valid[:, :-1]
        words = self._words(context.action[:, :-1], context.agent).clamp(min=0)  # where there is none, it is padding
        mixed = self.mixer.sparse(index[:, :-1], words)
        h, trunk_cache = self.trunk.prefill(mixed, past_valid, length - 1 + horizon)
        has_past = past_valid.any(1)
        hidden = torch.where(has_past[:, None], h, 0.0)
        if from_prior and length > 1:
            mates = self._of_mates(context.mate_actions[:, -2], self._read(index[:, -2]))
            prior = sample_index(self.prior(h, index[:, -2], mates))
            index = torch.cat([index[:, :-1], torch.where(has_past[:, None], prior, index[:, -1])[:, None]], 1)
        if self.teammates is None:
            mate_probs, mates_memory = self._no_mates(hidden), None
        else:
            mate_probs, mates_memory = self.teammates.prefill(index, context.agent, context.is_valid, length + horizon)
        latent = index[:, -1]
        return FocalState(context.agent, latent, hidden, mate_probs, self._action_mask(latent, context.agent), trunk_cache, mates_memory)

    @torch.no_grad()
    def advance(self, state: FocalState, action: Int[Tensor, " B"], mate_actions: Int[Tensor, "B M"] | None = None) -> FocalState:
        """Imagine one step: return the state that follows `action`; what the action earned is read from its `hidden`.

        Where `dynamics_reads` is not `own`, `mate_actions` are the teammates', -1 for those that are dead; if it is `joint`, row k
        of every agent must be the same moment. The memories are written in place: a state can be advanced only once.
        """
        mixed = self.mixer.sparse(state.latent, action + self.action_offsets[state.agent])
        h = self.trunk.step(mixed, state.trunk_cache)
        mates = None if mate_actions is None else self._of_mates(mate_actions, self._read(state.latent))
        latent = sample_index(self.prior(h, state.latent, mates))
        mate_probs = state.mate_probs
        if self.teammates is not None and state.mates_memory is not None:
            mate_probs = self.teammates.step(latent, state.mates_memory)
        mask = state.action_mask if self.heads.action_mask is None else self._action_mask(latent, state.agent)
        return replace(state, latent=latent, hidden=h, mate_probs=mate_probs, action_mask=mask)

    @torch.no_grad()
    def outcomes(
        self, hidden: Float[Tensor, "B H D"], latent: Int[Tensor, "B H K"], mate_actions: Int[Tensor, "B H M"] | None = None
    ) -> tuple[Float[Tensor, "B H"], Float[Tensor, "B H"]]:
        """Return the expected rewards and the probabilities of going on after the actions that led to these states.

        Where `reward_reads` is `joint`, `mate_actions` tell who is dead (-1), and row k of every agent must be the same moment.
        """
        arrival = self._beside(self._read(latent), mate_actions) if self.heads.arrival else None
        return self.heads.reward_mean(hidden, arrival), self.heads.continues(hidden)

    def features(self, state: FocalState, num_agents: int) -> Features:
        """Return s_t as the actors and critics of `num_agents` focal agents read it, (N, b, ...)."""
        rows, read = self.mixer.rows(state.latent)
        numbers = [read, state.hidden, *([state.mate_probs.flatten(1)] if self.teammates else [])]
        return Features(rows.unflatten(0, (num_agents, -1)), torch.cat(numbers, 1).unflatten(0, (num_agents, -1)))

    def _arrivals(
        self,
        index: Int[Tensor, "B T K"],
        z: Float[Tensor, "B T Z"],
        h: Float[Tensor, "B T D"],
        paired: Bool[Tensor, "B S"],
        mates: Float[Tensor, "B T X"] | None,
        mate_actions: Int[Tensor, "B T M"],
    ) -> Float[Tensor, "B T arrivals"] | None:
        """Return the latent that followed each row, for the reward head, if it reads that; and the teammates', if it reads them.

        Where none is known, at a window's end and where the agent died, it is drawn as imagination draws it.
        """
        if self.heads.arrival is None:
            return None
        with torch.no_grad():
            drawn = self._read(sample_index(self.prior(h, index, mates)))
        arrived = torch.cat([torch.where(paired.unsqueeze(-1), z[:, 1:], drawn[:, :-1]), drawn[:, -1:]], 1)
        return self._beside(arrived, mate_actions)

    def _of_mates(self, mate_actions: Int[Tensor, "*batch M"], z: Float[Tensor, "*batch Z"]) -> Float[Tensor, "*batch X"] | None:
        """Return what the dynamics head reads of the teammates, zeros for those without an action; None if nothing.

        That is for each of them its action, as a one-hot of the size of latents, and with `dynamics_reads: joint` its latent.
        """
        reads = self.config.dynamics_reads
        if reads == "own" or not self.mates_shape[0]:
            return None
        acts = (mate_actions >= 0).unsqueeze(-1)
        parts = [F.one_hot(mate_actions.clamp(min=0), self.mates_shape[1]) * (2.0 * acts)]
        if reads == "joint":
            parts.append(mates_beside(z, self.mates_shape[0] + 1) * acts)
        return torch.cat(parts, -1).flatten(-2)

    def _beside(self, arrived: Float[Tensor, "*batch Z"], mate_actions: Int[Tensor, "*batch M"] | None) -> Float[Tensor, "*batch arrivals"]:
        """Return what the reward head reads of arrivals: an agent's own, and with `reward_reads: joint` its teammates' behind it."""
        if self.config.reward_reads == "own" or not self.mates_shape[0]:
            return arrived
        assert mate_actions is not None, "reward_reads is joint: who of the teammates lives is needed"
        of_mates = mates_beside(arrived, self.mates_shape[0] + 1) * (mate_actions >= 0).unsqueeze(-1)
        return torch.cat([arrived, of_mates.flatten(-2)], -1)

    def _read(self, index: Int[Tensor, "*batch K"]) -> Float[Tensor, "*batch Z"]:
        """Return what networks read of classes."""
        return self.autoencoder.code.read_index(index)

    def _words(self, action: Int[Tensor, "B T"], agent: Int[Tensor, " B"]) -> Int[Tensor, "B T"]:
        """Return action words; a row without an action keeps a negative one, which the mixer reads as nothing."""
        return torch.where(action >= 0, action + self.action_offsets[agent][:, None], -1)

    def _action_mask(self, latent: Int[Tensor, "B K"], agent: Int[Tensor, " B"]) -> Bool[Tensor, "B A"]:
        """Return the legal actions that z_t predicts; the likeliest one where none passes."""
        exists = self.action_exists[agent]
        if self.heads.action_mask is None:
            return exists
        logits = self.heads.action_mask(self.autoencoder.code.read_index(latent)).masked_fill(~exists, float("-inf"))
        likeliest = F.one_hot(logits.argmax(-1), logits.shape[-1]).bool()
        return (logits > 0) | likeliest

    def _no_mates(self, like: Float[Tensor, "B D"]) -> Float[Tensor, "B M A"]:
        return like.new_zeros(like.shape[0], *self.mates_shape)


def action_mask_metrics(predicted: Bool[Tensor, "B T A"], mask: Bool[Tensor, "B T A"], counts: Bool[Tensor, "B T A"]) -> dict[str, Tensor]:
    """Return in which share of rows every action is judged right, and how the others are wrong.

    `action_mask_allowed` is the share of the illegal actions that the prediction would allow, `action_mask_forbidden` the share
    of the legal ones that it forbids.
    """
    return {
        "action_mask_accuracy": losses.masked_mean(((predicted == mask) | ~counts).all(-1).float(), counts.any(-1)),
        "action_mask_allowed": losses.masked_mean(predicted.float(), counts & ~mask),
        "action_mask_forbidden": losses.masked_mean((~predicted).float(), counts & mask),
    }


def teammate_metrics(log_probs: Float[Tensor, "B T M A"], mate_actions: Int[Tensor, "B T M"]) -> dict[str, Tensor]:
    """Return the predictor's accuracy and that of always naming each mate's most frequent action.

    What is most frequent is counted in the first half of the windows' rows and judged on the second: on the same rows it
    would look better than it is.
    """
    known = mate_actions >= 0
    accuracy = losses.masked_mean((log_probs.argmax(-1) == mate_actions).float(), known)
    taken = F.one_hot(mate_actions.clamp(min=0), log_probs.shape[-1]).mul(known.unsqueeze(-1))
    first, second = (
        half.unflatten(0, (mate_actions.shape[-1] + 1, -1)).sum((1, 2))  # (focal agent, slot, action)
        for half in (taken[:, : taken.shape[1] // 2], taken[:, taken.shape[1] // 2 :])
    )
    majority = second.gather(-1, first.argmax(-1, keepdim=True)).sum() / second.sum().clamp(min=1)
    return {"teammate_accuracy": accuracy, "teammate_majority": majority}
