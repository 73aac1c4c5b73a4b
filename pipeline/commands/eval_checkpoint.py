"""`matwm eval R@S`: what each role gets in whole episodes with a checkpoint's agents, against themselves, scripts or another checkpoint.

The run of the checkpoint gets it at the checkpoint's step, if MLflow has that run:

    eval/<mode>/<match-up>/<episodes>_from_<seed>/<role>            mean return of a role that the checkpoint plays, with its /stderr
                                                 /metrics/<name>    what the environment says of episodes, likewise
"""

import argparse
import dataclasses
import json
import logging
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline import project as places
from pipeline import runs
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.checkpoints import Checkpoints
from pipeline.catalog.references import REFERENCE, REFERENCE_HELP
from pipeline.commands.matchups import AGAINST_HELP, Matchups, Player, matchups, player
from pipeline.commands.table import table
from pipeline.metrics.best import METRICS
from pipeline.metrics.points import ON_DEMAND

if TYPE_CHECKING:  # Importing torch takes seconds.
    from matwm.evaluation import Result

logger = logging.getLogger(__name__)

INTERVAL = 1.96
"""Standard errors to each side of a mean within which the true one lies 95 times of 100."""
COLUMNS = ["match-up", "role", "return", "std. error", "95 % interval", "median", "played by"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("checkpoint", metavar=f"{REFERENCE}|DIR", help=REFERENCE_HELP)
    parser.add_argument("--episodes", type=two_or_more, default=100, metavar="N", help="of each match-up (default: 100)")
    parser.add_argument("--against", metavar="SCRIPT|RUN@STEP", help=AGAINST_HELP)
    parser.add_argument("--mode", choices=("sampled", "greedy"), default="sampled", help="how policies act (default: sampled)")
    parser.add_argument("--seed", type=int, default=10000, help="of the first episode (default: 10000)")
    parser.add_argument("--no-log", action="store_true", help="do not log the result to the checkpoint's run in MLflow")
    parser.add_argument("--json", action="store_true", help="as one object")


def run(options: argparse.Namespace) -> int:
    """Evaluate; without --against all agents are the checkpoint's.

    With --json: `{"run_id", "step", "digest", "mode", "seed", "episodes", "against" (as it was given, or null), "matchups" [{"matchup",
    "roles" {role: {"is_learned", "mean", "stderr", "interval" [low, high], "median", "std", "min", "max"}}, "metrics" (likewise)}],
    "in_mlflow" (whether its run has it there)}`.

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
        judged = player(options.checkpoint, checkpoints, scratch)
        seated = matchups(judged, options.against, checkpoints, scratch)
        results = seated.evaluate(options)
    document = {
        "run_id": judged.run.run_id if judged.run else None,
        "step": judged.checkpoint.step,
        "digest": judged.checkpoint.digest,
        **{name: getattr(options, name) for name in ("mode", "seed", "episodes", "against")},
        "matchups": [_told(result) for result in results],
    }
    values = _values(options, seated, results)
    new = None if options.no_log else _logged(judged, values)
    document["in_mlflow"] = new is not None
    sys.stdout.write(json.dumps(document, indent=2) + "\n" if options.json else _drawn(document) + _said(judged, values, new))
    return 0


def _values(options: argparse.Namespace, seated: Matchups, results: "list[Result]") -> dict[str, float]:
    """Return what is logged, by the names of metrics."""
    values: dict[str, float] = {}
    for line_up, result in zip(seated.line_ups, results, strict=True):
        above = f"{ON_DEMAND}{options.mode}/{seated.metric_name(line_up)}/{options.episodes}_from_{options.seed}/"
        learned = {role: result.roles[role] for role, numbers in result.spec.roles().items() if set(numbers) <= set(result.learned)}
        for name, summary in {**learned, **{f"{METRICS}{name}": one for name, one in result.metrics.items()}}.items():
            values |= {f"{above}{name}": summary.mean, f"{above}{name}/stderr": summary.stderr}
    return values


def _logged(judged: Player, values: Mapping[str, float]) -> list[str] | None:
    """Log what the checkpoint's run lacks and return its names; None if MLflow does not know the run, or does not take it."""
    if not judged.run or not judged.run.run_id or judged.run.status is None:
        return None
    try:
        return runs.log_once(judged.run.run_id, judged.checkpoint.step, values)
    except runs.TrackingError as error:
        logger.warning("nothing is logged: %s", error)
        return None


def _said(judged: Player, values: Mapping[str, float], new: list[str] | None) -> str:
    """Return the sentence that says what MLflow got; none where nothing could be logged."""
    if new is None or not judged.run:
        return ""
    where = f"run {str(judged.run.run_id)[:12]}"
    return f"logged to {where}: {len(new)} metrics, first {new[0]}\n" if new else f"{where} has it already: {next(iter(values))}\n"


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


def two_or_more(text: str) -> int:
    """Read a number of episodes."""
    if not text.isdigit() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 2: a standard error needs two episodes")
    return int(text)
