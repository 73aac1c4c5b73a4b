"""`matwm show R@S`: what a checkpoint is, who made it, and where it lies."""

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from matwm.changes import as_yaml
from matwm.checkpoint import Checkpoint, CheckpointError
from matwm.manifest import RESERVATION, ROOT
from pipeline import project as places
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.checkpoints import Checkpoints, Copy
from pipeline.catalog.references import REFERENCE, REFERENCE_HELP
from pipeline.commands.table import table
from pipeline.run import Run
from pipeline.runs import TrackingError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("checkpoint", metavar=f"{REFERENCE}|DIR", help=REFERENCE_HELP)
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
    for sentence in catalog.trouble:
        sys.stderr.write(f"{sentence}\n")
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n" if options.json else _drawn(document))
    return 0


def _is_same(copy: Copy, checkpoint: Checkpoint) -> bool | None:
    try:
        return copy.manifest().digest == checkpoint.digest
    except (CheckpointError, TrackingError):
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


def _drawn(document: Mapping[str, Any]) -> str:
    files, parent, spec = document["files"], document["parent"], document["spec"]
    chunks = [one["size"] for one in files if one["name"].startswith("replay/")]
    above = "the root" if parent["digest"] == ROOT.digest else f"step {parent['step']}, digest {parent['digest']}"
    above += f", {parent['segment']} ({(parent['run_id'] or '-')[:12]})" if parent["segment"] else ""
    rows = [
        ["checkpoint", f"step {document['step']} of {document['segment'] or 'a run that is not known here'}"],
        ["run", document["run_id"] or "-"],
        ["digest", document["digest"]],
        ["fingerprint", document["fingerprint"]],
        ["versions", f"format {document['format']}, numerics {document['numerics']}"],
        ["began with", above],
        ["environment", f"{spec['name']}: {', '.join(spec['agents'])}"],
        ["size", f"{document['bytes']:,} bytes in {len(files) + 1} files, {sum(chunks):,} of them in {len(chunks)} replay chunks"],
    ]
    rows += [["but", document[RESERVATION]]] if document[RESERVATION] else []
    rows += _about_the_run(document["run"]) if document["run"] else []
    words = {True: "", False: "  (ANOTHER checkpoint of that step)", None: "  (cannot be read)"}
    rows += [
        ["" if number else "places", f"{one['kind']}: {one['place']}{words[one['is_same']]}"]
        for number, one in enumerate(document["places"])
    ]
    rows += [["" if number else "files", f"{one['size']:>12,}  {one['name']}"] for number, one in enumerate(files)]
    rows += [["" if number else "config", line] for number, line in enumerate(_settings(document["config"]))]
    return table(rows)


def _about_the_run(run: Mapping[str, Any]) -> list[list[str]]:
    git = run["git"]
    clean = {True: "with changes", False: "clean", None: "unknown whether clean"}[git.get("dirty")]
    resumed = f", resumed at {', '.join(map(str, run['resumed_at']))}" if run["resumed_at"] else ""
    libraries = ", ".join(f"{name} {version}" for name, version in run["libraries"].items())
    return [
        ["trained", f"{run['started'] or '?'} to {run['finished'] or '?'}, {run['state']}{resumed}"],
        ["code", f"commit {git.get('commit') or '-'} ({clean}), digest {str(git.get('code') or '-')[:12]}"],
        ["machine", f"{run['device'] or '?'}, {run['threads'] or '?'} threads, {libraries}"],
    ]


def _settings(config: Mapping[str, Any], prefix: str = "") -> list[str]:
    lines: list[str] = []
    for key, value in config.items():
        lines += _settings(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else [f"{prefix}{key}: {as_yaml(value)}"]
    return lines
