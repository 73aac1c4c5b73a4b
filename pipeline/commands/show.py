"""`matwm show R@S`: what a checkpoint is, who made it, and where it lies."""

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from matwm.changes import as_yaml
from matwm.checkpoint import Checkpoint, CheckpointError
from matwm.manifest import RESERVATION, ROOT
from pipeline import lookup, tracking
from pipeline import project as places
from pipeline.commands.table import table
from pipeline.lineage import Node, read_lineage
from pipeline.project import ProjectError
from pipeline.provenance.whereabouts import Place, Target, Whereabouts


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("checkpoint", metavar=f"{lookup.REFERENCE}|DIR", help=lookup.REFERENCE_HELP)
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
    lineage = read_lineage(project)
    where = Whereabouts(lineage)
    with places.scratch_folder(project) as scratch:
        target = where.target(options.checkpoint)
        if not target.places:
            who = target.node.name if target.node else "the run"
            raise ProjectError(f'the checkpoint of step {target.step} of {who} is not here: run "dvc pull"')
        checkpoint = target.places[0].manifest(scratch)
        others = where.places(target.node, target.step) if target.node else []
        seen = {str(place): place for place in [*target.places, *others]}
        found = [(place, _is_same(place, checkpoint, scratch)) for place in seen.values()]
        document = _document(target, checkpoint, lineage.nodes.get(target.node.parent) if target.node else None)
    document["places"] = [{"kind": place.kind, "place": str(place), "is_same": is_same} for place, is_same in found]
    for sentence in lineage.trouble:
        sys.stderr.write(f"{sentence}\n")
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n" if options.json else _drawn(document))
    return 0


def _is_same(place: Place, checkpoint: Checkpoint, scratch: Any) -> bool | None:
    try:
        return place.manifest(scratch).digest == checkpoint.digest
    except (CheckpointError, tracking.TrackingError):
        return None


def _document(target: Target, checkpoint: Checkpoint, parent: Node | None) -> dict[str, Any]:
    manifest, node = checkpoint.manifest, target.node
    facts = node.facts if node else None
    return {
        "step": checkpoint.step,
        "segment": node.segment if node else None,
        "run_id": facts.run_id if facts else None,
        "digest": checkpoint.digest,
        "fingerprint": checkpoint.fingerprint,
        "format": manifest["format"],
        "numerics": manifest["numerics"],
        "parent": {
            **manifest["parent"],
            "run_id": parent.facts.run_id if parent and parent.facts else None,
            "segment": parent.segment if parent else None,
        },
        "spec": manifest["spec"],
        RESERVATION: manifest.get(RESERVATION),
        "config": manifest["config"],
        "bytes": checkpoint.total_bytes,
        "files": [{"name": name, **one} for name, one in sorted(manifest["files"].items())],
        "run": facts
        and {
            "state": facts.state,
            "started": facts.started,
            "finished": facts.finished,
            "resumed_at": facts.resumed_at,
            "git": facts.git,
            "libraries": facts.machine.get("libraries") or {},
            "device": facts.machine.get("device"),
            "threads": facts.machine.get("threads"),
        },
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
