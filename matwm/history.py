"""Keeps what a run has shown along its whole lineage: training metrics and episode returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from matwm.stateful import State


@dataclass(frozen=True)
class Point:
    """One value of a curve over environment steps."""

    key: str
    step: int
    value: float


@dataclass(frozen=True)
class Episode:
    """One finished episode: the environment step that ended it, its length in steps and each agent's return."""

    end_step: int
    length: int
    returns: tuple[float, ...]


@dataclass
class History:
    """Cumulative curves and episodes; means over an unfinished interval are part of it."""

    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    episodes: list[Episode] = field(default_factory=list)
    _pending: dict[str, tuple[float, int]] = field(default_factory=dict)

    def add(self, values: Mapping[str, float]) -> None:
        """Take values into the means of the present interval."""
        for key, value in values.items():
            total, count = self._pending.get(key, (0.0, 0))
            self._pending[key] = (total + value, count + 1)

    def close_interval(self, step: int) -> list[Point]:
        """Append the interval's means as points at `step`, and return them."""
        points = [Point(key, step, total / count) for key, (total, count) in self._pending.items()]
        self._pending.clear()
        for point in points:
            self.metrics.setdefault(point.key, []).append((point.step, point.value))
        return points

    def state_dict(self) -> State:
        """Return everything as float64 and int64 arrays."""
        state: dict[str, Tensor] = {}
        for key, points in self.metrics.items():
            state[f"metrics/{key}"] = torch.tensor(points, dtype=torch.float64)
        for key, pending in self._pending.items():
            state[f"pending/{key}"] = torch.tensor(pending, dtype=torch.float64)
        if self.episodes:
            state["episodes/end_step"] = torch.tensor([e.end_step for e in self.episodes])
            state["episodes/length"] = torch.tensor([e.length for e in self.episodes])
            state["episodes/returns"] = torch.tensor([e.returns for e in self.episodes], dtype=torch.float64)
        return state

    def load_state_dict(self, state: State, /) -> None:
        """Take over a saved history."""
        self.metrics, self.episodes, self._pending = {}, [], {}
        arrays = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        for name, array in arrays.items():
            kind, _, key = name.partition("/")
            if kind == "metrics":
                self.metrics[key] = [(int(step), value) for step, value in array.tolist()]
            elif kind == "pending":
                total, count = array.tolist()
                self._pending[key] = (total, int(count))
        if "episodes/end_step" in arrays:
            columns = (arrays[f"episodes/{name}"].tolist() for name in ("end_step", "length", "returns"))
            self.episodes = [Episode(end, length, tuple(returns)) for end, length, returns in zip(*columns, strict=True)]
