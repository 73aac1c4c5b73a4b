"""Stage `validate`: refuses a wrong params.yaml, one sentence a problem, before DVC deletes or trains anything."""

import sys
from pathlib import Path

from matwm.config import ConfigError
from matwm.errors import run_program
from matwm.params_yaml import read_params
from pipeline import project as places
from pipeline import republish
from pipeline.params.forecast import Forecast, forecast
from pipeline.segments import ResolvedSegment, resolve_all

MARKER = ".params.ok"
MARKER_TEXT = "params.yaml is valid; this file never changes, so that no stage runs again because of it\n"


def validate(project: Path) -> dict[str, ResolvedSegment]:
    """Return the segments of a project's params.yaml.

    Raises:
        ConfigError: one sentence for each thing that is wrong.
    """
    path = project / places.PARAMS
    if not path.is_file():
        raise ConfigError([f'{places.PARAMS} does not exist: write one with "matwm preset cpu-small"'])
    segments = resolve_all(read_params(path), project)
    if problems := [*missing_devices(segments), *unplayable_environments(project, segments)]:
        raise ConfigError(problems)
    return segments


def foresee(project: Path, segments: dict[str, ResolvedSegment]) -> Forecast:
    """Return what the segments that are not trained yet will take, and what there is to warn of.

    Raises:
        ConfigError: this machine has not the memory.
        TrackingError: MLFLOW_TRACKING_URI names a store that cannot be used.
    """
    return forecast(project, segments, read_params(project / places.PARAMS))


def missing_devices(segments: dict[str, ResolvedSegment]) -> list[str]:
    """Return a sentence if segments are to be trained on a device that is not here."""
    wanting = [name for name, segment in segments.items() if segment.config.run.device == "cuda"]
    if not wanting:
        return []
    import torch

    if torch.cuda.is_available():
        return []
    return [
        f"params.yaml: run.device is cuda (segment {', '.join(wanting)}), but torch {torch.__version__} sees no CUDA device here: "
        "set run.device to cpu, or install torch's CUDA build and driver"
    ]


def unplayable_environments(project: Path, segments: dict[str, ResolvedSegment]) -> list[str]:
    """Return a sentence for each thing that is wrong with environments of which params.yaml does not say everything."""
    if all(segment.config.env.family == "mpe" for segment in segments.values()):
        return []
    from matwm.envs.base import EnvError
    from matwm.envs.probe import probe
    from matwm.settings import unplayable

    places.make_importable(project)
    problems: list[str] = []
    for config in {str(one.config.env): one.config for one in segments.values()}.values():
        try:
            problems += unplayable(config, probe(config.env))
        except EnvError as error:
            problems += error.problems
    return [f"{places.PARAMS}: {problem}" for problem in problems]


def main() -> int:
    """Run the stage: write the marker, or say what is wrong and return 1."""
    return run_program(_run_stage)


def _run_stage() -> None:
    project = places.root()
    segments = validate(project)
    for warning in foresee(project, segments).warnings:
        sys.stderr.write(f"{warning}\n")
    for name, segment in segments.items():
        if lacking := republish.lacking(project, name, segment.needed, read_params(project / places.PARAMS)):
            republish.bring_back(project, name, lacking)
    places.write_text(project / MARKER, MARKER_TEXT)


if __name__ == "__main__":
    sys.exit(main())
