"""The records of a run that the last commit has: those of a machine that is gone, or of files that DVC has deleted before a stage."""

import logging
import tempfile
from pathlib import Path

from pipeline import project as places
from pipeline import source_code
from pipeline.metrics.points import TimedPoint
from pipeline.metrics.recorded import FILES, read_recorded

logger = logging.getLogger(__name__)


def committed_records(project: Path, segment: str, key: str) -> list[TimedPoint]:
    """Return the records that the last commit has of a training; none without git, or if the commit holds another training."""
    with tempfile.TemporaryDirectory() as temporary:
        for name in ("run.json", *FILES):
            data = source_code.git_output(project, "show", f"HEAD:./metrics/{segment}/{name}")
            if data is not None:
                (Path(temporary) / name).write_bytes(data)
        if (places.read_json(Path(temporary) / "run.json") or {}).get("key") != key:
            return []
        try:
            return read_recorded(Path(temporary))
        except places.ProjectError as error:
            logger.warning("metrics/%s in the last commit cannot be read: %s", segment, error)
            return []
