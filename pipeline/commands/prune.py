"""`matwm prune`: removes checkpoints that retention does not keep from MLflow and from the work directories; dry run by default."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matwm.checkpoint import Checkpoint
from matwm.config import RetentionConfig
from pipeline import project as places
from pipeline.catalog import pruning
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.checkpoints import Checkpoints
from pipeline.catalog.pruning import Bytes, Decision
from pipeline.catalog.references import whole_run
from pipeline.commands.table import table
from pipeline.params.segments import ResolvedSegment
from pipeline.project import ProjectError
from pipeline.run import Run
from pipeline.wording import readable

PUBLISHED = {pruning.TO_BE_PUBLISHED, "published"}
COLLECT = "dvc gc --all-commits --all-experiments"
"""What is safe for DVC's cache here: it keeps what any commit, the workspace or an experiment names. Never with --cloud."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run", nargs="?", metavar="RUN|SEGMENT", help="beginning of a run's ID, or a segment (default: all runs)")
    parser.add_argument("--keep-last", type=_count, metavar="N", help="keep the newest N (default: what params.yaml says of the run)")
    parser.add_argument("--keep-every", type=_steps, metavar="K", help="keep the first at or beyond every K environment steps")
    parser.add_argument("--keep-best", type=_count, metavar="B", help="keep the B best by the mean return of 20 training episodes")
    parser.add_argument("--yes", action="store_true", help="remove them; without it, nothing is changed")
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def run(options: argparse.Namespace) -> int:
    """Say what stays, why, and what goes; with --yes, remove it.

    Raises:
        ConfigError, ProjectError, TrackingError: one sentence; nothing has been removed then.
    """
    project = places.root()
    places.check_records(project, places.run_records(project))  # What they need of what is here would not be known.
    catalog = Catalog(project)
    if catalog.params.error:
        raise catalog.params.error
    only = None if options.run is None else catalog.find(whole_run(options.run))
    runs = catalog.all()
    if catalog.mlflow_error:
        raise catalog.mlflow_error  # What it has needs of what is here is not known.
    checkpoints = pruning.prunable(catalog)
    with places.scratch_folder(project) as scratch:
        decisions = _decide(runs, checkpoints, catalog.params.graph, scratch, _flags(options), only)
    size = pruning.weigh(decisions, checkpoints)
    shown = [decision for decision in decisions if only is None or decision.run.id == only.id]
    if refusal := pruning.refusal(shown, checkpoints):
        if options.yes:
            raise ProjectError(refusal)
        sys.stderr.write(f"{refusal}\n")
    if options.yes:
        pruning.execute(shown, checkpoints)
    sys.stdout.write(_json(shown, size, checkpoints, options.yes) if options.json else _shown(shown, size, checkpoints, options.yes))
    stubborn = sum(bool(decision.why) and {*decision.why} <= PUBLISHED for decision in shown) if _flags(options) else 0
    if stubborn:
        sys.stderr.write(
            f"{stubborn} checkpoint{'s' * (stubborn != 1)} that the flags would let go stay, because params.yaml publishes them: "
            "lower retention.keep_last there\n"
        )
    return 0


def _decide(
    runs: Sequence[Run],
    checkpoints: Checkpoints,
    graph: Mapping[str, ResolvedSegment],
    scratch: Path,
    flags: RetentionConfig | None,
    only: Run | None,
) -> list[Decision]:
    """Return what becomes of the checkpoints of all runs; runs that were not asked for keep theirs."""
    needs = pruning.needs_of(checkpoints, runs)
    decisions: list[Decision] = []
    for run in runs:
        segment = pruning.current(run, graph)
        is_asked_for = only is None or run.id == only.id
        policy = (flags or (segment.config.retention if segment else None)) if is_asked_for else None
        decisions += pruning.decide(run, checkpoints, needs, policy, segment, scratch)
    return decisions


def _flags(options: argparse.Namespace) -> RetentionConfig | None:
    """Return the policy of the command line, None if it has none; with one flag, the others keep nothing."""
    if options.keep_last is None and options.keep_every is None and options.keep_best is None:
        return None
    return RetentionConfig(keep_last=options.keep_last or 0, keep_every=options.keep_every, keep_best=options.keep_best or 0)


def _json(decisions: Sequence[Decision], size: Bytes, checkpoints: Checkpoints, is_done: bool) -> str:
    rows: dict[str, dict[str, Any]] = {}
    for decision in decisions:
        run = decision.run
        if run.id not in rows:  # Whether it is live is asked of its lock.
            rows[run.id] = {"run_id": run.id, "segment": run.segment, "live": run.is_live, "checkpoints": []}
        rows[run.id]["checkpoints"].append(
            {
                "step": decision.step,
                "bytes": _size(decision, checkpoints),
                "kept": list(decision.why),
                "pin": run.pins.get(decision.step),
                "places": [store.name for store in checkpoints.where(run)[decision.step]],
            }
        )
    return json.dumps({"removed": is_done, "runs": list(rows.values()), **asdict(size), "dvc": COLLECT}, indent=2) + "\n"


def _shown(decisions: Sequence[Decision], size: Bytes, checkpoints: Checkpoints, is_done: bool) -> str:
    if not decisions:
        return "no run has a checkpoint\n"
    lines = [["run", "segment", "step", "size", "kept because"]]
    usual = [decision for decision in decisions if decision.why == (pruning.TO_BE_PUBLISHED,)]
    for decision in (decision for decision in decisions if decision.why != (pruning.TO_BE_PUBLISHED,)):
        run = decision.run
        lines.append(
            [run.id[:12], str(run.segment), str(decision.step), readable(_size(decision, checkpoints)), "; ".join(decision.why) or "- goes"]
        )
    rest = f"{len(usual)} more stay{'s' * (len(usual) == 1)}: still to be published (--json lists all)\n" if usual else ""
    return (table(lines) if lines[1:] else "") + rest + _summary(decisions, size, is_done)


def _summary(decisions: Sequence[Decision], size: Bytes, is_done: bool) -> str:
    text = ""
    if size.elsewhere:
        text += f"DVC's cache is DVC's business: \"{COLLECT}\" removes from it what no commit, workspace or experiment names.\n"
    if any("no policy" in decision.why for decision in decisions):
        text += "Runs without a policy are none that params.yaml describes: give --keep-last, --keep-every or --keep-best for them.\n"
    gone = sum(not decision.is_kept for decision in decisions)
    if not gone:
        return f"{text}nothing goes: all {len(decisions)} checkpoints stay\n"
    verb = "removed" if is_done else "would remove"
    freed = f"{readable(size.freed)} here" + (f" and {readable(size.freed_on_server)} on the server" if size.freed_on_server else "")
    text += f"{verb} {gone} of {len(decisions)} checkpoints, which frees {freed}"
    text += f"; {readable(size.shared)} are shared with checkpoints that stay" if size.shared else ""
    text += f"; {readable(size.elsewhere)} stay under other names (DVC's cache, checkpoints/, imports/)" if size.elsewhere else ""
    return text + ".\n" + ("" if is_done else "Nothing has been changed: add --yes to remove them.\n")


def _size(decision: Decision, checkpoints: Checkpoints) -> int:
    found = checkpoints.manifest(decision.run, decision.step)
    return sum(facts["size"] for facts in found.manifest["files"].values()) if isinstance(found, Checkpoint) else 0


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0")
    return int(text)


def _steps(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)
