"""Trains: Algorithm 2, one environment step at a time, with every bit of state in named parts."""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.utils.deterministic
from jaxtyping import Bool, Int

from matwm.acting import EpisodeContext, choose_actions, decide, in_memory, legal_on, random_actions
from matwm.batches import Windows
from matwm.checkpoint import Checkpoint, Parent
from matwm.collector import Collector
from matwm.config import Config, ConfigError
from matwm.envs import make_env
from matwm.envs.episode_log import EpisodeLog
from matwm.graphs import Graphed
from matwm.history import History, Point
from matwm.learner import Learner, policy_in
from matwm.readings import NonFiniteLossError, Readings
from matwm.replay import Replay
from matwm.rng import generator_for, seed_torch
from matwm.settings import check_in_force, too_few_rows, unplayable
from matwm.stateful import State, copied, save_parts
from matwm.store import LocalStore
from matwm.types import EnvSpec


@dataclass(frozen=True)
class Snapshot:
    """Everything that a checkpoint of one step holds, whatever training does meanwhile."""

    step: int
    parts: dict[str, State]
    config: dict[str, Any]
    spec: EnvSpec
    policies: dict[str, dict[str, torch.Tensor]]

    def save(self, store: LocalStore, parent: Parent) -> Checkpoint:
        """Write the checkpoint, of the lineage that began with `parent`.

        Raises:
            CheckpointError: it cannot be written.
        """
        return store.save(self.step, self.parts, parent=parent, config=self.config, spec=self.spec, policies=self.policies)


class Trainer:
    """The training run: call `step` until `env_step` is where it should be."""

    def __init__(self, config: Config, env: EpisodeLog, replay: Replay, learner: Learner, collector: Collector) -> None:
        self.config, self.env, self.replay, self.learner, self.collector = config, env, replay, learner, collector
        self.spec = env.spec
        self.history = History()
        self.env_step = 0
        """Environment steps taken."""
        self._points: list[Point] = []
        self._unread: list[tuple[int, Readings]] = []
        self._graphed_decision = Graphed(self._decide, list) if config.run.cuda_graphs else None

    def step(self) -> None:
        """Take one environment step and the updates that are due after it (Algorithm 2).

        Raises:
            NonFiniteLossError: a loss is not finite; the message names the term and the step. A GPU is asked for losses where
                an interval of the metrics ends: the step may be an earlier one of that interval.
        """
        seed_torch(self.config.seed, "step", self.env_step)
        episode = self.collector.step(self._choose, env_step=self.env_step + 1)
        self.env_step += 1
        if episode is not None:
            self.history.episodes.append(episode)
            self.history.add({f"episode/{name}": value for name, value in episode.metrics.items()})
            values = {f"episode/return/{name}": value for name, value in zip(self.spec.agents, episode.returns, strict=True)}
            values["episode/length"] = float(episode.length)
            self._points += [Point(key, self.env_step, value) for key, value in values.items()]
        if self.env_step >= self.config.schedule.warmup_steps:
            try:
                self._update()
            except NonFiniteLossError as error:
                raise NonFiniteLossError(error.term, self.env_step) from None
        if self.env_step % self.config.run.metrics_interval == 0:
            self._read()
            self._points += self.history.close_interval(self.env_step)

    def close(self) -> None:
        """Let the environment close what it holds: no step can follow."""
        self.env.close()

    def drain(self) -> list[Point]:
        """Return the points of all curves since the last call."""
        points, self._points = self._points, []
        return points

    def parts(self) -> dict[str, State]:
        """Return everything that a checkpoint holds: the only list of it.

        Raises:
            NonFiniteLossError: training on a GPU has diverged, which nobody had looked at yet.
        """
        self._read()
        own = save_parts({"replay": self.replay, "collector": self.collector, "history": self.history})
        progress: State = {"env_step": self.env_step, "collector": own["collector"]}
        return {**self.learner.parts(), "replay": own["replay"], "progress": progress, "history": own["history"]}

    def load(self, parts: Mapping[str, State]) -> None:
        """Continue from the parts of a checkpoint, by this configuration's values.

        Raises:
            ValueError: they do not fit this configuration, or would overrule it.
        """
        progress: Any = parts["progress"]
        self.learner.load(parts)
        self.replay.load_state_dict(parts["replay"])
        self.env_step = progress["env_step"]
        self.collector.load_state_dict(progress["collector"])
        self.history.load_state_dict(parts["history"])
        self._points, self._unread = [], []
        check_in_force(self.config, self.learner, self.replay, self.collector)
        if problem := too_few_rows(self.config, self.env_step, len(self.replay)):
            raise ValueError(problem)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint; one of an environment that says only by now that no episode comes back is given up within it.

        Raises:
            CheckpointError: a file is absent or damaged.
            ValueError: it does not fit this configuration, or its environment has other agents or sizes, or them in another order.
        """
        is_lost = (checkpoint.spec.resume, self.spec.resume) == ("replay", "episode")
        if (replace(checkpoint.spec, resume="episode") if is_lost else checkpoint.spec) != self.spec:
            raise ValueError(
                f"it was trained with {checkpoint.spec}, but the environment is {self.spec} here: use the same package versions"
            )
        self.load(checkpoint.load())
        if self.env_step != checkpoint.step:
            raise ValueError(f"it is called step {checkpoint.step}, but holds the state of step {self.env_step}")

    def save(self, store: LocalStore, parent: Parent) -> Checkpoint:
        """Write a checkpoint of the present step, of the lineage that began with `parent`.

        Raises:
            CheckpointError: it cannot be written.
        """
        return self.snapshot().save(store, parent)

    def snapshot(self) -> Snapshot:
        """Return the state of now, which can be saved later, from another thread, while training goes on.

        Weights and moments are copied; histories and replay need not be: they only grow, or copy before they overwrite.
        """
        parts = self.parts()
        parts |= {name: copied(parts[name]) for name in self.learner.parts()}
        policies = {name: policy_in(parts["agents"], number) for number, name in enumerate(self.spec.agents)}
        return Snapshot(self.env_step, parts, self.config.shaping(), self.spec, policies)

    def policies(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return each agent's actor by name."""
        return {name: self.learner.policy(number) for number, name in enumerate(self.spec.agents)}

    def sample_windows(self, rng: np.random.Generator) -> tuple[Windows, dict[str, float]]:
        """Draw the windows of one update of the world model, and say what to log of them."""
        config = self.config
        each = config.schedule.per_agent(config.world_model.windows, self.spec.num_agents)
        together = config.world_model.reads_mates_latents
        return self.replay.sample_windows(rng, per_agent=each, length=config.world_model.window_length, together=together)

    def sample_contexts(self, rng: np.random.Generator) -> Windows:
        """Draw the contexts from which agents imagine for one update."""
        config, num_agents = self.config, self.spec.num_agents
        imagination = config.actor_critic.imagination
        each = config.schedule.per_agent(config.regime(num_agents).starts, num_agents)
        needed = None
        if imagination.mates == "predicted":  # At each moment one agent alone acts by its policy: it must be there.
            needed = np.repeat(np.arange(num_agents), each)[:, None]
            each *= num_agents
        return self.replay.sample_contexts(
            rng, per_agent=each, length=imagination.context_length, together=imagination.is_joint, needed=needed
        )

    def _choose(self, context: EpisodeContext, mask: Bool[np.ndarray, "E N A"]) -> Int[np.ndarray, "E N"]:
        if self.env_step < self.config.schedule.random_steps:
            return random_actions(generator_for(self.config.seed, "warmup", self.env_step), mask)
        if self._graphed_decision is None:
            with self.learner.products():
                return choose_actions(self.learner.world_model, self.learner.actors, context, mask, greedy=False)
        device = self.learner.device
        windows = context.windows(self.config.schedule.acting_context).to(device)
        return in_memory(self._graphed_decision(legal=legal_on(device, mask), **vars(windows)))

    def _decide(self, *, legal: Bool[torch.Tensor, "N E A"], **windows: torch.Tensor) -> Int[torch.Tensor, "N E"]:
        with self.learner.products():  # Here, so that rounded weights are made anew by every launch.
            return decide(self.learner.world_model, self.learner.actors, Windows(**windows), legal, greedy=False)

    def _update(self) -> None:
        config, step = self.config, self.env_step
        if step % config.schedule.world_model_every == 0:
            windows, described = self.sample_windows(generator_for(config.seed, "replay/windows", step))
            self._log(self.learner.update_world_model(windows))
            self.history.add({f"replay/{key}": value for key, value in {**described, "rows": float(len(self.replay))}.items()})
        if step % config.schedule.agents_every == 0 and step >= config.schedule.random_steps:
            contexts = self.sample_contexts(generator_for(config.seed, "replay/contexts", step))
            self._log(self.learner.update_agents(contexts))

    def _log(self, readings: Readings) -> None:
        self._unread.append((self.env_step, readings))
        if self.learner.looks_at_once:
            self._read()

    def _read(self) -> None:
        """Take into the history what updates have logged: only here, and to act, does the host wait for a GPU."""
        while self._unread:
            step, readings = self._unread[0]
            try:
                self.history.add(readings.numbers)
            except NonFiniteLossError as error:
                raise NonFiniteLossError(error.term, step) from None
            del self._unread[0]


def build_trainer(config: Config) -> Trainer:
    """Construct everything from the configuration: the only place that does. State arrives afterwards through `load`.

    Who has it closes it when all is done.

    Raises:
        ConfigError: the environment cannot be made, or is none that this configuration can train on.
    """
    device = prepare_torch(config)
    with contextlib.ExitStack() as opened:
        env = EpisodeLog(opened.enter_context(contextlib.closing(make_env(config.env))))
        if problems := unplayable(config, env.spec):
            raise ConfigError(problems)
        replay = Replay(env.spec, config.replay, device)
        seed_torch(config.seed, "initialisation", 0)
        learner = Learner(env.spec, config, device)
        collector = Collector(env, replay, seed=config.seed, acting_context=config.schedule.acting_context)
        opened.pop_all()  # It is the trainer's.
        return Trainer(config, env, replay, learner, collector)


def prepare_torch(config: Config) -> torch.device:
    """Make torch's arithmetic repeatable on the configured device and return it.

    Raises:
        ConfigError: the device is not there.
    """
    if config.run.device == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(["run.device is cuda, but torch sees no CUDA device: set it to cpu, or install the CUDA build of torch"])
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.allow_tf32 = False  # float32 is float32; products never round by default, convolutions do
    torch.set_num_threads(config.run.threads)
    torch.set_flush_denormal(True)  # tails of softmaxes and second moments are full of them, and each costs a hundred cycles
    torch.set_deterministic_debug_mode("error")  # as use_deterministic_algorithms, which imports the compiler besides, for two seconds
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] nothing here reads memory that it has not written
    return torch.device(config.run.device)
