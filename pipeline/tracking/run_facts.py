"""`metrics/<segment>/run.json`: the facts of the run that trained what is published, for git.

DVC does not know the file: its run cache brings back checkpoints and curves without calling the stage. Then the file may be another
training's, and is made again from the work directory, else from MLflow.
"""

import logging
from pathlib import Path
from typing import Any

from matwm.checkpoint import Checkpoint
from pipeline import project as places
from pipeline import runs
from pipeline.keys import manifest_key
from pipeline.metrics.mismatches import COUNT_TAG, TAG
from pipeline.run import HEARTBEAT, PARENT, SHOWN_BELOW, WATERMARK, git_of
from pipeline.tracking.local_run import FACTS
from pipeline.tracking.state import Contents, State

KEPT = (SHOWN_BELOW, "mlflow.source.git.commit")
"""Tags of MLflow's own that are ours to set."""

logger = logging.getLogger(__name__)


def run_facts(checkpoint: Checkpoint, run: Contents) -> dict[str, Any]:
    """Return what `run.json` has of a run, one of whose checkpoints this is."""
    tags, parent = run.tags, checkpoint.parent
    return {
        "run_id": run.run_id,
        "segment": run.segment,
        "key": run.key,
        "parent": {"run_id": tags.get(PARENT), "step": parent.step, "digest": parent.digest},
        "git": git_of(tags),
        "numerics": checkpoint.manifest["numerics"],
        **(run.machine or {}),
        "resumed_at": run.resumed_at,
        "not_reproduced": {"points": int(tags.get(COUNT_TAG, 0)), "first": tags.get(TAG)},
        "experiment": run.experiment,
        "tags": tags,
        "started": run.started,
        "finished": run.finished,
    }


def is_of_another_run(project: Path, segment: str, checkpoint: Checkpoint) -> bool:
    """Return whether `run.json` of a segment is missing, or is not of the training of its published checkpoint."""
    return places.run_record(project, segment).get("key") != manifest_key(checkpoint.manifest)


def restore_run_facts(project: Path, segment: str, checkpoint: Checkpoint) -> None:
    """Write `run.json` of a segment anew if it is not of the training of its published checkpoint; remove it if nobody knows that run.

    Raises:
        TrackingError: MLFLOW_TRACKING_URI cannot be used.
    """
    if not is_of_another_run(project, segment, checkpoint):
        return
    key, path = manifest_key(checkpoint.manifest), places.metrics_folder(project, segment) / "run.json"
    try:
        found = _in_work(project, segment, key) or _in_mlflow(segment, key)
    except runs.TrackingError as error:
        logger.warning("%s is of another training than checkpoints/%s: %s", path.relative_to(project), segment, error)
        return
    if found:
        places.write_json(path, run_facts(checkpoint, found))
        logger.warning("%s is made anew from run %s, which trained %s", path.relative_to(project), found.run_id, checkpoint.path.name)
    elif path.exists():
        path.unlink()
        name = path.relative_to(project)
        logger.warning("%s is of another training than checkpoints/%s, whose run nothing here knows: it is removed", name, segment)


def _in_work(project: Path, segment: str, key: str) -> Contents | None:
    path = places.work_folder(project, segment, key) / FACTS
    contents = State(path).now if path.is_file() else None
    return contents if contents and contents.key == key and contents.finished else None


def _in_mlflow(segment: str, key: str) -> Contents | None:
    runs.ping()
    run = runs.find_by_key(segment, key)
    if run is None:
        return None
    tags = {name: value for name, value in run.tags.items() if name.startswith("matwm.") or name in KEPT}
    for name in (HEARTBEAT, WATERMARK):
        tags.pop(name, None)
    contents = Contents(segment=segment, key=key, run_id=run.run_id, started=run.started, finished=run.finished, tags=tags)
    contents.machine, contents.experiment = dict(run.machine), str(run.experiment)
    return contents
