"""`matwm arena RUN RUN…`: each role of each checkpoint against every other checkpoint's other roles, as matrices with errors.

With sides, as in Simple Tag, a row's checkpoint plays one side and a column's the other; there is a matrix for each role. Where all
share an aim, teams are mixed: the row plays one role and the column all others (Simple Speaker Listener); with one role alone the row
plays the first agent and the column all others, and a cell is the team's mean return (Simple Spread). The diagonal is self-play.
"""

import argparse
import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matwm import durable
from matwm.errors import UserError
from pipeline import project as places
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.checkpoints import Checkpoints
from pipeline.catalog.references import REFERENCE, REFERENCE_HELP
from pipeline.commands.eval_checkpoint import two_or_more
from pipeline.commands.matchups import Player, check_alike, player
from pipeline.commands.table import table

if TYPE_CHECKING:  # Importing torch takes seconds.
    from matwm.cross_play import Matrix

COLUMNS = ("role", "player", "others", "mean", "stderr", "episodes", "seed", "mode", "player_digest", "others_digest")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = " ".join((__doc__ or "").split("\n\n", 1)[1].split())
    parser.add_argument("checkpoints", nargs="+", metavar=f"{REFERENCE}|DIR", help=f"two or more; {REFERENCE_HELP}")
    parser.add_argument("--episodes", type=two_or_more, default=50, metavar="N", help="of each match-up (default: 50)")
    parser.add_argument("--mode", choices=("sampled", "greedy"), default="sampled", help="how policies act (default: sampled)")
    parser.add_argument("--seed", type=int, default=10000, help="of the first episode (default: 10000)")
    parser.add_argument(
        "--output", metavar="NAME", default="arena", help="write NAME.png and NAME.csv (default: arena); what is there is replaced"
    )
    parser.add_argument("--json", action="store_true", help="print one object instead of tables")


def run(options: argparse.Namespace) -> int:
    """Play, write the picture and the numbers, and print them.

    With --json: `{"players" [{"name", "run_id", "step", "digest"}], "episodes", "seed", "mode", "files", "matrices" [{"role", "mean",
    "stderr"}]}`; rows and columns are in the order of `players`: row plays the role, column everybody else.

    Raises:
        ProjectError: there is no such run or step.
        CheckpointError: one is damaged.
        UserError: they cannot play together.
    """
    from matwm.cross_play import cross_play
    from matwm.envs.output import stdout_aside

    project = places.root()
    places.make_importable(project)
    with places.scratch_folder(project) as scratch, stdout_aside():
        checkpoints = Checkpoints(Catalog(project))
        players = _named([player(text, checkpoints, scratch / str(number)) for number, text in enumerate(options.checkpoints)])
        first = next(iter(players.values()))
        for other in players.values():
            check_alike(first, other)
        guests = {name: one.guest(is_greedy=options.mode == "greedy") for name, one in players.items()}
        networks = first.networks
        try:
            matrices = cross_play(networks.env, networks.spec, guests, episodes=options.episodes, first_seed=options.seed)
        except ValueError as error:
            raise UserError(str(error)) from None
    files = _written(options, players, matrices, networks.spec.name)
    document = {
        "players": [
            {"name": name, "run_id": one.run and one.run.run_id, "step": one.checkpoint.step, "digest": one.checkpoint.digest}
            for name, one in players.items()
        ],
        **{name: getattr(options, name) for name in ("episodes", "seed", "mode")},
        "files": list(map(str, files)),
        "matrices": [{"role": one.seats.name, "mean": one.mean.tolist(), "stderr": one.stderr.tolist()} for one in matrices],
    }
    sys.stdout.write(json.dumps(document, indent=2) + "\n" if options.json else _tables(document))
    return 0


def _named(players: Sequence[Player]) -> dict[str, Player]:
    """Return players by their labels, with digests where two have the same.

    Raises:
        UserError: there are not two different ones.
    """
    digests = [one.checkpoint.digest for one in players]
    for number, one in enumerate(players):
        if one.checkpoint.digest in digests[:number]:
            twin = players[digests.index(one.checkpoint.digest)]
            raise UserError(f"{one.label} is the same checkpoint as {twin.label}: name each once")
    if len(players) < 2:
        raise UserError(f'{players[0].label} is alone: name two or more checkpoints, or use "matwm eval"')
    labels = [one.label for one in players]
    return {one.label if labels.count(one.label) == 1 else f"{one.label} {one.checkpoint.digest[:6]}": one for one in players}


def _written(options: argparse.Namespace, players: dict[str, Player], matrices: "Sequence[Matrix]", scenario: str) -> list[Path]:
    """Write the picture and the numbers."""
    from pipeline.drawing import arena, figures

    picture, numbers = (Path(f"{options.output}{suffix}") for suffix in (".png", ".csv"))
    picture.parent.mkdir(parents=True, exist_ok=True)
    note = f"mean return ± standard error\nof {options.episodes} episodes from seed {options.seed}, {options.mode}"
    drawn = [(_title(one), one.mean, one.stderr) for one in matrices]
    with figures.drawing():
        durable.replace(picture, figures.png(arena.arena(f"Cross-play in {scenario}", note, list(players), drawn)))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in matrices:
        for row, (name, plays) in enumerate(players.items()):
            for column, (other, others) in enumerate(players.items()):
                values = [repr(float(one.mean[row, column])), repr(float(one.stderr[row, column]))]
                how = [options.episodes, options.seed, options.mode]
                writer.writerow([one.seats.name, name, other, *values, *how, plays.checkpoint.digest, others.checkpoint.digest])
    durable.replace(numbers, text.getvalue().encode())
    return [picture, numbers]


def _title(one: "Matrix") -> str:
    joins = len(one.seats.counted) > len(one.seats.agents)
    return f"team with {one.seats.name} played by the row" if joins else f"{one.seats.name} played by the row"


def _tables(document: dict[str, Any]) -> str:
    names = [one["name"] for one in document["players"]]
    how = f"{document['episodes']} episodes of each match-up from seed {document['seed']}, {document['mode']}"
    text = f"{how}; rows play the role, columns all others\n"
    for one in document["matrices"]:
        rows = [[one["role"], *names]]
        for name, means, errors in zip(names, one["mean"], one["stderr"], strict=True):
            rows.append([name, *(f"{mean:.2f} ± {error:.2f}" for mean, error in zip(means, errors, strict=True))])
        text += f"\n{table(rows)}"
    return f"{text}\n{' and '.join(document['files'])}\n"
