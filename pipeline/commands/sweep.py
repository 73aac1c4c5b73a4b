"""`matwm sweep add|status|run`: trials over seeds and values."""

import argparse
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matwm.config import SweepConfig
from matwm.params_yaml import parse_sweeps, read_params
from pipeline import project as places
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.overview import best_of
from pipeline.commands import repro
from pipeline.commands.table import table
from pipeline.estimates.forecast import forecast
from pipeline.metrics import best
from pipeline.params import assignments, decisions, params_file, sweeps
from pipeline.params.segments import resolve_all
from pipeline.project import ProjectError
from pipeline.run import Run
from pipeline.runs import TrackingError
from pipeline.stopping import declare, told
from pipeline.sweep import JOBS
from pipeline.validate import missing_optuna
from pipeline.wording import few

RANGE = re.compile(r"(?P<low>[^,]+?)\.\.(?P<high>[^,]+?)(?P<log>:log)?")
SEEDS = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="add|status|run")
    add = actions.add_parser("add", help="append a sweep to params.yaml", allow_abbrev=False)
    add.add_argument("name", metavar="NAME")
    add.add_argument(
        "--set", dest="words", action="append", default=[], metavar="KEY=VALUE[,VALUE…]",
        help="several values: a trial for each, and for each combination with those of other keys; one value: it holds in all trials",
    )  # fmt: skip
    add.add_argument("--seeds", type=_seeds, default=[], metavar="0-4|0,3,7", help="a trial for each seed")
    add.add_argument(
        "--search", dest="space", action="append", default=[], metavar="KEY=LOW..HIGH[:log]|KEY=A,B…",
        help="draw this value for each trial by what became of those before it, instead of trying all; repeat it for more",
    )  # fmt: skip
    add.add_argument("--trials", type=_count, metavar="N", help="with --search: how many")
    add.add_argument(
        "--prune", type=float, metavar="SHARE", help="with --search: end trials that fall below this share of others; 0.5: the median"
    )
    add.add_argument("--until", type=int, required=True, metavar="N", help="environment step to train every trial to")
    add.add_argument("--from", dest="start", default=places.ROOT_CHECKPOINT, metavar="FOLDER", help="checkpoint folder to start from")
    add.add_argument("--dry-run", action="store_true", help="check and show the change, and write nothing")
    status = actions.add_parser("status", help="say how far the trials are", allow_abbrev=False)
    status.add_argument("name", nargs="?", metavar="NAME", help="default: all sweeps")
    status.add_argument("--json", action="store_true", help="as a list of objects")
    run = actions.add_parser("run", help="train and evaluate all trials: `matwm repro` of the sweep's stage", allow_abbrev=False)
    run.add_argument("name", metavar="NAME")
    run.add_argument("-j", "--jobs", type=_count, default=1, metavar="N", help="trials at a time, as far as threads and memory allow")
    declare(run)


def run(options: argparse.Namespace) -> int:
    """Do what the action says.

    Raises:
        ConfigError, ProjectError, TrackingError: one sentence for each thing that is wrong.
    """
    project = places.root()
    return {"add": _add, "status": _status, "run": _run}[options.action](project, options)


def _add(project: Path, options: argparse.Namespace) -> int:
    path = project / places.PARAMS
    text = params_file.upgraded(params_file.read(path))
    params = read_params(path)
    if options.name in {**(params.get("sweeps") or {}), **params["segments"]}:
        raise ProjectError(f"there is a segment or sweep {options.name} already: choose another name, or add values to it by hand")
    entry = _entry(options)
    whole = {**params, "sweeps": {**(params.get("sweeps") or {}), options.name: entry}}
    graph = resolve_all(whole, project)
    names = [name for name in graph if name.startswith(f"{options.name}/")]
    if options.space and (missing := missing_optuna()):
        raise ProjectError(missing)
    for warning in forecast(project, graph, whole, remembers=False).warnings:
        sys.stderr.write(f"{warning}\n")
    count = options.trials if options.space else len(names)
    changed = params_file.with_entry(text, "sweeps", options.name, entry)
    sys.stdout.write("".join(f"{name}\n" for name in names))
    if options.dry_run:
        sys.stdout.write(f"nothing is written: params.yaml would get\n{params_file.lines(options.name, entry)}")
        return 0
    places.write_text(path, changed)
    sys.stdout.write(f'{count} trials; next: "matwm sweep run {options.name} -j N" (or "matwm repro"); for git: git add params.yaml\n')
    return 0


def _entry(options: argparse.Namespace) -> dict[str, Any]:
    entry: dict[str, Any] = {"from": options.start, "until": options.until}
    override: dict[str, Any] = {}
    grid: dict[str, list[Any]] = {}
    for word in options.words:
        path, values = assignments.several(word)
        if path in grid:
            raise ProjectError(f"--set {path} is given twice: give all its values at once, {path}=A,B")
        grid[path] = values
    for path, values in grid.items():
        if len(values) == 1:
            override = sweeps.merged_value(override, path, values[0])
    entry |= {"override": override} if override else {}
    entry |= {"grid": varied} if (varied := {path: values for path, values in grid.items() if len(values) > 1}) else {}
    if bool(options.space) != (options.trials is not None) or (options.prune is not None and not options.space):
        raise ProjectError("--search, --trials and --prune belong together: a search needs at least --search KEY=LOW..HIGH and --trials N")
    if options.space:
        space = dict(map(_range, options.space))
        if len(space) < len(options.space):
            raise ProjectError("--search names a parameter twice: once is enough")
        entry["search"] = {"space": space, "trials": options.trials, **({"prune": options.prune} if options.prune is not None else {})}
    return entry | ({"seeds": options.seeds} if options.seeds else {})


def _range(word: str) -> tuple[str, dict[str, Any]]:
    """Return the path and what may be drawn of `KEY=LOW..HIGH`, `KEY=LOW..HIGH:log` or `KEY=A,B`."""
    path, _, text = word.partition("=")
    found = RANGE.fullmatch(text.strip())
    if found is None:
        path, values = assignments.several(word)
        return path, {"choices": values}
    (path, (low,)), (_, (high,)) = (assignments.several(f"{path}={found[end]}") for end in ("low", "high"))
    return path, {"low": low, "high": high, **({"log": True} if found["log"] else {})}


def _run(project: Path, options: argparse.Namespace) -> int:
    known = read_params(project / places.PARAMS).get("sweeps") or {}
    if options.name not in known:
        raise ProjectError(f"params.yaml has no sweep {options.name!r}: it has {', '.join(known) or 'none'}")
    os.environ[JOBS] = str(options.jobs)
    with told(options):
        return repro.run(argparse.Namespace(retrain=False, rest=[f"sweep@{options.name}"], max_time=None, stop_at=None))


def _status(project: Path, options: argparse.Namespace) -> int:
    from pipeline import tracking
    from pipeline.tracking import upkeep

    tracking.configure(project)
    said = upkeep.settle(project)
    catalog = Catalog(project)
    found = {str(run.segment): run for run in catalog.lineage.runs.values() if run.is_current and "/" in str(run.segment)}
    wanted = {name: run for name, run in found.items() if options.name in (None, sweeps.split(name)[0])}
    params = read_params(project / places.PARAMS)
    known = parse_sweeps(params)
    if not known:
        raise ProjectError('params.yaml has no sweep: append one with "matwm sweep add"')
    if options.name not in (None, *known):
        raise ProjectError(f"params.yaml has no sweep {options.name!r}: it has {', '.join(known)}")
    logs = {
        name: decisions.read(project, params, name, one) for name, one in known.items() if one.is_decided and options.name in (None, name)
    }
    rows = [_row(name, run, catalog, logs) for name, run in wanted.items()]
    for sentence in dict.fromkeys([*said, *catalog.trouble]):
        sys.stderr.write(f"{sentence}\n")
    sys.stdout.write(json.dumps(rows, indent=2, ensure_ascii=False) + "\n" if options.json else _shown(rows) if rows else "")
    if not options.json:
        for name, log in logs.items():
            sys.stdout.write(_searched(name, log, known[name]))
    return 0


def _searched(name: str, log: decisions.Log, sweep: SweepConfig) -> str:
    """Say in a line how far a search or a population is."""
    trials = log.trials
    if sweep.search:
        told = [f"search {name}: {len(trials)} of {sweep.search.trials} trials drawn"]
    else:
        reached = max((row["boundary"] for row in log.rows[1:] if "boundary" in row), default=0)
        told = [f"population {name}: decided up to step {reached} of {sweep.until}"]
        if copies := [f"{facts['instead_of'][:3]} by {trial[:3]}" for trial, facts in trials.items() if "instead_of" in facts]:
            told.append(f"replaced: {few(copies, at_most=8)}")
    for what in ("pruned", "diverged"):
        if found := [trial for trial, facts in trials.items() if facts.get(what)]:
            told.append(f"{len(found)} {what} ({few(found, at_most=4)})")
    return f"{'; '.join(told)}\n"


def _row(name: str, run: Run, catalog: Catalog, logs: Mapping[str, decisions.Log]) -> dict[str, Any]:
    try:
        judged = best_of(run)
    except TrackingError as error:
        catalog.note(str(error))
        judged = ()
    row = {"trial": name, "state": run.state, "step": run.step, "until": run.until, "run_id": run.run_id}
    sweep, own = sweeps.split(name)
    if log := logs.get(str(sweep)):
        row |= {key: log.trials.get(own, {}).get(key) for key in ("values", "value", "pruned")}
    return row | {"best": [one._asdict() for one in judged]}


def _shown(rows: Sequence[dict[str, Any]]) -> str:
    lines = [["trial", "state", "step", "best"]]
    for row in rows:
        judged = best.shown([best.Best(**one) for one in row["best"]], with_steps=True)
        lines.append([row["trial"], row["state"], f"{row['step']}/{row['until']}", judged])
    counted = Counter(row["state"] for row in rows)
    return table(lines) + f"{len(rows)} trials: {', '.join(f'{count} {state}' for state, count in counted.items())}\n"


def _seeds(text: str) -> list[int]:
    if not SEEDS.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of seeds: write 0-4, or 0,3,7")
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    if not found or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r} names a seed twice, or none: write 0-4, or 0,3,7")
    return found


def _count(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)
