"""Trains the world model alone on fixed play and prints what it then predicts: `.venv/bin/python benchmarks/fixed_play.py simple_tag_v3 …`.

Two settings are compared on the same rows and the same number of updates in a minute each, without the luck of policies that
learn. In each episode every agent prefers some actions, drawn from a Dirichlet distribution: that visits far more than
uniform play does; fresh episodes of a policy that has not learned anything judge it. With `--play CHECKPOINT` it is the
replay of that training, judged on fresh episodes of its policies.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int

sys.path.insert(0, str(Path(__file__).parents[1]))  # As a script, Python finds this folder only.

from benchmarks.learn.diagnosis import learner_of, open_loop, whole_windows
from benchmarks.learn.fresh import Fresh, play
from benchmarks.learn.plan import Judging, make_plan
from benchmarks.measuring import at_least, refuse
from matwm.acting import EpisodeContext
from matwm.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from matwm.errors import run_program
from matwm.learner import Learner
from matwm.rng import generator_for, seed_torch
from matwm.trainer import Trainer, build_trainer

SHOWN_STEPS = (0, 1, 3, 8)
EPISODES, FIRST_SEED = 200, 40_000


def collect(trainer: Trainer, rows: int) -> None:
    """Fill the replay with episodes in which each agent has its own taste."""
    seed, collector = trainer.config.seed, trainer.collector

    def choose(context: EpisodeContext, mask: Bool[np.ndarray, "E N A"]) -> Int[np.ndarray, "E N"]:
        taste = generator_for(seed, "fixed play/taste", collector.num_episodes).dirichlet(np.full(mask.shape[-1], 0.5), mask.shape[1])
        draw = generator_for(seed, "fixed play/action", len(trainer.replay))
        weights = np.where(mask[0], taste + 1e-9, 0.0)
        return np.array([[draw.choice(len(w), p=w / w.sum()) for w in weights]])

    for step in range(1, rows + 1):
        collector.step(choose, env_step=step)


def replayed(trainer: Trainer, checkpoint: Checkpoint) -> Fresh:
    """Fill the replay with that of a checkpoint; return fresh episodes of its policies.

    Raises:
        CheckpointError: its environment or replay is not the trainer's, or no window fits into its replay.
    """
    if checkpoint.spec != trainer.spec:
        raise CheckpointError(
            f"{checkpoint.path} was trained on {checkpoint.spec.name}, which is not what is to be played: {trainer.spec.name}"
        )
    parts = checkpoint.load()
    try:
        trainer.replay.load_state_dict(parts["replay"])
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.path} does not fit the configuration: {error}") from error
    rows, length = len(trainer.replay), trainer.config.world_model.window_length
    if rows < length:
        raise CheckpointError(
            f"{checkpoint.path} holds {rows} rows of play, less than world_model.window_length = {length}: name a later one"
        )
    return fresh_play(learner_of(checkpoint, parts))


def fresh_play(learner: Learner) -> Fresh:
    """Return the episodes that judge."""
    config = learner.config
    return play(learner, config.env, episodes=EPISODES, first_seed=FIRST_SEED, acting_context=config.schedule.acting_context)


def train(trainer: Trainer, updates: int) -> float:
    """Update the world model alone; return CPU seconds an update."""
    config, rng = trainer.config, generator_for(trainer.config.seed, "fixed play/windows", 0)
    began = time.process_time()
    for update in range(updates):
        seed_torch(config.seed, "fixed play/update", update)
        windows, _ = trainer.sample_windows(rng)
        trainer.learner.update_world_model(windows)
    return (time.process_time() - began) / updates


def judge(trainer: Trainer, fresh: Fresh | None) -> dict[str, float]:
    """Return errors of observations by open-loop step, how rewards are predicted, and losses on whole episodes."""
    learner = trainer.learner
    learner.world_model.eval()
    fresh = fresh or fresh_play(learner)
    steps = open_loop(learner, fresh, FIRST_SEED)
    every = list(range(trainer.spec.num_agents))
    found = {f"error after {k}": steps[k].numbers(every)["observation"] for k in SHOWN_STEPS if k < len(steps)}
    after_one = steps[1].numbers(every)
    found |= {name: after_one[name] for name in ("rare: predicted", "rare: real", "reward correlation")}
    return found | whole_windows(learner, fresh, FIRST_SEED)


def main() -> None:
    """Print the figures of one setting."""
    parser = argparse.ArgumentParser(description="Train the world model alone on fixed play, and judge it.")
    parser.add_argument("scenario", help="for example simple_tag_v3")
    parser.add_argument("--preset", default="cpu-small")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="another value; repeat it")
    parser.add_argument("--play", type=Path, help="a checkpoint, whose replay and policies are used")
    parser.add_argument("--rows", type=int, default=6000, help="environment steps of play (%(default)s)")
    parser.add_argument("--updates", type=int, default=1500, help="(%(default)s)")
    options = parser.parse_args()
    at_least("--updates", options.updates, 1)
    config = make_plan("fixed_play", options.preset, options.scenario, 0, 1, options.set, Judging(2, 0, 2)).config
    trainer = build_trainer(config)
    if trainer.spec.image_shape:
        refuse(f"agents of {options.scenario} see images, and what is judged here are entries of vectors: name another scenario")
    if options.play:
        fresh = replayed(trainer, open_checkpoint(options.play))
    else:
        at_least("--rows", options.rows, config.world_model.window_length)
        fresh = collect(trainer, options.rows)
    seconds = train(trainer, options.updates)
    print(f"{options.scenario} {' '.join(options.set)}: {options.updates} updates of {seconds * 1e3:.1f} CPU ms")
    with torch.no_grad():
        for name, value in judge(trainer, fresh).items():
            print(f"  {name:<42}{value:>8.3f}")


if __name__ == "__main__":
    raise SystemExit(run_program(main))
