"""Checks of git, of the libraries and the machine, and of what dead processes left lying about."""

import os
import shutil
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from matwm.config import ConfigError
from matwm.params_yaml import read_params
from matwm.step_names import GLOB
from pipeline import project as places
from pipeline import source_code
from pipeline.checks.finding import Finding, Patient
from pipeline.metrics import records
from pipeline.process import is_held
from pipeline.tracking import upkeep
from pipeline.wording import few, readable

TORCH = "2.13.0"
TEMPORARY = (".saving-*", ".fresh-*", ".cached", ".pull-*", ".remote-*", f"{GLOB}.tmp")
"""What a dead process can leave among checkpoints; nobody reads it again."""
OLD_SECONDS = 3600


def repository(patient: Patient) -> Iterator[Finding]:
    """The project is in git, and the lineage of what is trained is committed."""
    if found := source_code.no_commit(patient.project):
        why = "parameters, dvc.lock and metrics are the lineage, and nothing keeps their history; runs are recorded without a commit"
        yield Finding(found.why, why, found.remedy)
        return
    changed = (patient.git("status", "--porcelain", "--", "dvc.lock", "params.yaml", "metrics") or "").splitlines()
    if changed and patient.records:
        yield Finding(
            f"{few([line.split()[-1] for line in changed])} not committed, though segments are trained",
            "another machine does not see them, and a checkpoint cannot be traced to what made it",
            'when no training runs: git add dvc.lock params.yaml metrics && git commit -m "trained"',
            is_hint=True,
        )


def torch_version(patient: Patient) -> Iterator[Finding]:
    """torch is the one that the numbers were made with."""
    found = version("torch").split("+")[0]
    if found != TORCH:
        yield Finding(
            f"torch {found} is installed, but this project pins {TORCH}",
            "another version rounds otherwise: a resumed run is not the one that it would have been",
            'run "make venv"',
        )
    for facts in patient.records:
        if drift := records.drifted(facts, records.machine_facts(str(facts.get("device")), facts.get("threads", 1))):
            yield Finding(
                f"segment {facts.get('segment')} was trained with {', '.join(drift)}",
                "what continues from it here may not be bit for bit what it would have been there",
                "install the versions that metrics/*/run.json names, or accept it: training and `matwm verify` say so",
                is_hint=True,
            )


def threads(patient: Patient) -> Iterator[Finding]:
    """Thread settings make sense here."""
    text = patient.environment.get("OMP_NUM_THREADS", "1")
    if not text.split(",")[0].strip().isdigit() or int(text.split(",")[0]) < 1:
        yield Finding(
            f"OMP_NUM_THREADS is {text!r}", "it is ignored, and libraries take all cores", "unset it, or set it to a number such as 1"
        )
    try:
        wanted = read_params(patient.project / places.PARAMS).get("run", {}).get("threads", 1)
    except (ConfigError, AttributeError):
        return  # `matwm validate` says it better.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if isinstance(wanted, int) and wanted > cores:
        yield Finding(
            f"run.threads is {wanted}, but this machine lends {cores} core{'s' * (cores > 1)}",
            "threads that share a core wait for each other, and training is slower than with fewer",
            "set run.threads in params.yaml to the number of cores or less, before training begins",
            is_hint=True,
        )


def leftovers(patient: Patient) -> Iterator[Finding]:
    """No dead process has left half-written folders."""
    works = [work for work in places.work_folders(patient.project) if not is_held(work / "lock")]
    found = [path for work in works for folder in (work, work / "checkpoints") for path in _temporary(folder)]
    found += [path for path in places.state_folder(patient.project).glob("tmp*") if _is_old(path)]
    found += [path for path in patient.project.glob("checkpoints/.*.incoming") if _is_old(path)]
    if found:
        total = sum(_bytes(path) for path in found)
        yield Finding(
            f"{few([str(path.relative_to(patient.home)) for path in found])}: {readable(total)} left by processes that died",
            "nobody reads them again; the next process of the same segment removes its own",
            'run "matwm doctor --fix", which deletes them',
            is_hint=True,
            mend=lambda: _delete(found),
        )


def old_work(patient: Patient) -> Iterator[Finding]:
    """No work directory is left of which everything is elsewhere."""
    current = {(facts.get("segment"), str(facts.get("key"))[:12]) for facts in patient.records}
    found = [
        work
        for work in upkeep.work_folders(patient.project)
        if tuple(work.name.replace("~", "/").rpartition("-")[::2]) not in current
        and not upkeep.is_pending(patient.project, work)
        and not is_held(work / "lock")
        and _is_finished(work)
    ]
    if found:
        yield Finding(
            f".matwm/work has {few([work.name for work in found])}, finished and sent, of segments that metrics/ no longer has",
            f"{readable(sum(_bytes(work) for work in found))}, shared with MLflow's artifacts by hard links where both are on one disk",
            f"if MLflow has what you need of them (matwm runs): rm -r {' '.join(f'.matwm/work/{work.name}' for work in found[:5])}",
            is_hint=True,
        )


def _temporary(folder: Path) -> list[Path]:
    return [path for pattern in TEMPORARY for path in folder.glob(pattern)]


def _is_finished(work: Path) -> bool:
    return bool((places.read_json(work / "run.json") or {}).get("finished"))


def _is_old(path: Path) -> bool:
    """Return whether a folder outside any lock has been left alone for so long that no live process can be at it."""
    return time.time() - path.stat().st_mtime > OLD_SECONDS


def _bytes(path: Path) -> int:
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else path.lstat().st_size


def _delete(found: list[Path]) -> str:
    for path in found:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    return f"{len(found)} deleted"
