"""Counts the floating-point operations of matrix products as if every one-hot were dense and nothing were skipped.

What the code skips (rows of zeros, hidden states that nobody reads) is a gain over this count, not a smaller count.
"""

from matwm.config import Config, WorldModelConfig
from matwm.types import EnvSpec
from matwm.world_model.latents import make_code


def linear(*sizes: int) -> int:
    """Return the operations a row of a chain of linear layers."""
    return 2 * sum(a * b for a, b in zip(sizes, sizes[1:], strict=False))


def transformer(hidden: int, layers: int, multiple: int, seen: float) -> float:
    """Return the operations a row that attends to `seen` rows on average."""
    return layers * (2 * hidden * hidden * (4 + 2 * multiple) + 4 * hidden * seen)


def image_coders(wm: WorldModelConfig, image: tuple[int, int, int], identity: int) -> tuple[int, int, int]:
    """Return the operations an image of four convolutions and the linear layer behind them, of their mirror, and of the first alone."""
    channels, height, width = image
    widths = [channels, *(wm.encoder_width // part for part in (8, 4, 2, 1))]
    places = [height * width // 4**layer for layer in (1, 2, 3, 4)]
    convolutions = [2 * 16 * a * b * at for a, b, at in zip(widths, widths[1:], places, strict=False)]
    said, flat = make_code(wm).encoder_size, places[-1] * widths[-1]
    return sum(convolutions) + linear(flat + identity, said), sum(convolutions) + linear(wm.latent_size, flat), convolutions[0]


class RowCosts:
    """Operations of one row (a token) of every network, forward."""

    def __init__(self, config: Config, spec: EnvSpec) -> None:
        wm, ac = config.world_model, config.actor_critic
        self.wm = wm
        z, mates, code = wm.latent_size, spec.num_agents - 1, make_code(wm)
        words = spec.vocabulary if wm.action_words == "scaled" else spec.action_size
        seen = spec.obs_size + (spec.num_agents if wm.agent_identity else 0)
        between, head = [wm.encoder_width] * wm.encoder_layers, [wm.head_width] * wm.head_layers
        if spec.image_shape:
            self.encoder, self.decoder, self.encoder_in = image_coders(wm, spec.image_shape, seen - spec.obs_size)
        else:
            said = code.encoder_size
            beside = (linear(seen, said), linear(z, spec.obs_size)) if wm.latent_code == "ordinal" else (0, 0)
            self.encoder_in = linear(seen, between[0]) + beside[0]
            self.encoder, self.decoder = linear(seen, *between, said) + beside[0], linear(z, *between, spec.obs_size) + beside[1]
        self.mixer = linear(z + words, wm.hidden_size)
        of_mates = mates * {"own": 0, "actions": spec.action_size, "joint": spec.action_size + z}[wm.dynamics_reads]
        self.prior = linear(wm.hidden_size + of_mates, *[wm.hidden_size] * wm.dynamics_layers, code.dynamics_size)
        self.prior += linear(of_mates, code.dynamics_size)
        self.outcomes = linear(wm.hidden_size, *head, wm.bins.count) + linear(wm.hidden_size, *head, 1)
        arrivals = z * (1 + mates) if wm.reward_reads == "joint" else z
        self.outcomes += linear(arrivals, *head, wm.bins.count) if wm.reward_input == "arrival" else 0
        self.mask = linear(z, *head, spec.action_size) if spec.has_action_masks else 0
        self.predicts_mates = wm.teammates.enabled and mates > 0
        self.mate_ends = linear(z, wm.teammates.hidden_size, mates * spec.action_size) if self.predicts_mates else 0
        self.mates_in = linear(z, wm.teammates.hidden_size) if self.predicts_mates else 0
        features = z + wm.hidden_size + (mates * spec.action_size if self.predicts_mates else 0)
        hidden = [ac.width] * ac.layers
        valued = features + (mates * z if ac.critic_reads == "joint" else 0)
        self.actor_in, self.critic_in = linear(features, ac.width), linear(valued, ac.width)
        parts = ac.action_factors or [spec.action_size]
        self.actor, self.critic = linear(features, *hidden, sum(parts)), linear(valued, *hidden, ac.bins.count)

    def trunk(self, seen: float) -> float:
        """Return the trunk's, with attention to `seen` rows."""
        return transformer(self.wm.hidden_size, self.wm.layers, self.wm.feedforward_multiple, seen)

    def mates(self, seen: float) -> float:
        """Return the teammate predictor's."""
        if not self.predicts_mates:
            return 0
        config: WorldModelConfig = self.wm
        return self.mate_ends + transformer(config.teammates.hidden_size, config.teammates.layers, config.feedforward_multiple, seen)


def dense_flops(config: Config, spec: EnvSpec, acting_rows: int) -> dict[str, float]:
    """Return the operations of one call of each part; a backward pass is two forward passes, less the gradients of inputs that need none.

    Those are of observations, of the latents that the teammates' predictor reads, and of the states that agents learn from.

    `acting_rows` is how many rows of the episode a policy sees.
    """
    cost, wm = RowCosts(config, spec), config.world_model
    n, context = spec.num_agents, config.actor_critic.imagination.context_length
    regime = config.regime(n)
    starts, horizon = n * config.schedule.per_agent(regime.starts, n), regime.horizon
    windows, length = n * config.schedule.per_agent(wm.windows, n), wm.window_length
    row = cost.encoder + cost.decoder + cost.mixer + cost.trunk(length) + cost.prior + cost.outcomes + cost.mates(length) + cost.mask

    def observe(rows: int) -> float:
        return rows * (cost.encoder + cost.mates(rows)) + (rows - 1) * (cost.mixer + cost.trunk(rows))

    seen = context + horizon / 2
    step = cost.mixer + cost.trunk(seen) + cost.prior + cost.mates(seen) + cost.outcomes + cost.mask + cost.actor
    rows, epochs = starts * horizon, config.actor_critic.epochs
    learned = 3 * (cost.actor + cost.critic) - cost.actor_in - cost.critic_in
    if config.actor_critic.imagination.mates == "predicted":  # each start is imagined for the whole team, and one of it learns
        starts *= n
    return {
        "act": n * (observe(acting_rows) + cost.actor),
        "world model": windows * length * (3 * row - cost.encoder_in - cost.mates_in),
        "imagine": starts * (observe(context) + horizon * step),
        "actor-critic": rows * (epochs * learned + cost.critic) + rows // horizon * cost.critic,
    }
