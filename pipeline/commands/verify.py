"""`matwm verify R[@S]`: proves where a checkpoint comes from, or names the first thing that is wrong."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matwm.errors import UserError
from matwm.manifest import reservation
from matwm.version import NUMERICS
from pipeline import project as places
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.checkpoints import Checkpoints, Target
from pipeline.catalog.references import REFERENCE, REFERENCE_HELP
from pipeline.catalog.verify import Report, Sound, verify

if TYPE_CHECKING:  # It trains: most verifications do not.
    from pipeline.catalog.retrain import Retrained


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("checkpoint", metavar=f"{REFERENCE}|DIR", help=REFERENCE_HELP)
    parser.add_argument("--deep", action="store_true", help="also train the last interval again and compare")
    parser.add_argument("--strict", action="store_true", help="take warnings for failures")
    parser.add_argument("--json", action="store_true", help="as one object")


def run(options: argparse.Namespace) -> int:
    """Walk back to the root; return 1 if something is wrong (with --strict: or if there is a warning).

    With --json: `{"ok", "wrong" (a sentence or null), "warnings" [sentences], "checkpoints": [...], "deep"}`. `checkpoints` are the
    sound ones from the newest back to the root, each with `segment`, `run_id`, `step`, `digest` (of its manifest), `fingerprint`,
    `bytes`, `place` and `kind` (published, imported, work, mlflow, folder or root). `deep` is null, or `{"from_step", "from_place",
    "step", "is_equal", "differences" [sentences], "hints" [sentences]}`.

    Raises:
        ProjectError: there is no such run or step.
        TrackingError: MLFLOW_TRACKING_URI names a store that cannot be used.
    """
    project = places.root()
    checkpoints = Checkpoints(Catalog(project))
    deep = None
    with places.scratch_folder(project) as scratch:
        report, target = verify(checkpoints, options.checkpoint, scratch, (lambda sound: None) if options.json else _print_sound)
        if options.deep and report.wrong is None and target is not None:
            places.make_importable(project)
            deep = _trained_again(report, target, checkpoints, scratch)
    ok = report.wrong is None and not (options.strict and report.warnings)
    if options.json:
        document: dict[str, Any] = {"ok": ok, **report.as_json(), "deep": deep.as_json() if deep else None}
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    else:
        _sum_up(report, deep)
    return 0 if ok else 1


def _trained_again(report: Report, target: Target, checkpoints: Checkpoints, scratch: Path) -> "Retrained | None":
    """Train the last interval again; if something else comes out, that is wrong, unless it is bound to."""
    from matwm.envs.output import stdout_aside
    from pipeline.catalog.retrain import retrain

    checkpoint = report.opened[report.sound[0].digest]
    said = reservation(checkpoint.spec)
    if (trained_by := checkpoint.manifest["numerics"]) != NUMERICS:
        said = f"NUMERICS {trained_by} has made it, and {NUMERICS} makes other numbers"
    if said:
        report.warnings.append(f"the last interval was not trained again: {said}")
        return None
    parent = report.opened.get(checkpoint.parent.digest)
    try:
        with stdout_aside():
            found = retrain(checkpoints, target.run, checkpoint, parent, scratch, lambda sentence: _say(f"{sentence}\n"))
    except UserError as error:
        report.wrong = str(error)
        return None
    if not found.is_equal:
        report.wrong = (
            f"{report.sound[0].place} is not what training from step {found.from_step} ({found.from_place}) comes to: "
            f"{'; '.join(found.differences)}. {'; '.join(found.hints)}"
        )
    return found


def _print_sound(sound: Sound) -> None:
    who = f"{sound.segment or 'run'} ({(sound.run_id or '-')[:12]})" if sound.kind != "root" else "root"
    sys.stdout.write(f"ok  {who}  step {sound.step}  digest {sound.digest[:12]}  {sound.bytes:,} bytes  {sound.place}\n")
    sys.stdout.flush()


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _sum_up(report: Report, deep: "Retrained | None") -> None:
    for sentence in report.warnings:
        sys.stderr.write(f"warning: {sentence}\n")
    if report.wrong is not None:
        sys.stderr.write(f"wrong: {report.wrong}\n")
        return
    if deep is not None:
        sys.stdout.write(f"ok  trained again from step {deep.from_step} to {deep.step}: the same state and history, bit for bit\n")
    total = sum(sound.bytes for sound in report.sound)
    sys.stdout.write(f"{len(report.sound)} checkpoints, {total:,} bytes: all as recorded, back to the root\n")
