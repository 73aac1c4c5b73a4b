"""Seats whom a person names at an environment: a checkpoint's agents, scripts, another checkpoint."""

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matwm.checkpoint import Checkpoint, read_manifest
from matwm.errors import UserError
from pipeline import project as places
from pipeline.catalog.checkpoints import Checkpoints
from pipeline.run import Run

if TYPE_CHECKING:  # Importing torch takes seconds.
    from matwm.config import EnvConfig
    from matwm.envs.scripted import LineUp
    from matwm.evaluation import Guest, Result
    from matwm.policy import Networks

RIVAL = "rival"
"""The tactic of the side that another checkpoint plays."""
AGAINST_HELP = "who plays the other side: random, another script, or a checkpoint"


@dataclass(frozen=True)
class Player:
    """A checkpoint whose agents play."""

    label: str
    """What it is called on screen and in tables: RUN@STEP as it was named, with the number of the step."""
    run: Run | None
    checkpoint: Checkpoint
    networks: "Networks"

    def guest(self, *, is_greedy: bool) -> "Guest":
        """Return its agents to be played against."""
        from matwm.evaluation import Guest

        networks = self.networks
        return Guest(networks.world_model, networks.actors, networks.acting_context, greedy=is_greedy)

    @property
    def metric_name(self) -> str:
        """What it is called in the names of metrics, which have no @: by run and step, else by its digest."""
        if self.run and self.run.run_id:
            return f"{self.run.run_id[:12]}_step_{self.checkpoint.step}"
        return f"digest_{self.checkpoint.digest[:12]}"


@dataclass(frozen=True)
class Matchups:
    """Line-ups in which a checkpoint's agents learn, and who else plays in them."""

    learned: Player
    line_ups: "list[LineUp]"
    rival: Player | None = None

    def evaluate(self, options: argparse.Namespace, line_ups: "Sequence[LineUp] | None" = None, **watching: Any) -> "list[Result]":
        """Play line-ups (default: all) as `options` say: `episodes`, `seed` and `mode`. `watching` goes to `matwm.evaluation.evaluate`."""
        from matwm.evaluation import evaluate

        networks = self.learned.networks
        return evaluate(
            networks.world_model,
            networks.actors,
            networks.env,
            episodes=options.episodes,
            first_seed=options.seed,
            modes=[options.mode],
            acting_context=networks.acting_context,
            against=self.line_ups if line_ups is None else line_ups,
            guests={RIVAL: self.rival.guest(is_greedy=options.mode == "greedy")} if self.rival else {},
            **watching,
        )

    def metric_name(self, line_up: "LineUp") -> str:
        """Return what a line-up is called in the names of metrics: the rival by its own name."""
        from matwm.evaluation import matchup_name

        named = tuple(self.rival.metric_name if self.rival and tactic == RIVAL else tactic for tactic in line_up.tactics)
        return matchup_name(dataclasses.replace(line_up, tactics=named))


def player(text: str, checkpoints: Checkpoints, scratch: Path) -> Player:
    """Return the checkpoint that somebody named; `scratch` gets what is brought from a server.

    Raises:
        ProjectError: there is no such run or step.
        CheckpointError: it is damaged.
    """
    from matwm.policy import load_networks

    target = checkpoints.target(text)
    copy = target.first()
    checkpoint = read_manifest(copy.whole(scratch))
    name = text.partition("@")[0][:12] if copy.store else checkpoint.path.parent.name
    return Player(f"{name}@{checkpoint.step}", target.run, checkpoint, load_networks(checkpoint))


def matchups(of: Player, against: str | None, checkpoints: Checkpoints, scratch: Path) -> Matchups:
    """Return self-play, or each side of a scenario in turn against a script or another checkpoint.

    Raises:
        ProjectError, CheckpointError: the other checkpoint is not to be had.
        UserError: nobody can play so in this environment.
    """
    from matwm.envs.scripted import LineUp, sides

    env = of.networks.env
    if against is None:
        return Matchups(of, [LineUp((None,) * len(sides(env)))])
    rival = _rival(of, against, checkpoints, scratch)
    line_ups = _line_ups(env, RIVAL if rival else against)
    return Matchups(of, line_ups, rival)


def check_alike(one: Player, other: Player) -> None:
    """Refuse two checkpoints that cannot sit at one environment.

    Raises:
        UserError: they were trained with other agents, sizes or actions.
    """
    if one.networks.spec != other.networks.spec:
        raise UserError(f"{other.label} was trained in {other.networks.spec.name} with other agents, sizes or actions than {one.label}")


def _rival(of: Player, against: str, checkpoints: Checkpoints, scratch: Path) -> Player | None:
    """Return the checkpoint to play against; None where it is a script."""
    env = of.networks.env
    known = sorted({tactic for side in _tactics(env) for tactic in side})
    if against in known:
        return None
    try:
        rival = player(against, checkpoints, scratch / RIVAL)
    except places.ProjectError as error:
        raise UserError(f"{against!r} is no script of {env.name} ({', '.join(known)}), and as a checkpoint: {error}") from None
    check_alike(of, rival)
    return rival


def _tactics(env: "EnvConfig") -> list[list[str]]:
    """Return what scripts each side can play."""
    from matwm.envs.scripted import references

    return [list(dict.fromkeys(str(tactic) for tactic in column)) for column in zip(*(one.tactics for one in references(env)), strict=True)]


def _line_ups(env: "EnvConfig", tactic: str) -> "list[LineUp]":
    """Return the line-ups in which one side learns and all others play a tactic."""
    from matwm.envs.scripted import LineUp

    tactics = _tactics(env)
    if len(tactics) < 2:
        raise UserError(f"all agents of {env.name} are one side: there is nobody to play against, so leave --against out")
    found: list[LineUp] = []
    for judged in range(len(tactics)):
        others = [known for side, known in enumerate(tactics) if side != judged]
        if tactic == RIVAL or all(tactic in known for known in others):
            found.append(LineUp(tuple(None if side == judged else tactic for side in range(len(tactics)))))
    if not found:
        raise UserError(f"{tactic} cannot play all sides but one of {env.name}: they can play {' / '.join(map(', '.join, tactics))}")
    return found
