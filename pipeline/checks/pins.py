"""Checks of what people have pinned."""

from collections.abc import Iterator

from pipeline import project as places
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.checkpoints import Checkpoints
from pipeline.checks.finding import Finding, Patient
from pipeline.run import Run
from pipeline.runs import TrackingError
from pipeline.wording import few


def pins(patient: Patient) -> Iterator[Finding]:
    """Every checkpoint that is pinned is still somewhere."""
    catalog = Catalog(patient.project)
    checkpoints = Checkpoints(catalog, is_strict=True)
    try:
        lost = [f"{run.id[:12]}@{step}" for run in catalog.all() for step in sorted(run.pins) if not _is_somewhere(checkpoints, run, step)]
    except TrackingError:
        return  # The check of running runs says it.
    if lost:
        yield Finding(
            f"{few(lost)} {'is' if len(lost) == 1 else 'are'} pinned, but neither MLflow, a work directory, checkpoints/ nor imports/ has "
            f"{'it' if len(lost) == 1 else 'them'}",
            "a pin keeps matwm prune from removing a checkpoint, and something else has",
            f'bring it back ("dvc pull", a copy of mlruns), or take the pin away: matwm pin --remove {lost[0]}',
        )


def _is_somewhere(checkpoints: Checkpoints, run: Run, step: int) -> bool:
    pointer = checkpoints.project / "imports" / run.id / f"{places.step_folder(step)}.dvc"
    return step in checkpoints.where(run) or pointer.is_file()
