"""Kills a training again and again and compares it with one that was left alone: `.venv/bin/python benchmarks/kill_test.py`.

A small project (git, DVC, MLflow) trains one segment. `dvc repro` is started and killed with SIGKILL: the trainer, `dvc`, or both,
at random instants and at aimed ones (inside a checkpoint's save, inside the upload to MLflow, inside the publishing of outputs,
before DVC writes its lock), then started again. After every kill no process may be left, and every checkpoint that could be
chosen must verify. Some processes get SIGTERM or Ctrl-C instead. In the end everything must be as if nothing had happened.
Exit code 1 if anything is not.
"""

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # The tests' project maker serves here, too.


def main() -> int:
    """Run the harness as the command line says; return 1 if anything differs."""
    from matwm import durable
    from tests.pipeline.kill_harness import INTERVAL, STOPS, plan

    options = _options()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # Started in the background: Ctrl-C must reach the trainings.
    folder = Path(options.folder or tempfile.mkdtemp(prefix="matwm-kill-")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    until = INTERVAL * max(6, round(0.5 * options.kills))
    kills = plan(options.kills, np.random.default_rng(options.seed))
    result = run(folder, kills, STOPS, until, seed=options.seed, with_server=options.server)
    result |= {"seed": options.seed, "server": options.server, "seconds": round(time.monotonic() - began, 1)}
    sys.stdout.write(summary(result))
    if options.json:
        durable.replace(options.json, (json.dumps(result, indent=1) + "\n").encode())
    if not options.folder and not result["wrong"]:
        shutil.rmtree(folder)
    else:
        sys.stderr.write(f"projects and logs are in {folder}\n")
    return 1 if result["wrong"] else 0


def run(
    folder: Path,
    kills: Sequence[tuple[str, str]],
    stops: Sequence[tuple[str, int]],
    until: int,
    *,
    seed: int = 0,
    with_server: bool = False,
    is_held: bool = False,
) -> dict[str, Any]:
    """Train once undisturbed and once killed; return what was seen, and under `wrong` every difference.

    With `is_held` trainings wait in the instant that is aimed at, which else may be over when the kill comes.
    """
    from pipeline import runs
    from tests.pipeline.kill_checks import Outcome, differences
    from tests.pipeline.kill_harness import WARMUP, Harness, parameters, say
    from tests.pipeline.killing import HarnessError, Scene
    from tests.pipeline.projects import Project
    from tests.pipeline.servers import Server, empty_store

    runs.configure(folder)  # for its silence
    store = empty_store(folder / "template.db")
    project = Project.create(folder / "killed", parameters(until), store)
    reference = Scene(project.clone(folder / "reference", store), WARMUP, folder / "reference/mlruns")
    say(f"training {until} steps undisturbed")
    reference.project.dvc("repro", "train@s00")
    expected = Outcome.of(reference, reference.project.path / "mlflow.db", until)
    server = Server(folder / "server", store) if with_server else None
    database = server.folder / "server.db" if server else project.path / "mlflow.db"
    artifacts = server.folder / "artifacts" if server else project.path / "mlruns"
    scene = Scene(project, WARMUP, artifacts, is_served=with_server, is_held=is_held)
    try:
        if server:
            server.start()
        tracking = {"MLFLOW_TRACKING_URI": server.uri} if server else {}
        harness = Harness(scene, folder, database, tracking, expected.output_hash, seed)
        wrong = []
        try:
            harness.carry_out(kills, stops)
            wrong = differences(Outcome.of(scene, database, until), expected) + harness.complaints()
        except (HarnessError, subprocess.TimeoutExpired) as error:
            wrong.append(str(error))
    finally:
        if server:
            server.stop()
    return {"until": until, "fingerprint": expected.fingerprint, "output": expected.output_hash, "points": len(expected.points),
            "kills": harness.kills, "stops": harness.stops, "wrong": wrong}  # fmt: skip


def summary(result: dict[str, Any]) -> str:
    """Return the tables that people read."""
    from tests.pipeline.killing import INSTANTS, TARGETS

    kills, stops = result["kills"], result["stops"]
    counts = Counter((kill["instant"], kill["target"]) for kill in kills)
    rows = [["killed in", *TARGETS, "together"]]
    for instant in INSTANTS:
        numbers = [counts[instant, target] for target in TARGETS]
        rows.append([instant, *map(str, numbers), str(sum(numbers))])
    totals = [sum(counts[instant, target] for instant in INSTANTS) for target in TARGETS]
    rows.append(["all", *map(str, totals), str(sum(totals))])
    lines = ["  ".join(cell.ljust(11) if number == 0 else cell.rjust(8) for number, cell in enumerate(row)) for row in rows]
    resumed = Counter(kill["resumed_from"] for kill in [*kills, *stops])
    lines += [
        "",
        f"{len(kills)} kills and {len(stops)} signals over {result['until']} steps in {result['seconds']:.0f} s (seed {result['seed']})",
    ]
    lines += [f"started from step: {', '.join(f'{step} ({count})' for step, count in sorted(resumed.items()))}"]
    lines += [_times("from `dvc repro` to the first new training step", [each["new_step_seconds"] for each in [*kills, *stops]])]
    lines += [_times("from the kill until no process was left", [kill["gone_seconds"] for kill in kills])]
    lines += [f"{stop['signal']} at step {stop['step']}: checkpoint of step {stop['saved']}, exit code {stop['exit_code']} after "
              f"{stop['seconds']:.1f} s" for stop in stops]  # fmt: skip
    lines += [f"fingerprint uninterrupted {result['fingerprint']}", f"DVC output uninterrupted  {result['output']}"]
    if result["wrong"]:
        lines += ["", f"WRONG: {len(result['wrong'])}", *result["wrong"][:20]]
    else:
        lines += [f"killed: the same fingerprint, the same DVC output, one run FINISHED, {result['points']} points, each once and the same"]
    return "\n".join(lines) + "\n"


def _times(what: str, seconds: list[float | None]) -> str:
    known = [value for value in seconds if value is not None]
    if not known:
        return f"{what}: never seen"
    return f"{what}: median {statistics.median(known):.1f} s, maximum {max(known):.1f} s ({len(known)} times)"


def _options() -> argparse.Namespace:
    from benchmarks.measuring import at_least, ready_folder, refuse

    parser = argparse.ArgumentParser(prog="benchmarks/kill_test.py", description="Kill a training again and again; nothing may be lost.")
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="SIGKILLs (100)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the plan of instants and targets (0)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="empty folder for projects and logs, kept (default: a temporary one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was seen to FILE")
    parser.add_argument("--server", action="store_true", help="track to a real `mlflow server` instead of a database")
    options = parser.parse_args()
    at_least("--kills", options.kills, 1)
    at_least("--seed", options.seed, 0)
    if options.json and options.json.is_dir():
        refuse(f"--json {options.json} is a folder: name a file")
    for option, folder in (("--folder", options.folder), ("--json", options.json and options.json.parent)):
        if folder:
            ready_folder(option, folder)
    if options.folder and any(options.folder.iterdir()):
        refuse(f"--folder {options.folder} is not empty: name a new folder")
    return options


if __name__ == "__main__":
    from matwm.errors import run_program

    raise SystemExit(run_program(main))
