"""Turns params.yaml into one frozen, validated `Config`: types, ranges, units, and what a branch may change.

Every field carries two marks beside its range. `branch` says what a continued segment may do with it: *free* (change it),
*adapt* (change it; the state is fitted to the new value) or *fixed* (never). `shapes` says whether it shapes training,
and so belongs in the segment key and in a checkpoint's manifest.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from matwm import scenarios
from matwm.errors import UserError

Decay = Annotated[float, Field(ge=0, lt=1)]


def _checked_number(value: Any, check: ValidatorFunctionWrapHandler) -> int | float:
    number = check(value)
    return value if isinstance(value, int) else number


Number = Annotated[float, WrapValidator(_checked_number)]
"""A number that stays whole if it is written so."""
Branch = Literal["free", "adapt", "fixed"]


class ConfigError(UserError, ValueError):
    """The parameters are wrong; `problems` holds one sentence each, with the field's full path."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def field(description: str, *, branch: Branch, shapes: bool = True, **limits: Any) -> Any:
    """Declare a required field with its meaning and unit, its limits and its marks.

    A field with a `default` is younger than the first checkpoints: files that lack it mean the default, and manifests
    do not name it then, so that what was trained before it came is what would be trained now.
    """
    since = {"default": limits["default"]} if "default" in limits else {}
    return Field(description=description, json_schema_extra={"branch": branch, "shapes": shapes, **since}, **limits)


class Section(BaseModel):
    """A part of params.yaml: immutable, no unknown keys, no silent conversion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class EnvConfig(Section):
    """Which environment, with its own options."""

    family: scenarios.FamilyName = field("environment family", branch="fixed")
    name: str = field("scenario, or the import path of an environment of the family pettingzoo", branch="fixed")
    options: dict[str, Any] = field("the scenario's own options; those left out take the scenario's defaults", branch="fixed")
    seconds_per_call: float = field(
        "seconds after which a reset, step, render or close of an environment of your own is given up", branch="free", shapes=False, gt=0,
        default=300.0,
    )  # fmt: skip

    @model_validator(mode="before")
    @classmethod
    def _complete_options(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("name"), str) and str(data.get("family")) in scenarios.FAMILIES:
            options = scenarios.complete_options(data["family"], data["name"], data.get("options") or {})
            return {**data, "options": options}
        return data

    @property
    def num_agents(self) -> int | None:
        """N; None where only the environment itself knows."""
        return scenarios.num_agents(self.family, self.name, self.options)


class BinsConfig(Section):
    """Two-hot bins at symexp(linspace(-bound, bound, count)) (DreamerV3)."""

    count: int = field("number of bins, odd so that zero is one", branch="fixed", ge=3, le=1023)
    bound: float = field("symlog of the outermost bin", branch="fixed", gt=0, le=20)

    @model_validator(mode="after")
    def _zero_is_a_bin(self) -> Self:
        if self.count % 2 == 0:
            raise ValueError(f"count is {self.count}: use an odd number, so that zero is a bin")
        return self


class LossWeights(Section):
    """Weights of the terms of Eq. 3."""

    reconstruction: float = field("weight of Eq. 4", branch="free", ge=0)
    reward: float = field("weight of Eq. 5", branch="free", ge=0)
    continuation: float = field("weight of Eq. 6", branch="free", ge=0)
    teammates: float = field("weight of Eq. 8", branch="free", ge=0)
    action_mask: float = field("weight of Eq. 7 (beta 1)", branch="free", ge=0)
    dynamics: float = field("weight of the dynamics KL of Eq. 9 (beta 1)", branch="free", ge=0)
    representation: float = field("weight of the representation KL of Eq. 9 (beta 2)", branch="free", ge=0)


class TeammateConfig(Section):
    """The teammate predictor: a small causal transformer over latents."""

    enabled: bool = field("predict the other agents' actions (ablation of Table 5)", branch="fixed")
    hidden_size: int = field("width", branch="fixed", ge=1, le=16384)
    layers: int = field("transformer blocks", branch="fixed", ge=1, le=64)
    heads: int = field("attention heads", branch="fixed", ge=1)


class WorldModelConfig(Section):
    """The shared world model and its training."""

    latents: int = field("K, categorical latents", branch="fixed", ge=1, le=1024)
    classes: int = field("L, classes of each latent", branch="fixed", ge=2, le=1024)
    latent_code: Literal["one_hot", "ordinal"] = field(
        "what classes are: names, read as one-hots, or levels of a number, read as that number", branch="fixed", default="one_hot"
    )
    unimix: float = field("share of uniform in every categorical", branch="free", ge=0, lt=1)
    latent_gradient: Literal["straight_through", "reinmax"] = field(
        "how a drawn latent passes its gradient on: to first order, or to second", branch="free"
    )
    hidden_size: int = field("D, width of the transformer", branch="fixed", ge=1, le=16384)
    layers: int = field("transformer blocks", branch="fixed", ge=1, le=64)
    heads: int = field("attention heads", branch="fixed", ge=1)
    feedforward_multiple: int = field("width of the feed-forward layers over D", branch="fixed", ge=1)
    max_positions: int = field("longest sequence in rows", branch="fixed", ge=1)
    dropout: float = field("dropout of the transformers while training", branch="free", ge=0, lt=1)
    encoder_layers: int = field(
        "hidden layers of encoder and decoder of vectors; those of images have four convolutions", branch="fixed", ge=1, le=64
    )
    encoder_width: int = field(
        "their width; of images the channels of the last convolution, each before it has half as many", branch="fixed", ge=1, le=16384
    )
    reward_input: Literal["hidden", "arrival"] = field(
        "what rewards are read from: the hidden state, or the latent that follows, too", branch="fixed", default="hidden"
    )
    reward_reads: Literal["own", "joint"] = field(
        "whose next latents the reward head reads: the agent's own, or those of all agents", branch="fixed", default="own"
    )
    dynamics_reads: Literal["own", "actions", "joint"] = field(
        "what predicts the next latent: the agent's own hidden state; its teammates' actions, too; or also their latents",
        branch="fixed",
        default="own",
    )
    head_layers: int = field("hidden layers of the reward, continuation and mask heads", branch="fixed", ge=1, le=64)
    head_width: int = field("their width", branch="fixed", ge=1, le=16384)
    dynamics_layers: int = field("hidden layers of the dynamics head", branch="fixed", ge=0, le=64)
    agent_identity: bool = field("tell the encoder which agent is focal", branch="fixed")
    action_words: Literal["scaled", "shared"] = field(
        "scaled: each agent's actions have words of their own; shared: not (ablation of Table 5)", branch="fixed"
    )
    bins: BinsConfig
    teammates: TeammateConfig
    loss_weights: LossWeights
    free_nats: float = field("KL below which a row has no gradient, in nats", branch="free", ge=0)
    windows: int = field("windows an update, in total over agents if schedule.batch_is_total", branch="free", ge=1)
    window_length: int = field("T, rows a window", branch="free", ge=2)
    learning_rate: float = field("Adam step size", branch="free", gt=0)
    autoencoder_learning_rate: float = field("that of encoder and decoder", branch="free", gt=0)
    reward_learning_rate: float | None = field("that of what predicts rewards; null: learning_rate", branch="free", gt=0, default=None)
    adam_betas: list[Decay] = field("Adam decays of the two moments", branch="free", min_length=2, max_length=2)
    adam_epsilon: float = field("Adam epsilon", branch="free", gt=0)
    clip_norm: float = field("largest gradient norm", branch="free", gt=0)

    @property
    def reads_mates_latents(self) -> bool:
        """Whether the loss needs the latents of all agents at the same moments."""
        return "joint" in (self.dynamics_reads, self.reward_reads)

    @property
    def latent_size(self) -> int:
        """Z: how many numbers networks read of a latent state."""
        return self.latents * (1 if self.latent_code == "ordinal" else self.classes)


class Regime(Section):
    """Imagined batch and horizon for teams up to a size."""

    max_agents: int | None = field("largest team it applies to; null: any", branch="free", ge=1)
    starts: int = field("imagined trajectories an update, in total over agents if schedule.batch_is_total", branch="free", ge=1)
    horizon: int = field("H, imagined steps", branch="free", ge=1)


class ImaginationConfig(Section):
    """Where imagination starts and how far it goes (Algorithm 1)."""

    context_length: int = field("C, rows of real context", branch="free", ge=1)
    start_state: Literal["posterior", "prior"] = field("latent of the first imagined state", branch="free")
    mates: Literal["absent", "predicted", "imagined"] = field(
        "who moves an agent's imagined world beside itself: nobody; its teammates, all imagined from the same moment, by the actions "
        "that its own predictor draws; or by their present policies",
        branch="free",
        default="absent",
    )
    opponents_predicted: float = field(
        "with mates: imagined, the share of an agent's starts at which agents of other roles act as the predictor draws",
        branch="free",
        ge=0,
        le=1,
        default=0.0,
    )
    regimes: list[Regime] = field("by number of agents, ascending", branch="free", min_length=1)

    @property
    def is_joint(self) -> bool:
        """Whether all agents are rolled out from the same moments."""
        return self.mates != "absent"

    @model_validator(mode="after")
    def _regimes_cover_every_team(self) -> Self:
        bounds = [regime.max_agents for regime in self.regimes]
        finite = [bound for bound in bounds[:-1] if bound is not None]
        if bounds[-1] is not None or len(finite) != len(bounds) - 1 or finite != sorted(set(finite)):
            raise ValueError(f"regimes have max_agents {bounds}: use ascending numbers and null for the last")
        return self

    def regime(self, num_agents: int) -> Regime:
        """Return the first regime that admits the team."""
        return next(r for r in self.regimes if r.max_agents is None or num_agents <= r.max_agents)


class ActorCriticConfig(Section):
    """One actor and one critic per agent, and their training."""

    layers: int = field("hidden layers of actor and critic", branch="fixed", ge=1, le=64)
    width: int = field("their width", branch="fixed", ge=1, le=16384)
    bins: BinsConfig
    action_factors: list[int] | None = field(
        "sizes of the parts of an action whose index counts them in row-major order, such as [10, 5]: ten words, five moves beside each; "
        "policies then choose the parts independently; null: one choice among all actions",
        branch="fixed",
        min_length=2,
        default=None,
    )
    actor_unimix: float = field("share of uniform in the policy", branch="free", ge=0, lt=1)
    discount: float = field("gamma a step", branch="free", gt=0, le=1)
    lambda_: float = field("lambda of the return (Eq. 12)", branch="free", ge=0, le=1, alias="lambda")
    entropy: float = field("weight of the policy's entropy (Eq. 10)", branch="free", ge=0)
    return_low: float = field("lower percentile of returns (Eq. 13)", branch="free", ge=0, le=100)
    return_high: float = field("upper percentile of returns (Eq. 13)", branch="free", ge=0, le=100)
    return_decay: float = field("EMA decay of the two bounds", branch="free", ge=0, lt=1)
    return_scale_min: float = field("smallest divisor of advantages", branch="free", gt=0)
    slow_decay: float = field("sigma, EMA decay of the slow critic (Eq. 14)", branch="free", ge=0, lt=1)
    slow_weight: float = field("weight of the slow critic's own term in the critic loss", branch="free", ge=0)
    learning_rate: float = field("Adam step size", branch="free", gt=0)
    adam_betas: list[Decay] = field("Adam decays of the two moments", branch="free", min_length=2, max_length=2)
    adam_epsilon: float = field("Adam epsilon", branch="free", gt=0)
    clip_norm: float = field("largest gradient norm of each agent", branch="free", gt=0)
    epochs: int = field(
        "gradient steps on each imagined batch; with more than one, policy ratios are clipped (PPO)", branch="free", ge=1, le=100, default=1
    )
    ratio_clip: float = field(
        "how far a policy's ratio counts from 1 (PPO), where epochs is more than 1", branch="free", gt=0, lt=1, default=0.2
    )
    return_debias: bool = field(
        "correct the moving averages of the two bounds for their start at 0, as Adam corrects its moments", branch="free", default=False
    )
    critic_reads: Literal["own", "joint"] = field(
        "what a critic reads: its agent's state, or the latents of all agents, too", branch="fixed", default="own"
    )
    team_reward: Literal["none", "role", "all"] = field(
        "whose mean imagined reward an agent maximises: its own alone, that of its role, or that of all agents",
        branch="free",
        default="none",
    )
    imagination: ImaginationConfig

    @model_validator(mode="after")
    def _factors_are_choices(self) -> Self:
        if self.action_factors is not None and min(self.action_factors) < 2:
            raise ValueError(f"action_factors are {self.action_factors}: a part has at least 2 values, leave others out")
        return self

    @model_validator(mode="after")
    def _percentiles_in_order(self) -> Self:
        if self.return_low >= self.return_high:
            raise ValueError(f"return_low is {self.return_low}, return_high {self.return_high}: the first must be smaller")
        return self


class ReplayConfig(Section):
    """The joint replay and its samplers."""

    capacity: int = field("rows kept, first in first out; an episode of L steps fills L + 1", branch="adapt", ge=2)
    recency_decay: float = field("weight of a window a row older; 1.0: uniform (ablation of Table 5)", branch="free", gt=0, le=1)
    chunk_rows: int = field("rows in a file of a checkpoint", branch="fixed", ge=1)


class ScheduleConfig(Section):
    """When what is updated (Algorithm 2)."""

    warmup_steps: int = field("environment steps of random actions before the first update", branch="free", ge=1)
    world_model_every: int = field("environment steps a world-model update", branch="free", ge=1)
    agents_every: int = field("environment steps an actor-critic update", branch="free", ge=1)
    agents_from: int = field(
        "environment steps of random actions before the first actor-critic update, if more than warmup_steps",
        branch="free",
        ge=0,
        default=0,
    )
    batch_is_total: bool = field("batch sizes are totals over agents, not per agent", branch="free")
    acting_context: int = field("rows of the current episode that a policy sees", branch="free", ge=1)

    @property
    def random_steps(self) -> int:
        """Environment steps before policies act and learn."""
        return max(self.warmup_steps, self.agents_from)

    def per_agent(self, batch: int, num_agents: int) -> int:
        """Return each agent's share of a batch: a total over agents is shared out evenly and rounded up."""
        return -(-batch // num_agents) if self.batch_is_total else batch


class RunConfig(Section):
    """The machine's part, and what is kept of a run."""

    device: Literal["cpu", "cuda"] = field("where the networks live", branch="free")
    precision: Literal["float32", "bfloat16"] = field(
        "of matrix products in training; all else, parameters and checkpoints are float32", branch="free", default="float32"
    )
    cuda_graphs: bool = field(
        "launch updates and acting as CUDA graphs; policies draw otherwise, since contexts are padded", branch="free", default=False
    )
    threads: int = field("threads of torch on the CPU", branch="free", ge=1, le=1024)
    save_interval: int = field("environment steps a checkpoint", branch="free", shapes=False, ge=1)
    metrics_interval: int = field("environment steps a point of the training metrics (means over the interval)", branch="free", ge=1)

    @model_validator(mode="after")
    def _graphs_are_of_cuda(self) -> Self:
        if self.cuda_graphs and self.device != "cuda":
            raise ValueError(f"cuda_graphs is true, but device is {self.device}: set device to cuda, or cuda_graphs to false")
        return self


class RetentionConfig(Section):
    """What is kept of a segment's checkpoints: whatever one of the three keeps, the last one, and those that other segments start from."""

    keep_last: int | None = field("newest checkpoints to keep; null: all", branch="free", shapes=False, ge=0)
    keep_every: int | None = field(
        "environment steps; the first checkpoint at or beyond each multiple is kept; null: none", branch="free", shapes=False, ge=1
    )
    keep_best: int = field(
        "checkpoints to keep with the best mean return of the objective's role in the latest training episodes",
        branch="free",
        shapes=False,
        ge=0,
    )


class EvaluationConfig(Section):
    """How a checkpoint is judged."""

    episodes: int = field("whole episodes a match-up", branch="free", shapes=False, ge=2)
    seed: int = field("environment seed of the first episode; the others follow", branch="free", shapes=False, ge=0, lt=2**31)
    modes: list[Literal["sampled", "greedy"]] = field("how policies choose actions", branch="free", shapes=False, min_length=1)
    interval: int = field("environment steps an evaluation inside training; 0: none", branch="free", shapes=False, ge=0)
    gif: bool = field("draw one episode as an animated GIF", branch="free", shapes=False)
    objective: str | None = field(
        "what the best checkpoint and run are found by: a role in a match-up (`learned_v_random/adversary`) or a metric (`win`); with "
        "`min ` before it less is better; null: the scenario's own",
        branch="free",
        shapes=False,
        default=None,
    )

    @model_validator(mode="after")
    def _objective_can_be_read(self) -> Self:
        if self.objective is not None:
            scenarios.objective.parse(self.objective)
        return self

    @model_validator(mode="after")
    def _modes_differ(self) -> Self:
        if len(set(self.modes)) < len(self.modes):
            raise ValueError(f"modes are {self.modes}: name each once")
        return self

    @model_validator(mode="after")
    def _seeds_have_32_bits(self) -> Self:
        if self.seed + self.episodes > 2**31:
            raise ValueError(
                f"seed is {self.seed}, episodes {self.episodes}: the seed of the last one, their sum less 1, must be below 2**31"
            )
        return self


class TrackingConfig(Section):
    """What is told to MLflow and to the terminal."""

    experiment: str = field("MLflow experiment", branch="free", shapes=False, min_length=1)
    upload_seconds: float = field("seconds between batches of metrics", branch="free", shapes=False, gt=0)
    progress_seconds: float = field("seconds between lines of progress without a terminal", branch="free", shapes=False, gt=0)
    push: bool = field("carry each checkpoint to the DVC remote while training", branch="free", shapes=False)
    notify: str | None = field(
        "command that is run when a training or sweep is finished, fails or diverges, with JSON on its standard input; null: none",
        branch="free",
        shapes=False,
        default=None,
        min_length=1,
    )


class SegmentConfig(Section):
    """One entry of the lineage: train from a checkpoint to a step, with changes."""

    from_: str = field("checkpoint folder to start from", branch="fixed", alias="from", min_length=1)
    until: int = field("environment step to reach", branch="free", shapes=False, ge=1, lt=10**9)
    override: dict[str, Any] = Field(default_factory=dict, description="what differs from the parent's parameters")
    keep: list[Annotated[int, Field(ge=1)]] = Field(default_factory=list, description="environment steps that stay whatever the retention")
    patience: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="end at a checkpoint when so many evaluations in a row are not better than those before them; null: never"
    )


class RangeConfig(Section):
    """What a search may draw for one parameter: one of some choices, or a number of a range."""

    choices: list[Any] | None = field("values to choose from", branch="free", shapes=False, min_length=2, default=None)
    low: Number | None = field("least value; whole, if both ends are", branch="free", shapes=False, default=None)
    high: Number | None = field("greatest value", branch="free", shapes=False, default=None)
    log: bool = field("draw evenly on a logarithmic scale", branch="free", shapes=False, default=False)

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if self.choices is not None:
            if (self.low, self.high, self.log) != (None, None, False):
                raise ValueError("there are choices and a range: leave one of them out")
            if any(value in self.choices[:number] for number, value in enumerate(self.choices)):
                raise ValueError(f"choices are {self.choices}: name each value once")
        elif self.low is None or self.high is None:
            raise ValueError("give it choices, or low and high")
        elif self.low >= self.high:
            raise ValueError(f"low is {self.low}, high {self.high}: the first must be smaller")
        elif self.log and self.low <= 0:
            raise ValueError(f"low is {self.low}, which has no logarithm: raise it above 0, or set log to false")
        return self


class SearchConfig(Section):
    """Trials whose values are drawn one after the other, by what became of those before (Optuna's TPE)."""

    space: dict[str, RangeConfig] = field("what is drawn, by the path of a parameter", branch="free", shapes=False, min_length=1)
    trials: int = field("how many trials; more of them go on with the same search", branch="free", shapes=False, ge=1, le=10_000)
    seed: int = field("seed of the draws", branch="free", shapes=False, ge=0, lt=2**63, default=0)
    startup: int = field(
        "trials that are drawn at random and not pruned, before others learn from them", branch="free", shapes=False, ge=1, default=10
    )
    prune: float | None = field(
        "share of the finished trials that a trial must not fall below where it is evaluated and saved, else it ends there; 0.5: their "
        "median; null: none is ended",
        branch="free",
        shapes=False,
        gt=0,
        lt=1,
        default=None,
    )
    parallel: int = field(
        "trials that are drawn without knowing of each other's end, and so can be trained at a time", branch="free", shapes=False, ge=1,
        le=1000, default=1,
    )  # fmt: skip


class PopulationConfig(Section):
    """Members that train side by side; at each boundary the worst quarter goes on as copies of the best, with other values."""

    size: int = field("how many members", branch="free", shapes=False, ge=2, le=1000)
    interval: int = field("environment steps from one boundary to the next", branch="free", shapes=False, ge=1)
    mutate: dict[str, Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]] = field(
        "factors by the path of a parameter: a copy, and a member at the start, has the value times one of them",
        branch="free",
        shapes=False,
        min_length=1,
    )
    seed: int = field("seed of the draws", branch="free", shapes=False, ge=0, lt=2**63, default=0)


class SweepConfig(Section):
    """Trials that differ in some values: each goes from one checkpoint to one step, as a segment does."""

    from_: str = field("checkpoint folder that every trial starts from", branch="fixed", alias="from", min_length=1)
    until: int = field("environment step that every trial reaches", branch="free", shapes=False, ge=1, lt=10**9)
    override: dict[str, Any] = Field(default_factory=dict, description="what all trials change of the parent's parameters")
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        default_factory=dict, description="values by the path of a parameter: a trial for each combination"
    )
    trials: list[Annotated[dict[str, Any], Field(min_length=1)]] = Field(
        default_factory=list, description="sets of values by path, in place of a grid or each combined with it"
    )
    seeds: list[Annotated[int, Field(ge=0, lt=2**63)]] = Field(default_factory=list, description="the same as `seed` in the grid")
    skip: list[str] = Field(default_factory=list, description="names of trials that are left out, such as one that diverges")
    keep: list[Annotated[int, Field(ge=1)]] = Field(default_factory=list, description="environment steps that stay in every trial")
    patience: Annotated[int, Field(ge=1)] | None = Field(default=None, description="as of a segment, for every trial")
    search: SearchConfig | None = Field(default=None, description="draw the trials one after the other, in place of grid, trials and seeds")
    population: PopulationConfig | None = Field(default=None, description="let the worst members copy the best, in place of the others")

    @property
    def is_decided(self) -> bool:
        """Whether its trials become known while they are trained."""
        return self.search is not None or self.population is not None


class Config(Section):
    """Everything that params.yaml says about an experiment, but its segments and sweeps."""

    seed: int = field("seed of every random stream", branch="free", ge=0, lt=2**63)
    env: EnvConfig
    world_model: WorldModelConfig
    actor_critic: ActorCriticConfig
    replay: ReplayConfig
    schedule: ScheduleConfig
    run: RunConfig
    retention: RetentionConfig
    evaluation: EvaluationConfig
    tracking: TrackingConfig

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        if problems := list(self._misfits()):
            raise ValueError("\n".join(problems))
        return self

    def _misfits(self) -> Iterator[str]:
        wm = self.world_model
        for path, part in (("world_model", wm), ("world_model.teammates", wm.teammates)):
            if part.hidden_size % part.heads:
                yield f"{path}.hidden_size is {part.hidden_size}, which {path}.heads = {part.heads} does not divide"
        if wm.latent_code == "ordinal" and not wm.unimix:
            yield "world_model.unimix is 0, but classes of ordinal latents would become impossible then, and their KL infinite: use 0.001"
        for path, rows in (
            ("world_model.window_length", wm.window_length),
            ("schedule.acting_context", self.schedule.acting_context),
        ):
            if rows > wm.max_positions:
                yield f"{path} is {rows}, more than world_model.max_positions = {wm.max_positions}"
        yield from self._misfits_of_mates()
        if self.env.num_agents is not None:
            yield from self.team_misfits(self.env.num_agents)
        if self.schedule.acting_context > self.replay.capacity:
            yield (
                f"schedule.acting_context is {self.schedule.acting_context}, more than replay.capacity = {self.replay.capacity} rows hold: "
                "a resumed policy could not see what it had seen"
            )
        if self.schedule.warmup_steps < wm.window_length:
            yield (
                f"schedule.warmup_steps is {self.schedule.warmup_steps}, less than world_model.window_length = {wm.window_length}: "
                "the first update would find no whole window"
            )

    def _misfits_of_mates(self) -> Iterator[str]:
        wm, ac, imagination = self.world_model, self.actor_critic, self.actor_critic.imagination
        joint = {
            "world_model.dynamics_reads": wm.dynamics_reads,
            "world_model.reward_reads": wm.reward_reads,
            "actor_critic.critic_reads": ac.critic_reads,
            "actor_critic.team_reward": ac.team_reward,
        }
        if not imagination.is_joint:
            for path, value in joint.items():
                if value not in ("own", "none"):
                    yield f"{path} is {value}, but actor_critic.imagination.mates is absent: set that to imagined or predicted"
        if wm.reward_reads == "joint" and wm.reward_input == "hidden":
            yield "world_model.reward_reads is joint, but world_model.reward_input is hidden: set that to arrival"
        if imagination.opponents_predicted and imagination.mates != "imagined":
            yield (
                f"actor_critic.imagination.opponents_predicted is {imagination.opponents_predicted}, but "
                f"actor_critic.imagination.mates is {imagination.mates}: set that to imagined, or opponents_predicted to 0.0"
            )
        if (imagination.mates == "predicted" or imagination.opponents_predicted) and not wm.teammates.enabled:
            yield (
                "actor_critic.imagination draws agents' actions from the teammate predictor, but world_model.teammates.enabled is false: "
                "set that to true, or mates to imagined and opponents_predicted to 0.0"
            )

    def team_misfits(self, num_agents: int) -> Iterator[str]:
        """Yield a sentence for each value that does not suit a team of this size.

        Where only the environment knows the size, whoever makes the environment asks.
        """
        wm, imagination = self.world_model, self.actor_critic.imagination
        rows = imagination.context_length + imagination.regime(num_agents).horizon
        if rows > wm.max_positions:
            yield (
                f"actor_critic.imagination: context_length + horizon is {rows}, more than world_model.max_positions = {wm.max_positions}"
            )
        rows = self.schedule.per_agent(wm.windows, num_agents) * wm.window_length
        if rows > self.replay.capacity:
            yield (
                f"world_model.windows = {wm.windows} of world_model.window_length = {wm.window_length} rows need {rows} rows an agent, "
                f"more than replay.capacity = {self.replay.capacity} can hold: lower them or raise the capacity"
            )

    def regime(self, num_agents: int) -> Regime:
        """Return the imagined batch and horizon for a team of this size."""
        return self.actor_critic.imagination.regime(num_agents)

    @property
    def objectives(self) -> tuple[scenarios.Objective, ...]:
        """What runs are judged by, the first counts where one must: `evaluation.objective`, else the scenario's; there may be none."""
        chosen = self.evaluation.objective
        return (scenarios.objective.parse(chosen),) if chosen else scenarios.objectives(self.env.family, self.env.name)

    def resolved(self) -> dict[str, Any]:
        """Return all values as plain data, by their names in params.yaml."""
        return self.model_dump(mode="json", by_alias=True)

    def shaping(self) -> dict[str, Any]:
        """Return only the values that shape training (nested as in params.yaml), of younger fields those that are not the default."""
        return _nested((path, value) for path, value, marks in leaves(self) if marks["shapes"] and value != marks.get("default", self))

    def shaped_by(self, shaping: Mapping[str, Any]) -> dict[str, Any]:
        """Return all values as plain data, those that shape training from what `shaping` gave for a checkpoint."""
        defaults = _nested((path, marks["default"]) for path, _, marks in leaves(self) if marks["shapes"] and "default" in marks)
        return merge(merge(self.resolved(), defaults), shaping)


def _nested(values: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return values at dotted paths as sections."""
    sections: dict[str, Any] = {}
    for path, value in values:
        *above, name = path.split(".")
        node = sections
        for key in above:
            node = node.setdefault(key, {})
        node[name] = value
    return sections


def leaves(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield (path, plain value, marks) of every field that is no section itself; lists count as one value."""
    values = section.model_dump(mode="json", by_alias=True)
    for name, info in type(section).model_fields.items():
        key = info.alias or name
        child = getattr(section, name)
        if isinstance(child, BaseModel):
            yield from leaves(child, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", values[key], dict(info.json_schema_extra or {})  # type: ignore[arg-type]


def merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `override` in place, section by section; lists and `env.options` count as one value."""
    merged = dict(base)
    for key, value in override.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping) and key != "options"
        merged[key] = merge(merged[key], value) if both else value
    return merged
