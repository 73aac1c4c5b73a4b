"""`matwm eval R@S`: what each role gets in whole episodes with a checkpoint's agents, against themselves, scripts or another checkpoint."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matwm.checkpoint import Checkpoint, read_manifest
from matwm.errors import UserError
from pipeline import project as places
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.checkpoints import Checkpoints
from pipeline.catalog.references import REFERENCE, REFERENCE_HELP
from pipeline.commands.table import table

if TYPE_CHECKING:  # Importing torch takes seconds.
    from matwm.config import EnvConfig
    from matwm.envs.scripted import LineUp
    from matwm.evaluation import Guest, Result
    from matwm.policy import Networks

INTERVAL = 1.96
"""Standard errors to each side of a mean within which the true one lies 95 times of 100."""
RIVAL = "rival"
COLUMNS = ["match-up", "role", "return", "std. error", "95 % interval", "median", "played by"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("checkpoint", metavar=f"{REFERENCE}|DIR", help=REFERENCE_HELP)
    parser.add_argument("--episodes", type=_two_or_more, default=100, metavar="N", help="of each match-up (default: 100)")
    parser.add_argument("--against", metavar="SCRIPT|RUN@STEP", help="who plays the other side: random, another script, or a checkpoint")
    parser.add_argument("--mode", choices=("sampled", "greedy"), default="sampled", help="how policies act (default: sampled)")
    parser.add_argument("--seed", type=int, default=10000, help="of the first episode (default: 10000)")
    parser.add_argument("--json", action="store_true", help="as one object")


def run(options: argparse.Namespace) -> int:
    """Evaluate; without --against all agents are the checkpoint's.

    With --json: `{"run_id", "step", "digest", "mode", "seed", "episodes", "against" (as it was given, or null), "matchups" [{"matchup",
    "roles" {role: {"is_learned", "mean", "stderr", "interval" [low, high], "median", "std", "min", "max"}}, "metrics" (likewise)}]}`.

    Raises:
        ProjectError: there is no such run or step.
        CheckpointError: one is damaged.
        UserError: nobody can play so in this environment.
    """
    from matwm.envs.output import stdout_aside

    project = places.root()
    places.make_importable(project)
    with places.scratch_folder(project) as scratch, stdout_aside():
        checkpoints = Checkpoints(Catalog(project))
        target = checkpoints.target(options.checkpoint)
        checkpoint = read_manifest(target.first().whole(scratch / "judged"))
        results = _results(options, checkpoint, checkpoints, scratch)
    document = {
        "run_id": target.run.run_id if target.run else None,
        "step": checkpoint.step,
        "digest": checkpoint.digest,
        **{name: getattr(options, name) for name in ("mode", "seed", "episodes", "against")},
        "matchups": [_told(result) for result in results],
    }
    sys.stdout.write(json.dumps(document, indent=2) + "\n" if options.json else _drawn(document))
    return 0


def _results(options: argparse.Namespace, checkpoint: Checkpoint, checkpoints: Checkpoints, scratch: Path) -> "list[Result]":
    from matwm.envs.scripted import LineUp, sides
    from matwm.evaluation import evaluate
    from matwm.policy import load_networks

    networks = load_networks(checkpoint)
    guests, line_ups = {}, [LineUp((None,) * len(sides(networks.env)))]
    if options.against:
        guest = _guest(options, networks, checkpoints, scratch)
        guests = {RIVAL: guest} if guest else {}
        line_ups = _line_ups(networks.env, RIVAL if guest else options.against)
    return evaluate(
        networks.world_model,
        networks.actors,
        networks.env,
        episodes=options.episodes,
        first_seed=options.seed,
        modes=[options.mode],
        acting_context=networks.acting_context,
        against=line_ups,
        guests=guests,
    )


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


def _guest(options: argparse.Namespace, networks: "Networks", checkpoints: Checkpoints, scratch: Path) -> "Guest | None":
    """Return the checkpoint to play against; None where it is a script."""
    from matwm.evaluation import Guest
    from matwm.policy import load_networks

    known = sorted({tactic for side in _tactics(networks.env) for tactic in side})
    if options.against in known:
        return None
    try:
        rival = load_networks(read_manifest(checkpoints.target(options.against).first().whole(scratch / RIVAL)))
    except places.ProjectError as error:
        raise UserError(
            f"{options.against!r} is no script of {networks.env.name} ({', '.join(known)}), and as a checkpoint: {error}"
        ) from None
    if rival.spec != networks.spec:
        raise UserError(f"{options.against} was trained in {rival.spec.name} with other agents, sizes or actions than {options.checkpoint}")
    return Guest(rival.world_model, rival.actors, rival.acting_context, greedy=options.mode == "greedy")


def _told(result: "Result") -> dict[str, Any]:
    roles = {
        role: {"is_learned": set(numbers) <= set(result.learned), **_summary(result.roles[role])}
        for role, numbers in result.spec.roles().items()
    }
    return {"matchup": result.matchup, "roles": roles, "metrics": {name: _summary(one) for name, one in result.metrics.items()}}


def _summary(summary: Any) -> dict[str, Any]:
    told = dataclasses.asdict(summary)
    half = INTERVAL * summary.stderr
    return {**told, "interval": [summary.mean - half, summary.mean + half]}


def _drawn(document: dict[str, Any]) -> str:
    rows = [COLUMNS]
    for matchup in document["matchups"]:
        for role, one in matchup["roles"].items():
            rows.append([matchup["matchup"], role, *_numbers(one), "checkpoint" if one["is_learned"] else document["against"]])
        rows += [[matchup["matchup"], name, *_numbers(one), ""] for name, one in matchup["metrics"].items()]
    first = f"step {document['step']}, {document['episodes']} episodes of each match-up from seed {document['seed']}, {document['mode']}"
    return f"{first}\n{table(rows)}"


def _numbers(one: dict[str, Any]) -> list[str]:
    low, high = one["interval"]
    return [f"{one['mean']:.2f}", f"{one['stderr']:.2f}", f"{low:.2f} to {high:.2f}", f"{one['median']:.2f}"]


def _two_or_more(text: str) -> int:
    if not text.isdigit() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 2: a standard error needs two episodes")
    return int(text)
