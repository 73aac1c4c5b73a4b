"""Writes what a segment leaves in `metrics/<segment>/`: facts of its run, last values, curves and episodes."""

import csv
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from matwm import scenarios
from matwm.config import LossWeights
from matwm.history import History
from matwm.types import EnvSpec
from pipeline import project as places

LATEST_EPISODES = 20
"""Episodes whose returns a run is summed up, and a checkpoint is scored by."""
MODEL = "world_model/"
"""Begins the names of the world model's metrics."""
BESIDE_LOSSES = ("teammate_accuracy",)
"""What `dvc metrics show` has of the world model beside its loss and every term of it; everything else is in the curves."""


def write_curves(folder: Path, past: History, agents: Sequence[str], step: int, stopped: Mapping[str, int] | None = None) -> None:
    """Write the cumulative curves and episodes of a checkpoint, and their last values: a pure function of the history.

    `stopped` is added to the last values: at which step, and by which rule, training was stopped early.
    """
    places.write_text(folder / "training.csv", _table(["step", *_curve_names(past)], _curves(past)))
    columns = ["step", "length", *(f"return/{agent}" for agent in agents)]
    places.write_text(folder / "episodes.csv", _table(columns, ([e.end_step, e.length, *e.returns] for e in past.episodes)))
    places.write_json(folder / "train.json", {**_summary(past, agents, step), **(stopped or {})})


def loss_terms(metrics: Collection[str]) -> list[str]:
    """Return the parts of the world model's loss that a run has metrics of, without their `MODEL`: the total, and what has a weight."""
    return [term for term in ("total", *LossWeights.model_fields) if f"{MODEL}{term}" in metrics]


def latest_returns(past: History, agents: Sequence[str]) -> dict[str, float]:
    """Return each agent's mean return of the latest `LATEST_EPISODES` episodes; nothing before the first has ended."""
    latest = past.episodes[-LATEST_EPISODES:]
    return {agent: sum(e.returns[number] for e in latest) / len(latest) for number, agent in enumerate(agents)} if latest else {}


def latest_of_roles(past: History, spec: EnvSpec) -> tuple[dict[str, float], int]:
    """Return the mean return of each role's agents over the latest `LATEST_EPISODES` episodes, and how many these are."""
    means = list(latest_returns(past, spec.agents).values())
    roles = {role: sum(means[number] for number in numbers) / len(numbers) for role, numbers in spec.roles().items()} if means else {}
    return roles, min(len(past.episodes), LATEST_EPISODES)


def machine_facts(device: str, threads: int) -> dict[str, Any]:
    """Return what exact repetition depends on besides parameters and code."""
    libraries = [*computing(), "safetensors", "mlflow", "dvc"]
    return {"libraries": {name: found for name in libraries if (found := _version(name))}, "device": _device(device), "threads": threads}


def computing() -> list[str]:
    """Return the libraries whose versions decide numbers, if they are installed: exact repetition needs the same."""
    of_environments = [package for family in scenarios.families().values() for package in family.packages]
    return list(dict.fromkeys(["torch", "numpy", *of_environments]))


def drifted(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name what two `machine_facts` disagree about, of that on which exact repetition depends; what one does not say is no disagreement."""
    old, new = (
        {**(facts.get("libraries") or {}), "device": facts.get("device"), "threads": facts.get("threads")} for facts in (before, now)
    )
    told = [name for name in (*computing(), "device", "threads") if old.get(name) is not None and new.get(name) is not None]
    return [f"{name} {old[name]}, now {new[name]}" for name in told if old[name] != new[name]]


def _curve_names(past: History) -> list[str]:
    # The last column is what `dvc plots show` draws.
    return sorted(past.metrics, key=lambda name: (name == f"{MODEL}total", name))


def _curves(past: History) -> Iterable[list[Any]]:
    curves = [dict(past.metrics[name]) for name in _curve_names(past)]
    for step in sorted({step for curve in curves for step in curve}):
        yield [step, *(curve.get(step, "") for curve in curves)]


def _summary(past: History, agents: Sequence[str], step: int) -> dict[str, Any]:
    returns, latest = latest_returns(past, agents), past.episodes[-LATEST_EPISODES:]
    length = sum(episode.length for episode in latest) / len(latest) if latest else None
    named = [*loss_terms(past.metrics), *(name for name in BESIDE_LOSSES if f"{MODEL}{name}" in past.metrics)]
    losses = {name: past.metrics[f"{MODEL}{name}"][-1][1] for name in named}
    told = {f"return_of_{LATEST_EPISODES}_episodes": returns, f"length_of_{LATEST_EPISODES}_episodes": length}
    return {"step": step, "episodes": len(past.episodes), **told, "world_model": losses}


def _table(columns: list[str], rows: Iterable[list[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _device(device: str) -> str:
    if device != "cuda":
        return device
    import torch  # It costs seconds, and is there already where a GPU computes.

    return f"cuda {torch.cuda.get_device_name()}" if torch.cuda.is_available() else device
