"""Keeps what a run has shown along its whole lineage: training metrics and episode returns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from matwm.arrays import Arrays, names_in

if TYPE_CHECKING:  # It imports torch, for seconds: points and episodes do without.
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
    metrics: Mapping[str, float] = field(default_factory=dict, compare=False)
    """What the environment said of it at its end; curves hold their means, episodes that were saved do not."""


class Table:
    """Rows of numbers that are only ever added to: what has been looked at once never changes, so that no save has to copy it."""

    def __init__(self, rows: np.ndarray) -> None:
        self._array, self._count = rows, len(rows)

    def __len__(self) -> int:
        return self._count

    def append(self, row: float | Sequence[float]) -> None:
        """Add a row."""
        if self._count == len(self._array):  # Those who look at the old array keep it.
            larger = np.empty((2 * self._count + 16, *self._array.shape[1:]), self._array.dtype)
            larger[: self._count] = self._array
            self._array = larger
        self._array[self._count] = row
        self._count += 1

    def view(self) -> np.ndarray:
        """Return the rows so far, without copying."""
        return self._array[: self._count]


class Curve(Sequence[tuple[int, float]]):
    """The (step, value) points of one metric, oldest first."""

    def __init__(self, points: Sequence[tuple[int, float]] | np.ndarray = ()) -> None:
        self._table = Table(np.array(points, np.float64).reshape(-1, 2))

    def __len__(self) -> int:
        return len(self._table)

    @overload
    def __getitem__(self, index: int) -> tuple[int, float]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[int, float]]: ...
    def __getitem__(self, index: int | slice) -> tuple[int, float] | list[tuple[int, float]]:
        found = self._table.view()[index].tolist()
        return [(int(step), value) for step, value in found] if isinstance(index, slice) else (int(found[0]), found[1])

    def __iter__(self) -> Iterator[tuple[int, float]]:
        return iter(self[:])

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment] it grows

    def __repr__(self) -> str:
        return f"Curve({self[:]})"

    def append(self, step: int, value: float) -> None:
        """Add a point."""
        self._table.append((step, value))

    def view(self) -> np.ndarray:
        """Return the points so far, (n, 2), without copying."""
        return self._table.view()


class Episodes(Sequence[Episode]):
    """Every finished episode, oldest first."""

    def __init__(self, end_step: Any = (), length: Any = (), returns: Any = None) -> None:
        self._end_step, self._length = (Table(np.array(column, np.int64)) for column in (end_step, length))
        self._returns = None if returns is None else Table(np.array(returns, np.float64))

    def __len__(self) -> int:
        return len(self._end_step)

    @overload
    def __getitem__(self, index: int) -> Episode: ...
    @overload
    def __getitem__(self, index: slice) -> list[Episode]: ...
    def __getitem__(self, index: int | slice) -> Episode | list[Episode]:
        if isinstance(index, int):
            index = range(len(self))[index]
            return self[index : index + 1][0]
        columns = (column[index].tolist() for column in self.columns().values())
        return [Episode(end, length, tuple(returns)) for end, length, returns in zip(*columns, strict=True)]

    def __iter__(self) -> Iterator[Episode]:
        return iter(self[:])

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment] it grows

    def __repr__(self) -> str:
        return f"Episodes({self[:]})"

    def append(self, episode: Episode) -> None:
        """Add an episode."""
        if self._returns is None:
            self._returns = Table(np.empty((0, len(episode.returns)), np.float64))
        self._end_step.append(episode.end_step)
        self._length.append(episode.length)
        self._returns.append(episode.returns)

    def columns(self) -> dict[str, np.ndarray]:
        """Return end_step (n), length (n) and returns (n, N) so far, without copying; nothing if there is no episode."""
        if self._returns is None:
            return {}
        return {"end_step": self._end_step.view(), "length": self._length.view(), "returns": self._returns.view()}


@dataclass
class History:
    """Cumulative curves and episodes; means over an unfinished interval are part of it."""

    metrics: dict[str, Curve] = field(default_factory=dict)
    episodes: Episodes = field(default_factory=Episodes)
    _pending: dict[str, tuple[float, int]] = field(default_factory=dict)

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> "History":
        """Return the history in a file of a checkpoint."""
        past = cls()
        past._take({"/".join(names_in(path)): array for path, array in arrays.items()})
        return past

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
            self.metrics.setdefault(point.key, Curve()).append(point.step, point.value)
        return points

    def state_dict(self) -> "State":
        """Return everything as float64 and int64 arrays, which later points do not change; the cost does not grow with the run."""
        import torch

        state: dict[str, torch.Tensor] = {}
        for key, curve in self.metrics.items():
            state[f"metrics/{key}"] = torch.from_numpy(curve.view())
        for key, pending in self._pending.items():
            state[f"pending/{key}"] = torch.tensor(pending, dtype=torch.float64)
        for name, column in self.episodes.columns().items():
            state[f"episodes/{name}"] = torch.from_numpy(column)
        return state

    def load_state_dict(self, state: "State", /) -> None:
        """Take over a saved history."""
        from torch import Tensor

        self._take({name: value.numpy() for name, value in state.items() if isinstance(value, Tensor)})

    def _take(self, arrays: Arrays) -> None:
        self.metrics, self.episodes, self._pending = {}, Episodes(), {}
        for name, array in arrays.items():
            kind, _, key = name.partition("/")
            if kind == "metrics":
                self.metrics[key] = Curve(array)
            elif kind == "pending":
                total, count = array.tolist()
                self._pending[key] = (total, int(count))
        if "episodes/end_step" in arrays:
            self.episodes = Episodes(*(arrays[f"episodes/{name}"] for name in ("end_step", "length", "returns")))
