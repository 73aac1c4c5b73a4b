"""Says how many trainings fit on this machine at a time, by their threads and by their estimated memory."""

import os
from pathlib import Path

from matwm.config import Config
from pipeline.estimates import estimate
from pipeline.estimates.forecast import available_memory
from pipeline.wording import readable


class Room:
    """Slots for trainings; the first one always has room, as it would by itself."""

    def __init__(self, project: Path, jobs: int, *, threads: int | None = None, memory: int | None = None) -> None:
        """`threads` and `memory` (bytes) are this machine's unless given."""
        self._project, self._jobs = project, jobs
        self._threads = threads or len(os.sched_getaffinity(0))
        self._memory = memory or available_memory()
        self._taken: dict[str, tuple[int, float]] = {}
        self.shortage: str | None = None
        """Why fewer are trained at a time than were asked for, None if that has not come to pass."""

    def has(self, config: Config, until: int) -> bool:
        """Return whether one more training fits."""
        if not self._taken:
            return True
        if len(self._taken) >= self._jobs:
            return False
        threads, memory = self._needs(config, until)
        threads += sum(taken for taken, _ in self._taken.values())
        memory += sum(taken for _, taken in self._taken.values())
        one_more = f"{len(self._taken)} instead of {self._jobs} trials are trained at a time: one more would take"
        if threads > self._threads:
            self.shortage = f"{one_more} {threads} threads together (run.threads), and this machine has {self._threads}"
        elif memory > self._memory:
            self.shortage = f"{one_more} about {readable(memory)} of memory together, and this machine has {readable(self._memory)}"
        return threads <= self._threads and memory <= self._memory

    def take(self, name: str, config: Config, until: int) -> None:
        """Take room for a training."""
        self._taken[name] = self._needs(config, until)

    def give_back(self, name: str) -> None:
        """Give it back."""
        del self._taken[name]

    def _needs(self, config: Config, until: int) -> tuple[int, float]:
        memory = estimate.memory(config, until, estimate.sizes(config, self._project))
        return config.run.threads, sum(memory.least.values()) + memory.rough
