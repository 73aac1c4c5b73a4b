"""`matwm imagine R@S`: what the world model imagines beside the real episode, from the same moment and under the same actions.

The model is shown an episode of its own policies until step --start and from then on nothing but the actions. Errors are root mean squares
over an agent's observation, in the environment's units or, of images, from 0 to 1.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matwm import durable
from matwm.errors import UserError
from pipeline import project as places
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.checkpoints import Checkpoints
from pipeline.catalog.references import REFERENCE, REFERENCE_HELP
from pipeline.commands.matchups import player
from pipeline.commands.play import positive, rate
from pipeline.commands.table import table

if TYPE_CHECKING:  # Importing torch takes seconds.
    from matwm.config import EnvConfig
    from matwm.open_loop import OpenLoop

START = 5
SHOWN_STEPS = 8


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = " ".join((__doc__ or "").split("\n\n", 1)[1].split())
    parser.add_argument("checkpoint", metavar=f"{REFERENCE}|DIR", help=REFERENCE_HELP)
    parser.add_argument("--steps", type=positive, metavar="H", help="to imagine (default: the horizon that it was trained with)")
    parser.add_argument("--start", type=int, default=START, metavar="T", help=f"step of the episode to imagine from (default: {START})")
    parser.add_argument("--episodes", type=positive, default=20, metavar="N", help="for the errors (default: 20)")
    parser.add_argument("--seed", type=int, default=10000, help="of the first episode, which the GIF shows if it lasts (default: 10000)")
    parser.add_argument("--gif", action="store_true", help="write a GIF, too: above what each agent really sees, below what is imagined")
    parser.add_argument("--fps", type=rate, default=3.0, metavar="N", help="steps shown in a second of the GIF (default: 3)")
    written = "write NAME.png and with --gif NAME.gif (default: imagine); what is there is replaced"
    parser.add_argument("--output", metavar="NAME", default="imagine", help=written)
    parser.add_argument("--json", action="store_true", help="print one object instead of a table")


def run(options: argparse.Namespace) -> int:
    """Imagine, draw and print the errors.

    With --json: `{"run_id", "step", "digest", "start", "episodes", "seed", "files", "errors" {"imagined", "held", "reconstructed":
    {agent: [at step 0, 1, …, null where it is in no episode]}}}`.

    Raises:
        ProjectError: there is no such run or step.
        CheckpointError: it is damaged.
        UserError: it cannot imagine so far, or no episode lasts so long.
    """
    from matwm.envs.output import stdout_aside
    from matwm.open_loop import open_loop
    from matwm.params_yaml import restored_config

    project = places.root()
    places.make_importable(project)
    if options.start < 0:
        raise UserError(f"--start is {options.start}: the first step of an episode is 0")
    with places.scratch_folder(project) as scratch, stdout_aside():
        shown = player(options.checkpoint, Checkpoints(Catalog(project)), scratch)
        networks = shown.networks
        config = restored_config(shown.checkpoint.config, source=f"{shown.checkpoint.path}/manifest.json")
        horizon = options.steps or config.regime(networks.spec.num_agents).horizon
        try:
            found = open_loop(networks, episodes=options.episodes, first_seed=options.seed, start=options.start, horizon=horizon)
        except ValueError as error:
            raise error if isinstance(error, UserError) else UserError(str(error)) from None
    files = _written(options, found, networks.env, shown.label)
    document = {
        "run_id": shown.run.run_id if shown.run else None,
        "step": shown.checkpoint.step,
        "digest": shown.checkpoint.digest,
        **{name: getattr(options, name) for name in ("start", "episodes", "seed")},
        "files": list(map(str, files)),
        "errors": _errors(found),
    }
    sys.stdout.write(json.dumps(document, indent=2) + "\n" if options.json else _table(document))
    return 0


def _written(options: argparse.Namespace, found: "OpenLoop", env: "EnvConfig", label: str) -> list[Path]:
    """Write the pictures; the GIF shows the first of the episodes that last longest."""
    from pipeline.drawing import figures, imagination
    from pipeline.drawing.film import Gif

    picture = Path(f"{options.output}.png")
    picture.parent.mkdir(parents=True, exist_ok=True)
    title = f"{found.spec.name}, {label}"
    with figures.drawing():
        figure = imagination.errors(found, f"Open-loop error of {title}, {options.episodes} episodes")
        durable.replace(picture, figures.png(figure))
        if not options.gif:
            return [picture]
        gif, film = picture.with_name(f"{picture.stem}.gif"), Gif(options.fps)
        longest = int(found.counts.any(2).sum(1).argmax())
        drawn = list(imagination.frames(found, env, longest, f"{title}: real above, imagined below"))
        for frame in drawn:
            film.show(frame, is_last=frame is drawn[-1])
        durable.replace(gif, film.finish())
    return [picture, gif]


def _errors(found: "OpenLoop") -> dict[str, dict[str, list[float | None]]]:
    agents = found.spec.agents
    kinds = {"imagined": found.errors(), "held": found.errors(found.held), "reconstructed": found.errors(found.reconstructed)}
    return {
        kind: {agent: [None if math.isnan(one) else float(one) for one in column] for agent, column in zip(agents, values.T, strict=True)}
        for kind, values in kinds.items()
    }


def _table(document: dict[str, Any]) -> str:
    imagined = document["errors"]["imagined"]
    last = len(next(iter(imagined.values()))) - 1
    steps = sorted({round(last * part / (SHOWN_STEPS - 1)) for part in range(SHOWN_STEPS)})
    rows = [["error after", *(f"{step}" for step in steps)]]
    for agent in imagined:
        for kind, name in (("imagined", agent), ("held", "  last observation held"), ("reconstructed", "  reconstructed")):
            values = document["errors"][kind][agent]
            rows.append([name, *("-" if values[step] is None else f"{values[step]:.3f}" for step in steps)])
    first = (
        f"step {document['step']}, imagined from step {document['start']} of {document['episodes']} episodes from seed {document['seed']}"
    )
    return f"{first}\n{table(rows)}{' and '.join(document['files'])}\n"
