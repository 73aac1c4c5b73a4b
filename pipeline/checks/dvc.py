"""Checks of DVC: how it keeps files, where it sends them, and what would make it lose or repeat training."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline import dvc_files, dvc_leftovers
from pipeline import project as places
from pipeline.checks.finding import Finding, Patient
from pipeline.stores import remote
from pipeline.wording import few, readable

SAMPLE_BYTES = 200_000_000
"""Of the cache, newest first, that are hashed without --deep."""


def cache_type(patient: Patient) -> Iterator[Finding]:
    """DVC links instead of copying."""
    kinds = _list(patient.settings.get("cache", {}).get("type"))
    if not kinds or kinds[0] not in ("hardlink", "reflink"):
        yield Finding(
            f"cache.type of DVC is {', '.join(kinds) or 'not set'}, not hardlink",
            "each checkpoint lies on the disk two or three times: in its run, in DVC's cache and as an output",
            'run "dvc config cache.type hardlink,copy" and commit .dvc/config',
        )


def cache_place(patient: Patient) -> Iterator[Finding]:
    """The cache, the live runs and the MLflow store are on the file system of the project, so that hard links are possible."""
    here = patient.project.stat().st_dev
    kept = [dvc_files.cache_folder(patient.project), places.state_folder(patient.project), patient.home / "mlruns"]
    if elsewhere := [str(place) for place in [*kept, patient.project / "checkpoints"] if _device(place) != here]:
        yield Finding(
            f"{few(elsewhere)} is on another file system than {patient.project}",
            "hard links cannot cross file systems: checkpoints are copied, and take twice the disk or more",
            "keep them on one file system (dvc cache dir PATH moves the cache)",
        )


def remotes_verified(patient: Patient) -> Iterator[Finding]:
    """What comes from a remote is checked."""
    for name in remote.unverified(patient.project):
        yield Finding(
            f"DVC remote {name} has no verify: true",
            "`dvc pull` then accepts a damaged object, and keeps it in the cache",
            f'run "dvc remote modify {name} verify true" and commit .dvc/config',
        )


def remotes_committed(patient: Patient) -> Iterator[Finding]:
    """Remotes are in git."""
    if _remotes(patient) and patient.git("status", "--porcelain", "--", ".dvc/config"):
        yield Finding(
            ".dvc/config has changes that are not committed, and defines remotes",
            "a clone has no remote, and `dvc push -A` skips commits older than the remote's definition with only a warning",
            'run "git add .dvc/config && git commit -m remote"',
        )


def outputs_kept(patient: Patient) -> Iterator[Finding]:
    """No stage keeps stale outputs, or is frozen."""
    for name, stage in _stages(patient).items():
        for path, options in _outputs(stage):
            for option in ("persist", "checkpoint"):
                if _is_true(options.get(option)):
                    yield Finding(
                        f"dvc.yaml: output {path} of stage {name} has {option}: true",
                        "stale bytes stay under new parameters, and the run cache is off"
                        if option == "persist"
                        else "DVC silently ignores it: nothing is kept through an interruption, as it seems to promise",
                        f"remove {option} there: the live run is outside DVC's outputs already",
                    )
        if _is_true(stage.get("frozen")):
            yield Finding(
                f"dvc.yaml: stage {name} is frozen",
                "it does not run when what it depends on changes, and `dvc repro` takes a tampered output of it for right",
                f'run "dvc unfreeze {name}"',
            )


def stale_locks(patient: Patient) -> Iterator[Finding]:
    """No dead process holds DVC's lock."""
    if said := dvc_leftovers.stale(patient.project):
        yield Finding(
            said,
            "DVC may refuse to run, or wait for a process that will never end",
            'run "matwm doctor --fix", or "matwm repro", which does the same',
            mend=lambda: dvc_leftovers.clear(patient.project),
        )


def calls_home(patient: Patient) -> Iterator[Finding]:
    """DVC keeps to itself."""
    core = patient.settings.get("core", {})
    if on := [name for name in ("analytics", "check_update") if _is_true(core.get(name, True))]:
        yield Finding(
            f"DVC's core.{' and core.'.join(on)} is on",
            "it calls home from every stage, also where DO_NOT_TRACK or CI is set",
            "; ".join(f"dvc config core.{name} false" for name in on),
            is_hint=True,
        )


def outputs_missing(patient: Patient) -> Iterator[Finding]:
    """What dvc.lock says was made is here."""
    missing = [
        out["path"]
        for entry in dvc_files.lock(patient.project).values()
        for out in entry.get("outs", [])
        if not (patient.project / out["path"]).exists()
    ]
    if missing:
        yield Finding(
            f"dvc.lock has {few(missing)}, not here",
            "plain `dvc repro` trains again what is only not pulled (`matwm repro` refuses)",
            'run "dvc pull"' if _remotes(patient) else "fetch them where they are, or train again: no DVC remote is set",
            is_hint=True,
        )


def cache_sound(patient: Patient) -> Iterator[Finding]:
    """Objects in the cache are what their names say: the newest ones, or all with --deep."""
    folder = dvc_files.cache_folder(patient.project) / "files" / "md5"
    objects = [path for path in folder.glob("??/*") if len(path.name.split(".")[0]) == 30 and path.is_file()]
    objects.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    damaged: list[str] = []
    seen = 0
    for path in objects:
        seen += path.stat().st_size
        if seen > SAMPLE_BYTES and not patient.is_deep:
            break
        with path.open("rb") as file:
            if hashlib.file_digest(file, "md5").hexdigest() != path.parent.name + path.name.split(".")[0]:
                damaged.append(str(path))
    if damaged:
        yield Finding(
            f"{few(damaged, 1)} in DVC's cache {'is' if len(damaged) == 1 else 'are'} damaged",
            "DVC never looks into it again: it is pushed, pulled and checked out as it is, and its hard links are damaged with it",
            'delete it, then "dvc pull", or "matwm repro --force" for the stage that made it; "matwm verify RUN" names damaged checkpoints',
        )


def disk(patient: Patient) -> Iterator[Finding]:
    """There is room."""
    left = os.statvfs(patient.project)
    free = left.f_bavail * left.f_frsize
    if free < 1_000_000_000:
        yield Finding(
            f"{readable(free)} are left on the disk",
            "a checkpoint that cannot be written stops training",
            'run "matwm prune" to see what can go, and "dvc gc -w" for the cache',
        )


def _remotes(patient: Patient) -> Mapping[str, Mapping[str, Any]]:
    return patient.settings.get("remote") or {}


def _stages(patient: Patient) -> dict[str, Mapping[str, Any]]:
    try:
        data = yaml.safe_load((patient.project / "dvc.yaml").read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError):
        return {}
    stages = data.get("stages") or {}
    return {name: stage.get("do", stage) if isinstance(stage, Mapping) else {} for name, stage in stages.items()}


def _outputs(stage: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for kind in ("outs", "metrics", "plots"):
        for out in stage.get(kind) or []:
            if isinstance(out, Mapping):
                yield from ((path, options or {}) for path, options in out.items())


def _device(path: Path) -> int:
    """Return the file system that a path is on, or would be made on."""
    return next(folder.stat().st_dev for folder in (path, *path.absolute().parents) if folder.exists())


def _list(value: Any) -> list[str]:
    return [part.strip().strip("'\"") for part in (value.split(",") if isinstance(value, str) else value or [])]


def _is_true(value: Any) -> bool:
    return str(value).lower() in ("true", "1", "yes", "on")
