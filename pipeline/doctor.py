"""Looks for what makes MLflow, DVC, git or the machine misbehave, and mends what can be mended without asking."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from matwm.errors import REFUSING, UserError, refusal
from pipeline.checks import dvc, pins, store, surroundings
from pipeline.checks.finding import Finding, Patient

CHECKS: Mapping[str, Callable[[Patient], Iterator[Finding]]] = {
    "mlflow-version": store.mlflow_version,
    "tracking-uri": store.tracking_uri,
    "database-version": store.database_version,
    "run-id": store.run_id_in_environment,
    "file-store": store.old_file_store,
    "artifact-locations": store.artifact_locations,
    "linked-artifacts": store.linked_artifacts,
    "running": store.running,
    "pending": store.pending,
    "points": store.points,
    "pins": pins.pins,
    "cache-type": dvc.cache_type,
    "cache-place": dvc.cache_place,
    "cache-sound": dvc.cache_sound,
    "remotes-verified": dvc.remotes_verified,
    "remotes-committed": dvc.remotes_committed,
    "outputs-kept": dvc.outputs_kept,
    "outputs-missing": dvc.outputs_missing,
    "dvc-locks": dvc.stale_locks,
    "calls-home": dvc.calls_home,
    "repository": surroundings.repository,
    "torch": surroundings.torch_version,
    "threads": surroundings.threads,
    "disk": dvc.disk,
    "leftovers": surroundings.leftovers,
    "old-work": surroundings.old_work,
}
"""Name: what it looks at. A check finds nothing, or says what is wrong."""
NEEDS_STORE = {"database-version", "artifact-locations", "running", "pending", "points", "pins"}


@dataclass(frozen=True)
class Diagnosis:
    """A finding of a check, and what was done about it."""

    check: str
    finding: Finding
    tried: str | None = None
    """What came of mending it, None if that was not tried."""
    is_mended: bool = False
    """Whether the check does not find it any more."""

    @property
    def is_problem(self) -> bool:
        """Whether something is wrong, still."""
        return not self.finding.is_hint and not self.is_mended


def examine(project: Path, *, is_deep: bool = False, is_fixing: bool = False) -> list[Diagnosis]:
    """Return what all checks find, problems first; with `is_fixing`, mend what can be.

    What of MLflow cannot be asked because the way to it is wrong is left out: the finding about that way says it.
    """
    patient = Patient(project, dict(os.environ), is_deep)
    found: list[Diagnosis] = []
    for name, check in CHECKS.items():
        if name in NEEDS_STORE and not _has_store(patient, found):
            continue
        findings = list(check(patient))
        tried = [_mend(finding) if is_fixing else None for finding in findings]
        left = list(check(Patient(project, dict(os.environ), is_deep))) if any(tried) else findings
        found += [Diagnosis(name, finding, outcome, finding not in left) for finding, outcome in zip(findings, tried, strict=True)]
    return sorted(found, key=lambda diagnosis: diagnosis.finding.is_hint)


def _mend(finding: Finding) -> str | None:
    """Mend what a finding says, and return what came of it; None where only a person can."""
    try:
        return finding.mend() if finding.mend else None
    except UserError as error:
        return str(error)
    except OSError as error:
        if error.errno not in REFUSING:
            raise
        return refusal(error)


def _has_store(patient: Patient, found: list[Diagnosis]) -> bool:
    """Return whether MLflow can be asked, and set it up for that."""
    from pipeline import runs

    if any(diagnosis.check in ("tracking-uri", "database-version", "mlflow-version") and diagnosis.is_problem for diagnosis in found):
        return False
    runs.configure(patient.project)
    return True
