"""`matwm show R@S`: what a checkpoint is, who made it, and where it lies."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from matwm.changes import as_yaml
from matwm.checkpoint import Checkpoint
from matwm.errors import UserError
from matwm.manifest import RESERVATION, ROOT
from pipeline import project as places
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.checkpoints import Checkpoints, Copy
from pipeline.catalog.references import REFERENCE, REFERENCE_HELP
from pipeline.commands.table import table
from pipeline.run import Run
from pipeline.wording import few

FEW = 4
"""Lines of a list in one screen."""
MAIN_LIBRARIES = ("torch", "numpy")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("checkpoint", metavar=f"{REFERENCE}|DIR", help=REFERENCE_HELP)
    parser.add_argument("--all", action="store_true", help="also list its files, whole configuration and all libraries")
    parser.add_argument("--json", action="store_true", help="as one object")


def run(options: argparse.Namespace) -> int:
    """Show a checkpoint; only its manifest is read and verified (`matwm verify` reads the rest).

    With --json: `{"step", "segment", "run_id", "digest" (of the manifest), "fingerprint", "format", "numerics", "parent" {step,
    digest, run_id, segment}, "spec" (the environment), "reservation" (what is not promised of its runs, or null), "config", "bytes",
    "files" [{name, size, sha256}], "places" [{kind, place, is_same (null if it cannot be read)}], "run" {state, started, finished,
    resumed_at, git, libraries, device, threads} or null}`.

    Raises:
        ProjectError: there is no such run or step.
        CheckpointError: its manifest is damaged.
        TrackingError: it is in MLflow only, which does not answer.
    """
    project = places.root()
    catalog = Catalog(project)
    checkpoints = Checkpoints(catalog)
    target = checkpoints.target(options.checkpoint)
    checkpoint = target.first().manifest()
    others = checkpoints.copies(target.run, target.step) if target.run else []
    seen = {str(copy): copy for copy in [*target.copies, *others]}
    document = _document(target.run, checkpoint, catalog.parent(target.run) if target.run else None)
    document["places"] = [{"kind": copy.kind, "place": place, "is_same": _is_same(copy, checkpoint)} for place, copy in seen.items()]
    changed = catalog.changes(target.run) if target.run else {}
    for sentence in catalog.trouble:
        sys.stderr.write(f"{sentence}\n")
    sys.stdout.write(
        json.dumps(document, indent=2, ensure_ascii=False) + "\n" if options.json else _drawn(document, changed, is_whole=options.all)
    )
    return 0


def _is_same(copy: Copy, checkpoint: Checkpoint) -> bool | None:
    try:
        return copy.manifest().digest == checkpoint.digest
    except UserError:
        return None


def _document(run: Run | None, checkpoint: Checkpoint, parent: Run | None) -> dict[str, Any]:
    manifest = checkpoint.manifest
    return {
        "step": checkpoint.step,
        "segment": run.segment if run else None,
        "run_id": run.run_id if run else None,
        "digest": checkpoint.digest,
        "fingerprint": checkpoint.fingerprint,
        "format": manifest["format"],
        "numerics": manifest["numerics"],
        "parent": {
            **manifest["parent"],
            "run_id": parent.run_id if parent else None,
            "segment": parent.segment if parent else None,
        },
        "spec": manifest["spec"],
        RESERVATION: manifest.get(RESERVATION),
        "config": manifest["config"],
        "bytes": checkpoint.total_bytes,
        "files": [{"name": name, **one} for name, one in sorted(manifest["files"].items())],
        "run": _run_facts(run) if run and run.is_recorded else None,
    }


def _run_facts(run: Run) -> dict[str, Any]:
    return {
        "state": run.state,
        "started": run.started,
        "finished": run.finished,
        "resumed_at": run.resumed_at,
        "git": run.git,
        "libraries": run.machine.get("libraries") or {},
        "device": run.machine.get("device"),
        "threads": run.machine.get("threads"),
    }


def _drawn(document: Mapping[str, Any], changed: Mapping[str, tuple[Any, Any]], *, is_whole: bool) -> str:
    """Return it for people: in one screen, unless the whole of it is asked for."""
    files, parent, spec = document["files"], document["parent"], document["spec"]
    chunks = [one["size"] for one in files if one["name"].startswith("replay/")]
    digest = parent["digest"] if is_whole else parent["digest"][:12]
    above = "the root" if parent["digest"] == ROOT.digest else f"step {parent['step']}, digest {digest}"
    above += f", {parent['segment']} ({(parent['run_id'] or '-')[:12]})" if parent["segment"] else ""
    rows = [
        ["checkpoint", f"step {document['step']} of {document['segment'] or 'a run that is not known here'}"],
        ["run", document["run_id"] or "-"],
        ["digest", document["digest"]],
        ["fingerprint", document["fingerprint"]],
        ["versions", f"format {document['format']}, numerics {document['numerics']}"],
        ["began with", above],
        *_listed("changed", [f"{path} {as_yaml(before)} → {as_yaml(after)}" for path, (before, after) in changed.items()], is_whole),
        ["environment", f"{spec['name']}: {few(spec['agents'], len(spec['agents']) if is_whole else 8)}"],
        ["size", f"{document['bytes']:,} bytes in {len(files) + 1} files, {sum(chunks):,} of them in {len(chunks)} replay chunks"],
    ]
    rows += [["but", document[RESERVATION]]] if document[RESERVATION] else []
    rows += _about_the_run(document["run"], is_whole=is_whole) if document["run"] else []
    words = {True: "", False: "  (ANOTHER checkpoint of that step)", None: "  (cannot be read)"}
    rows += _listed("places", [f"{one['kind']}: {one['place']}{words[one['is_same']]}" for one in document["places"]], is_whole=True)
    if is_whole:
        rows += _listed("files", [f"{one['size']:>12,}  {one['name']}" for one in files], is_whole)
        rows += _listed("config", _settings(document["config"]), is_whole)
    else:
        rows.append(
            ["more", f"--all lists {len(files)} files, {len(_settings(document['config']))} values of the configuration, libraries"]
        )
    return table(rows, has_head=False)


def _listed(title: str, lines: Sequence[str], is_whole: bool) -> list[list[str]]:
    """Return rows with the title before the first; in one screen there is room for few."""
    shown = lines if is_whole or len(lines) <= FEW else [*lines[: FEW - 1], f"and {len(lines) - FEW + 1} more (--all)"]
    return [["" if number else title, line] for number, line in enumerate(shown)]


def _about_the_run(run: Mapping[str, Any], *, is_whole: bool) -> list[list[str]]:
    git = run["git"]
    clean = {True: "with changes", False: "clean", None: "unknown whether clean"}[git.get("dirty")]
    resumed = f", resumed at {few([*map(str, run['resumed_at'])], 10**9 if is_whole else FEW)}" if run["resumed_at"] else ""
    known = run["libraries"] if is_whole else {name: one for name, one in run["libraries"].items() if name in MAIN_LIBRARIES}
    libraries = ", ".join(f"{name} {version}" for name, version in known.items())
    began, ended = (str(run[name] or "?") for name in ("started", "finished"))
    times = f"{began} to {ended}" if is_whole else f"{began[:19]} to {ended[:19]}"
    return [
        ["trained", f"{times}, {run['state']}{resumed}"],
        ["code", f"commit {git.get('commit') or '-'} ({clean}), digest {str(git.get('code') or '-')[:12]}"],
        ["machine", f"{run['device'] or '?'}, {run['threads'] or '?'} threads, {libraries}"],
    ]


def _settings(config: Mapping[str, Any], prefix: str = "") -> list[str]:
    lines: list[str] = []
    for key, value in config.items():
        lines += _settings(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else [f"{prefix}{key}: {as_yaml(value)}"]
    return lines
