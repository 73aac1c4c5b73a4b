"""Turns environment steps into windows for the world model and contexts for the agents: one joint ring for all agents.

All agents step together, so one time-major ring with an agent axis holds what N rings would, and a mate's action is at hand
for free. Rows have global numbers that never come back: row r lies at r modulo the storage. The storage is longer than the capacity
by a spare chunk, so that every chunk of `chunk_rows` global rows that holds a valid row lies complete in it, and a checkpoint
never has to rewrite a chunk because its first rows left the ring.
"""

import math
import threading
from bisect import bisect_right
from collections.abc import Mapping
from weakref import WeakSet

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped

from matwm.arrays import Arrays
from matwm.batches import Windows
from matwm.config import ReplayConfig
from matwm.mirror import Mirror
from matwm.stateful import Chunk, State
from matwm.types import NO_ACTION, EnvSpec, Step

MAX_REJECTIONS = 64
"""Overlapping windows refused before one is taken: early in training there is no room without overlap."""


class Replay:
    """The last `capacity` rows of experience of all agents, first in, first out."""

    def __init__(self, spec: EnvSpec, config: ReplayConfig, device: torch.device | None = None) -> None:
        """On a GPU as `device` observations of batches lie there already; all else is in memory."""
        self.config = config
        self._num_chunks = math.ceil(config.capacity / config.chunk_rows) + 1
        self._storage = self._num_chunks * config.chunk_rows
        n = spec.num_agents
        self._rows: dict[str, np.ndarray] = {
            "obs": np.zeros((self._storage, n, *spec.obs_shape), spec.obs_dtype),
            "action_mask": np.zeros((self._storage, n, spec.action_size), bool),
            "action": np.zeros((self._storage, n), np.int16),
            "reward": np.zeros((self._storage, n), np.float32),
            "terminated": np.zeros((self._storage, n), bool),
            "alive": np.zeros((self._storage, n), bool),
            "is_first": np.zeros(self._storage, bool),
            "is_last": np.zeros(self._storage, bool),
        }
        self._mirror: Mirror | None = None
        if device is not None and device.type != "cpu":
            self._mirror = Mirror(self._rows["obs"], device, stretch=config.chunk_rows)
        self._episode_start = np.zeros(self._storage, np.int64)
        self._starts_before = np.zeros((self._storage, n), np.int32)
        """At how many rows before this one each agent goes on; also for the next row to come. Only differences count."""
        self._mates = np.array([spec.mates(agent) for agent in range(n)], np.int64).reshape(n, n - 1)
        self._num_agents = n
        self._full_chunks: dict[int, Chunk] = {}
        self._readers: dict[int, WeakSet[RowReader]] = {}
        self._stored_from = 0
        self.total_rows = 0

    def __len__(self) -> int:
        """Return the number of rows that can be sampled."""
        return self.total_rows - self._oldest

    @property
    def _oldest(self) -> int:
        return max(self.total_rows - self.config.capacity, self._stored_from)

    def add(self, step: Step) -> None:
        """Append a row; beyond the capacity the oldest one leaves."""
        assert not step.is_last or (step.action == NO_ACTION).all(), "the final observation of an episode has no action"
        row, rows = self.total_rows, self._rows
        here, before = row % self._storage, (row - 1) % self._storage
        if here % self.config.chunk_rows == 0:
            self._let_go(row // self.config.chunk_rows - self._num_chunks)
        goes_on = row > self._stored_from and not rows["is_last"][before]
        assert step.is_first or goes_on, "an episode begins with a row that is_first"
        for name in ("obs", "action_mask", "action", "reward", "terminated", "alive", "is_first", "is_last"):
            rows[name][here] = getattr(step, name)
        self._episode_start[here] = row if step.is_first else self._episode_start[before]
        self.total_rows = row + 1
        goes_on = self._goes_on(np.full(self._num_agents, row), np.arange(self._num_agents))
        self._starts_before[self.total_rows % self._storage] = self._starts_before[here] + goes_on

    def cut(self) -> None:
        """End an episode that cannot go on at its newest row, as a time limit would: what that row's action led to is lost."""
        last = self.total_rows - 1
        at = last % self._storage
        if last < self._stored_from or self._rows["is_last"][at]:
            return
        self._let_go(last // self.config.chunk_rows)
        for name, value in (("action", NO_ACTION), ("reward", 0), ("terminated", False), ("is_last", True)):
            self._rows[name][at] = value

    def can_sample_windows(self, length: int) -> bool:
        """Return whether a window of this length fits."""
        return len(self) >= length

    def sample_windows(
        self, rng: np.random.Generator, *, per_agent: int, length: int, together: bool = False
    ) -> tuple[Windows, dict[str, float]]:
        """Draw windows for the world model, `per_agent` for each agent, and say what to log of them.

        With `together` all agents see the same stretches: window k of every agent has the same rows.

        `overlaps` counts windows that overlap for want of room; `age` is their rows' mean distance from the newest row.

        A window that starts a row earlier is less likely by the factor `recency_decay`. One agent's windows
        do not overlap. Windows span episodes (the model separates them by `is_first`), never the ring's head. Rows at which
        the focal agent is dead are padding, zeros as they would be before a context; a dead mate has no action.
        """
        assert self.can_sample_windows(length), f"{len(self)} rows hold no window of {length}"
        draws = 1 if together else self._num_agents
        ages = self._draw_ages(rng, (draws, per_agent, MAX_REJECTIONS + 1), len(self) - length + 1)
        candidates = self.total_rows - length - ages
        starts = np.empty((draws, per_agent), np.int64)
        overlaps = 0
        for agent in range(draws):
            for number in range(per_agent):
                choice, is_overlap = _first_free(candidates[agent, number], starts[agent, :number], length)
                starts[agent, number] = candidates[agent, number, choice]
                overlaps += is_overlap
        rows = np.repeat(starts, self._num_agents // draws, axis=0).reshape(-1, 1) + np.arange(length)
        described = {"overlaps": float(overlaps), "age": float(self.total_rows - 1 - rows.mean())}
        return self._gather(rows, np.ones(rows.shape, bool)), described

    def sample_contexts(
        self,
        rng: np.random.Generator,
        *,
        per_agent: int,
        length: int,
        together: bool = False,
        needed: Int[np.ndarray, "starts any"] | None = None,
    ) -> Windows:
        """Draw start rows for imagination, uniformly for each agent, with what went before them in the same episode.

        With `together` context k of every agent starts at the same row, one at which at least one agent goes on, or one of those in
        row k of `needed`; those of agents that do not go on are padding.

        The last row of each context is the start row. Any row may be one at which the agent is alive: also an episode's first
        and the last of one that ran out of time, but not of one that ended truly.
        Contexts shorter than `length` are padded on the left: zeros, no action, `is_valid` False. Those of an agent that has no
        such row, in a team that is not always whole, are padding throughout.
        """
        agents = np.repeat(np.arange(self._num_agents), per_agent)
        if together:
            everyone = np.broadcast_to(np.arange(self._num_agents), (per_agent, self._num_agents))
            starts = np.tile(self._draw_starts(rng, everyone if needed is None else needed), self._num_agents)
        else:
            starts = self._draw_starts(rng, agents[:, None])
        starts, is_start = starts[:, None], self._goes_on(starts, agents)[:, None]
        rows = starts + np.arange(1 - length, 1)
        first = np.maximum(self._episode_start[starts % self._storage], self._oldest)
        return self._gather(np.maximum(rows, first), (rows >= first) & is_start)

    def recent(self, count: int) -> tuple[Shaped[np.ndarray, "T N ..."], Int[np.ndarray, "T N"]]:
        """Return observations and actions of the newest rows, oldest first: of as many as are here.

        They may be fewer after a change: who acts on more rows than the replay of the checkpoint kept begins with those.
        """
        count = min(count, self.total_rows - self._stored_from)
        at = np.arange(self.total_rows - count, self.total_rows) % self._storage
        return self._rows["obs"][at], self._rows["action"][at].astype(np.int64)

    def _draw_ages(self, rng: np.random.Generator, shape: tuple[int, ...], count: int) -> Int[np.ndarray, "..."]:
        """Draw ages in [0, count) with probability proportional to decay^age, by inverting the geometric sum."""
        uniform, decay = rng.random(shape), self.config.recency_decay
        if decay == 1.0:  # the closed form would divide by log 1
            ages = uniform * count
        else:
            log_decay = math.log(decay)
            ages = np.log1p(uniform * math.expm1(count * log_decay)) / log_decay
        return np.minimum(ages.astype(np.int64), count - 1)

    def _draw_starts(self, rng: np.random.Generator, agents: Int[np.ndarray, "B any"]) -> Int[np.ndarray, " B"]:
        """Draw a row for each row of `agents` at which one of them goes on; for those who do nowhere, any."""
        oldest = self._oldest
        starts = rng.integers(oldest, self.total_rows, len(agents))
        for _ in range(MAX_REJECTIONS):
            dead = np.flatnonzero(~self._any_goes_on(starts, agents))
            if not dead.size:
                break
            starts[dead] = rng.integers(oldest, self.total_rows, dead.shape)
        else:  # hardly a row is left to these agents
            for place in np.flatnonzero(~self._any_goes_on(starts, agents)):
                starts[place] = self._draw_rare_start(rng, rng.permutation(agents[place]), otherwise=starts[place])
        return starts

    def _any_goes_on(self, rows: Int[np.ndarray, " B"], agents: Int[np.ndarray, "B any"]) -> Bool[np.ndarray, " B"]:
        """Return at which of the rows at least one of the agents beside it goes on."""
        return np.any(self._goes_on(np.repeat(rows, agents.shape[1]), agents.ravel()).reshape(agents.shape), axis=1)

    def _draw_rare_start(self, rng: np.random.Generator, agents: Int[np.ndarray, " any"], *, otherwise: np.integer) -> int:
        """Draw a row at which the first of `agents` goes on that does anywhere.

        Rows are drawn by their number among those of the agent: a binary search, however long the replay is.
        """
        for agent in agents:

            def before(row: int, agent: np.integer = agent) -> int:
                return int(self._starts_before[row % self._storage, agent])

            first, end = before(self._oldest), before(self.total_rows)
            if first < end:
                return self._oldest + bisect_right(range(self._oldest, self.total_rows), rng.integers(first, end), key=before) - 1
        return int(otherwise)

    def _goes_on(self, rows: Int[np.ndarray, " r"], agents: Int[np.ndarray, " r"] | np.integer) -> Bool[np.ndarray, " r"]:
        """Return at which global rows an agent is alive and its episode has not ended."""
        at = rows % self._storage
        has_ended = self._rows["is_last"][at] & self._rows["terminated"][at, agents]
        return self._rows["alive"][at, agents] & ~has_ended

    def _gather(self, rows: Int[np.ndarray, "B T"], is_valid: Bool[np.ndarray, "B T"]) -> Windows:
        """Look up global rows, grouped by focal agent, and blank those that are not valid or at which that agent is dead."""
        at = rows % self._storage
        agent = np.repeat(np.arange(self._num_agents), len(rows) // self._num_agents)
        focal, actions, alive = agent[:, None], self._rows["action"], self._rows["alive"]
        mates = at[:, :, None], self._mates[agent][:, None, :]
        is_valid = is_valid & alive[at, focal]
        terminated, is_last = self._rows["terminated"][at, focal], self._rows["is_last"][at]
        in_memory = ("action_mask", "reward") if self._mirror else ("obs", "action_mask", "reward")
        arrays = {name: self._rows[name][at, focal] for name in in_memory}
        arrays |= {
            "action": actions[at, focal].astype(np.int64),
            "mate_actions": np.where(alive[mates], actions[mates], NO_ACTION).astype(np.int64),
            "continues": 1 - (terminated & ~is_last).astype(np.float32),
            "is_first": self._rows["is_first"][at],
        }
        if (has_ended := terminated & is_last).any():
            arrays["action_mask"][has_ended] = False
        if not is_valid.all():
            for name, array in arrays.items():
                array[~is_valid] = NO_ACTION if name in ("action", "mate_actions") else 0
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        if self._mirror:
            tensors["obs"] = self._mirror.gather(rows, agent, is_valid, total_rows=self.total_rows)
        return Windows(agent=torch.from_numpy(agent), is_valid=torch.from_numpy(is_valid), **tensors)

    def state_dict(self) -> State:
        """Return the number of rows ever added and the chunks that hold valid rows, the last one perhaps partial.

        Nothing is copied here: a chunk reads its rows, which are final, when somebody asks for them, in whichever thread;
        `add` copies what it is about to overwrite for those chunks that are still in somebody's hands.
        """
        size = self.config.chunk_rows
        first, full = self._oldest // size, self.total_rows // size
        self._full_chunks = {number: self._full_chunks.get(number) or self._chunk(number, size) for number in range(first, full)}
        chunks = list(self._full_chunks.values())
        if tail := self.total_rows % size:
            chunks.append(self._chunk(full, tail))
        return {"total_rows": self.total_rows, "chunks": chunks}

    def _chunk(self, number: int, length: int, digest: str | None = None) -> Chunk:
        start = number % self._num_chunks * self.config.chunk_rows
        reader = RowReader({name: array[start : start + length] for name, array in self._rows.items()})
        self._readers.setdefault(number, WeakSet()).add(reader)
        return Chunk(reader, digest)

    def _let_go(self, number: int) -> None:
        """Prepare for overwriting a chunk."""
        self._full_chunks.pop(number, None)
        for reader in self._readers.pop(number, ()):
            reader.keep()

    def load_state_dict(self, state: State) -> None:
        """Take over saved rows: all of them if the capacity has grown, the newest if it has shrunk.

        Raises:
            ValueError: the rows are of another environment, or in chunks of another size.
        """
        total, chunks = _checked(state)
        size = self.config.chunk_rows
        first = -(-total // size) - len(chunks)
        if first < 0 or bool(total) != bool(chunks):
            raise ValueError(f"{len(chunks)} chunks do not hold {total} rows by replay.chunk_rows = {size}: a branch cannot change it")
        oldest_needed = max(total - self.config.capacity, 0) // size
        for number in list(self._readers):
            self._let_go(number)
        for number, chunk in enumerate(chunks, start=first):
            if number >= oldest_needed:
                self._restore(number, chunk, min(size, total - number * size))
        self._stored_from = max(first, oldest_needed) * size
        self.total_rows = total
        if self._mirror:
            self._mirror.forget()
        rows = np.arange(self._stored_from, total)
        is_first = self._rows["is_first"][rows % self._storage]
        # Where an episode's first row is no longer here, any earlier row serves: contexts stop at the oldest valid row.
        self._episode_start[rows % self._storage] = np.maximum.accumulate(np.where(is_first, rows, self._stored_from))
        self._starts_before[self._stored_from % self._storage] = 0
        for agent in np.arange(self._num_agents):
            self._starts_before[(rows + 1) % self._storage, agent] = np.cumsum(self._goes_on(rows, agent))

    def _restore(self, number: int, chunk: Chunk, length: int) -> None:
        arrays = chunk.arrays
        if arrays.keys() != self._rows.keys():
            raise ValueError(f"a chunk of the replay holds {sorted(arrays)}: expected {sorted(self._rows)}")
        start = number % self._num_chunks * self.config.chunk_rows
        for name, target in self._rows.items():
            found = arrays[name]
            if found.shape != (length, *target.shape[1:]) or found.dtype != target.dtype:
                raise ValueError(
                    f"{name} of a chunk of the replay is {found.dtype} {list(found.shape)}, expected {target.dtype} "
                    f"{[length, *target.shape[1:]]}: it is of another environment or another replay.chunk_rows"
                )
            target[start : start + length] = found
        if length == self.config.chunk_rows and chunk.digest is not None:
            self._full_chunks[number] = self._chunk(number, length, chunk.digest)


class RowReader:
    """Gives a copy of rows that are final as long as they lie in the ring, and afterwards those that it was told to keep in time."""

    def __init__(self, rows: Arrays) -> None:
        self._rows = rows
        self._is_kept = False
        self._lock = threading.Lock()

    def __call__(self) -> Arrays:
        """Return the rows."""
        with self._lock:  # so that nobody overwrites what is being copied
            return self._rows if self._is_kept else _copies(self._rows)

    def keep(self) -> None:
        """Copy the rows, which are about to be overwritten."""
        with self._lock:
            self._rows, self._is_kept = _copies(self._rows), True


def _copies(arrays: Arrays) -> Arrays:
    return {name: array.copy() for name, array in arrays.items()}


def rows_held(total_rows: int, num_chunks: int, config: ReplayConfig) -> int:
    """Return how many rows can be sampled once a saved state of `total_rows` in `num_chunks` chunks is loaded by a replay of this kind."""
    size = config.chunk_rows
    first = -(-total_rows // size) - num_chunks
    stored_from = max(first, max(total_rows - config.capacity, 0) // size) * size
    return total_rows - max(total_rows - config.capacity, stored_from)


def _first_free(candidates: Int[np.ndarray, " c"], taken: Int[np.ndarray, " w"], length: int) -> tuple[int, bool]:
    """Return the place of the first candidate that overlaps no window taken so far, else of the last, and whether it overlaps."""
    free = np.flatnonzero((np.abs(candidates[:, None] - taken) >= length).all(axis=1))
    return (int(free[0]), False) if free.size else (len(candidates) - 1, True)


def _checked(state: State) -> tuple[int, list[Chunk]]:
    if not isinstance(state, Mapping) or set(state) != {"total_rows", "chunks"}:
        raise ValueError(f"the replay's state holds {sorted(state)}: expected ['chunks', 'total_rows']")
    total, chunks = state["total_rows"], state["chunks"]
    if type(total) is not int or total < 0:
        raise ValueError(f"total_rows of the replay is {total!r}: expected a whole number from 0")
    if not isinstance(chunks, list) or not all(isinstance(chunk, Chunk) for chunk in chunks):
        raise ValueError("chunks of the replay is no list of chunks")
    return total, [chunk for chunk in chunks if isinstance(chunk, Chunk)]
