"""Stage `validate`: refuses a wrong params.yaml, one sentence a problem, before DVC deletes or trains anything.

It looks at this machine as well: devices, environments, memory, and the checkpoints that trained segments have kept. It asks no
server and writes nothing but its marker and, in `.matwm`, sizes of networks for the next time.
"""

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from matwm.config import ConfigError
from matwm.errors import run_program
from matwm.params_yaml import parse_sweeps, read_params
from matwm.version import NUMERICS
from matwm.yaml_text import read_yaml
from pipeline import dvc_files, runs, source_code
from pipeline import project as places
from pipeline.catalog import numerics
from pipeline.estimates.forecast import Forecast, forecast
from pipeline.params.segments import ResolvedSegment, resolve_all
from pipeline.stores import remote

MARKER = ".params.ok"
MARKER_TEXT = "params.yaml is valid; this file never changes, so that no stage runs again because of it\n"
VALIDATED = "MATWM_VALIDATED"
"""In the environment: the digest of a params.yaml that the calling `matwm repro` has found valid, so that the stage need not again."""


def validate(project: Path, *, retrains: bool = False) -> dict[str, ResolvedSegment]:
    """Return the segments of a project's params.yaml; with `retrains`, also where this code would train again what another one has.

    Raises:
        ConfigError: one sentence for each thing that is wrong.
    """
    path = project / places.PARAMS
    if not path.is_file():
        raise ConfigError([f'{places.PARAMS} does not exist: write one with "matwm preset cpu-small"'])
    params = read_params(path)
    segments = resolve_all(params, project)
    problems = [*dropped_origins(project, segments, params), *missing_devices(segments), *refused_pushes(project, segments)]
    problems += [damage] if (damage := dvc_files.damage(project)) else []
    problems += [*unknown_objectives(segments), *unusable_store(project), *shadowed_code(project)]
    if any(sweep.search for sweep in parse_sweeps(params).values()) and (missing := missing_optuna()):
        problems.append(f"{places.PARAMS}: {missing}")
    problems += [*stale_numerics(project), *unplayable_environments(project, segments)]
    if not retrains:
        problems += numerics.refusal(numerics.of_other_numerics(project, segments))
    if problems:
        raise ConfigError(problems)
    return segments


def digest(project: Path) -> str:
    """Return the digest of a project's params.yaml (see `VALIDATED`)."""
    path = project / places.PARAMS
    return hashlib.sha256(path.read_bytes() if path.is_file() else b"").hexdigest()


def foresee(project: Path, segments: dict[str, ResolvedSegment]) -> Forecast:
    """Return what the segments that are not trained yet will take, and what there is to warn of.

    Raises:
        ConfigError: this machine has not the memory.
        TrackingError: MLFLOW_TRACKING_URI names a store that cannot be used.
    """
    found = forecast(project, segments, read_params(project / places.PARAMS))
    without = source_code.no_commit(project)
    return replace(found, warnings=[f"runs are recorded without a commit: {without}", *found.warnings]) if without else found


def dropped_origins(project: Path, segments: Mapping[str, ResolvedSegment], params: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each segment that starts from a checkpoint which its parent, trained by now, has not kept."""
    problems: list[str] = []
    kept: dict[str, list[int] | None] = {}
    for name, segment in segments.items():
        parent, step = segment.origin.segment, segment.origin.step
        if parent is None:
            continue
        if parent not in kept:
            kept[parent] = _kept_steps(project, parent, params)
        steps = kept[parent]
        if steps is not None and step not in steps:
            parent_key, entry = _entry(params, parent)
            keep = sorted({*(entry.get("keep") or ()), step})
            problems.append(
                f"{places.PARAMS}: {_entry(params, name)[0]}.from is {segment.origin.folder!r}, but {parent} is trained and has "
                f"step{'s' * (len(steps) != 1)} {places.named(steps)}: choose one of these, or add keep: {keep} to {parent_key}, "
                "which then brings that checkpoint back"
            )
    return problems


def _entry(params: Mapping[str, Any], name: str) -> tuple[str, Mapping[str, Any]]:
    """Return the key of params.yaml that describes a segment or a trial, and what stands there."""
    sweep, slash, _ = name.partition("/")
    section, key = ("sweeps", sweep) if slash else ("segments", name)
    return f"{section}.{key}", params[section][key]


def _kept_steps(project: Path, segment: str, params: Mapping[str, Any]) -> list[int] | None:
    """Return the steps of a segment that DVC will not train again, None if it will, or if they are not known on this machine."""
    stages = dvc_files.lock(project)
    if not dvc_files.is_trained(stages, segment, params):
        return None
    folder = places.published_folder(project, segment)
    if folder.is_dir():
        return places.steps_in(folder)
    listed = dvc_files.listed_checkpoints(project, segment)
    return None if listed is None else sorted({step for name in listed if (step := places.step_of(name.split("/")[0])) is not None})


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


def refused_pushes(project: Path, segments: Mapping[str, ResolvedSegment]) -> list[str]:
    """Return a sentence if checkpoints are to go to a DVC remote while training that takes them from `dvc push` alone."""
    wanting = [name for name, segment in segments.items() if segment.config.tracking.push]
    refusal = remote.refusal(project) if wanting else None
    return [f"{places.PARAMS}: tracking.push is true (segment {', '.join(wanting)}): {refusal}"] if refusal else []


def unknown_objectives(segments: Mapping[str, ResolvedSegment]) -> list[str]:
    """Return a sentence for each `evaluation.objective` that names a match-up, or a role in it, that is not judged."""
    chosen = {(str(one.config.env), one.config.evaluation.objective): one.config for one in segments.values()}
    problems: list[str] = []
    for config in [config for config in chosen.values() if config.evaluation.objective]:
        from matwm.envs.scripted import learners

        (objective,), known = config.objectives, learners(config.env)
        where = f"{places.PARAMS}: evaluation.objective is {config.evaluation.objective!r}, but"
        if objective.matchup not in known:
            problems.append(f"{where} {config.env.name} has no match-up {objective.matchup} (known: {', '.join(known)})")
        elif (roles := known[objective.matchup]) is not None and objective.role not in (None, *roles):
            problems.append(f"{where} who learns in {objective.matchup} of {config.env.name} is {', '.join(roles)}")
    return problems


def missing_optuna() -> str | None:
    """Return a sentence if Optuna is not installed."""
    return None if find_spec("optuna") else 'a search needs Optuna, which is not installed: pip install -c constraints.txt -e ".[tune]"'


def unusable_store(project: Path) -> list[str]:
    """Return a sentence if MLFLOW_TRACKING_URI can never work; whether a server answers is not asked."""
    try:
        runs.tracking_uri(project)
    except runs.TrackingError as error:
        return [str(error)]
    return []


def shadowed_code(project: Path) -> list[str]:
    """Return a sentence if stages, which Python starts in the project, would import a file of the user's in the place of this package."""
    if (project / "pipeline.py").is_file() and not (project / "pipeline").is_dir():
        return [f"{project / 'pipeline.py'} is imported by the stages in the place of MATWM's package pipeline: rename it"]
    return []


def stale_numerics(project: Path) -> list[str]:
    """Return a sentence if the project was made for a matwm of other numerics than the one that is installed."""
    if places.numerics_file(project) != places.NUMERICS_FILE:
        return []
    path, stages = project / places.NUMERICS_FILE, project / "dvc.yaml"
    if not path.exists() and places.NUMERICS_FILE.encode() not in (stages.read_bytes() if stages.is_file() else b""):
        return []  # DVC is not asked to look at it.
    try:
        found = read_yaml(path.read_text(encoding="utf-8")).get("NUMERICS")
    except (OSError, yaml.YAMLError, ValueError, AttributeError):
        found = None
    if found == NUMERICS:
        return []
    said = "is missing or damaged" if found is None else f"has NUMERICS: {found}, and the matwm that is installed trains by {NUMERICS}"
    return [f'{places.NUMERICS_FILE} {said}: write "NUMERICS: {NUMERICS}" into it, or install the matwm that it was made for']


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
    if os.environ.get(VALIDATED) != digest(project):
        for warning in foresee(project, validate(project)).warnings:
            sys.stderr.write(f"{warning}\n")
    places.write_text(project / MARKER, MARKER_TEXT)


if __name__ == "__main__":
    sys.exit(main())
