"""Checks of what people have pinned."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline import project as places
from pipeline.checks.finding import Finding, Patient
from pipeline.runs import TrackingError
from pipeline.storage import holdings
from pipeline.storage.holdings import Held
from pipeline.wording import few


def pins(patient: Patient) -> Iterator[Finding]:
    """Every checkpoint that is pinned is still somewhere."""
    try:
        with tempfile.TemporaryDirectory() as scratch:
            held = holdings.gather(patient.project, Path(scratch))
            lost = [f"{one.name[:12]}@{step}" for one in held for step in sorted(one.pins) if not _is_somewhere(patient.project, one, step)]
    except TrackingError:
        return  # The check of running runs says it.
    if lost:
        yield Finding(
            f"{few(lost)} {'is' if len(lost) == 1 else 'are'} pinned, but neither MLflow, a work directory, checkpoints/ nor imports/ has "
            f"{'it' if len(lost) == 1 else 'them'}",
            "a pin keeps matwm prune from removing a checkpoint, and something else has",
            f'bring it back ("dvc pull", a copy of mlruns), or take the pin away: matwm pin --remove {lost[0]}',
        )


def _is_somewhere(project: Path, run: Held, step: int) -> bool:
    name = places.step_folder(step)
    if step in run.where or (project / "imports" / run.name / f"{name}.dvc").is_file():
        return True
    facts = places.run_record(project, str(run.segment))
    return facts.get("run_id") == run.name and (places.published_folder(project, str(run.segment)) / name).is_dir()
