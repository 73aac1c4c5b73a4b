"""The Python interface for notebooks and scripts: train, go on from a checkpoint, and play with what was trained."""

import contextlib
import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from matwm.actor_critic import Actors
from matwm.changes import changes
from matwm.checkpoint import Checkpoint, Parent, open_checkpoint
from matwm.config import Config, ConfigError, merge
from matwm.manifest import ROOT
from matwm.params_yaml import parse_config, parse_segments, read_params
from matwm.policy import Networks, Policy
from matwm.store import LocalStore
from matwm.trainer import Trainer, build_trainer
from matwm.version import NUMERICS

_log = logging.getLogger(__name__)


class TrainingResult(NamedTuple):
    """What a training run leaves in memory; histories reach back along the whole lineage."""

    agents: dict[str, Policy]
    """Every agent by name, ready to act."""
    episode_returns: dict[str, list[float]]
    """Each agent's return of every finished episode."""
    metrics: dict[str, list[tuple[int, float]]]
    """Training curves: (environment step, value), means over `run.metrics_interval` steps."""


def train(
    config: Config | Mapping[str, Any] | str | Path,
    resume_from: str | Path | None = None,
    *,
    until: int | None = None,
    checkpoint_dir: str | Path | None = None,
) -> TrainingResult:
    """Train to environment step `until`, from the start or from a checkpoint directory.

    `config` is a `Config`, the contents of a params.yaml, or its path; of the latter two the first segment's `until` is the
    default, and its `override` counts. With `checkpoint_dir`, a checkpoint is saved there every `run.save_interval` steps and at
    the end. Interrupted and continued, a run ends bit for bit where an uninterrupted one does, unless its environment's class of resume
    is "episode" (matwm/types.py).

    Torch's deterministic algorithms, number of threads and flushing of denormals are set for the whole process. With
    `run.threads` above 1 the promise needs a process in which torch has computed nothing before: threads that it started
    earlier do not flush.

    Raises:
        ConfigError: the configuration is wrong, or changes what the checkpoint fixes.
        CheckpointError: `resume_from` is no sound checkpoint.
        NonFiniteLossError: training diverged; the message names the term and the step. Saved checkpoints stay.
    """
    settings, end = _read(config)
    end = until if until is not None else end
    if end is None:
        raise ConfigError(["until is missing: say to which environment step to train"])
    if type(end) is not int:
        raise ConfigError([f"until is {end!r}, which is no whole number: say to which environment step to train"])
    start = None if resume_from is None else open_checkpoint(resume_from)
    if start is not None:
        _check_fits(settings, start)
        if start.manifest["numerics"] != NUMERICS:
            _log.warning(
                "%s was trained by numerics %d, this code has %d: it goes on otherwise", start.path, start.manifest["numerics"], NUMERICS
            )
    if end <= (0 if start is None else start.step):
        raise ConfigError([f"until is {end}, which is not beyond step {0 if start is None else start.step} where training starts"])
    with contextlib.closing(build_trainer(settings)) as trainer:
        if start is not None:
            trainer.resume(start)
        store = None if checkpoint_dir is None else LocalStore(checkpoint_dir)
        parent = ROOT if start is None else Parent(start.step, start.digest)
        while trainer.env_step < end:
            trainer.step()
            trainer.drain()
            if store is not None and (trainer.env_step == end or trainer.env_step % settings.run.save_interval == 0):
                trainer.save(store, parent)
        trainer.parts()  # A GPU may have diverged since anybody looked: this asks.
        return _result(trainer)


def _read(config: Config | Mapping[str, Any] | str | Path) -> tuple[Config, int | None]:
    """Return the configuration, and the first segment's `until` if there are segments."""
    if isinstance(config, Config):
        return config, None
    data, source = (config, "config") if isinstance(config, Mapping) else (read_params(config), str(config))
    if "segments" not in data:
        return parse_config(data, source=source), None
    first = next(iter(parse_segments(data, source=source).values()))
    return parse_config(merge(data, first.override), source=source), first.until


def _check_fits(config: Config, start: Checkpoint) -> None:
    """Refuse to go on with another environment or other networks than the checkpoint's."""
    before = parse_config(config.shaped_by(start.config))
    problems = [
        f"{change.path} is {change.after!r}, but {start.path} was trained with {change.before!r}: training cannot go on with another value"
        for change in changes(before, config)
        if change.branch == "fixed"
    ]
    if problems:
        raise ConfigError(problems)


def _result(trainer: Trainer) -> TrainingResult:
    config, spec, learner = trainer.config, trainer.spec, trainer.learner
    world_model = copy.deepcopy(learner.world_model).cpu().eval().requires_grad_(requires_grad=False)
    agents: dict[str, Policy] = {}
    for number, name in enumerate(spec.agents):
        actors = Actors(1, world_model.feature_size, spec.action_size, config.actor_critic)
        actors.load_state_dict(learner.policy(number))
        networks = Networks(config.env, spec, world_model, actors.eval(), config.schedule.acting_context)
        agents[name] = Policy(networks, number, seed=config.seed)
    episodes = trainer.history.episodes
    returns = {name: [episode.returns[number] for episode in episodes] for number, name in enumerate(spec.agents)}
    return TrainingResult(agents, returns, {key: list(points) for key, points in trainer.history.metrics.items()})
