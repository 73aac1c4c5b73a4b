"""Thins a training history to what plots need."""

import numpy as np

from benchmarks.learn.files import rounded
from matwm.history import History
from matwm.types import EnvSpec

BINS = 40


def thinned(history: History, spec: EnvSpec, steps: int) -> dict[str, list[float | None]]:
    """Return each curve as means over `BINS` equal stretches of `steps`, null where it has no point; `step` is where each ends.

    Curves of single agents (`agents/adversary_0/value`) become the mean over a role (`agents/adversary/value`).
    """
    role_of = {spec.agents[number]: role for role, numbers in spec.roles().items() for number in numbers}
    grouped: dict[str, list[np.ndarray]] = {}
    for key, curve in history.metrics.items():
        name = "/".join(role_of.get(part, part) for part in key.split("/"))
        grouped.setdefault(name, []).append(curve.view())
    episodes = history.episodes.columns()
    for role, numbers in spec.roles().items() if episodes else ():
        grouped[f"episode/return/{role}"] = [np.stack([episodes["end_step"], episodes["returns"][:, numbers].mean(1)], 1)]
    edges = np.linspace(0, steps, BINS + 1)
    curves = {key: _binned(np.concatenate(points), edges) for key, points in sorted(grouped.items())}
    return {"step": [rounded(edge) for edge in edges[1:]], **curves}


def _binned(points: np.ndarray, edges: np.ndarray) -> list[float | None]:
    place = np.clip(np.searchsorted(edges, points[:, 0], side="left") - 1, 0, BINS - 1)
    count = np.bincount(place, minlength=BINS)
    total = np.bincount(place, points[:, 1], minlength=BINS)
    return [rounded(value / number) if number else None for value, number in zip(total, count, strict=True)]
