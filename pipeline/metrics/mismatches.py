"""Keeps what came out otherwise when a step was computed again: the evidence that a resume was not exact."""

import contextlib
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger(__name__)

TAG = "matwm.not_reproduced"
COUNT_TAG = "matwm.not_reproduced_points"
MOST_REPORTED = 10


class Mismatch(NamedTuple):
    """A metric that came out otherwise when its step was computed again: the resume was not exact."""

    key: str
    step: int
    recorded: float
    recomputed: float

    def __str__(self) -> str:
        return f"{self.key} at step {self.step} was {self.recorded!r} and is {self.recomputed!r} when computed again"


class Mismatches:
    """All mismatches of a run, each (key, step) once, in a file that outlives the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[tuple[str, int], Mismatch] = {}
        for line in path.read_bytes().splitlines() if path.is_file() else []:
            try:
                key, step, recorded, recomputed = json.loads(line)
                self._found.setdefault((key, step), Mismatch(key, step, float(recorded), float(recomputed)))
            except (ValueError, TypeError):
                continue  # A crash tore it; the others are evidence enough.

    def __len__(self) -> int:
        return len(self._found)

    def all(self) -> list[Mismatch]:
        """Return them in the order in which they were found."""
        return list(self._found.values())

    def report(self, found: Iterable[Mismatch]) -> None:
        """Keep them, and say loudly which are new."""
        new = {mismatch[:2]: mismatch for mismatch in found if mismatch[:2] not in self._found}
        self._found.update(new)
        lines = b"".join(json.dumps([key, step, str(old), str(now)]).encode() + b"\n" for key, step, old, now in new.values())
        if lines:
            with contextlib.suppress(OSError), self.path.open("ab") as file:  # A full disk does not stop the telling.
                file.write(lines)
        for mismatch in list(new.values())[:MOST_REPORTED]:
            logger.error("NOT REPRODUCED: %s (%s); the first value stays", mismatch, self.path.parent)
        if len(new) > MOST_REPORTED:
            logger.error("NOT REPRODUCED: %d more points (%s)", len(new) - MOST_REPORTED, self.path)

    def tags(self) -> dict[str, str]:
        """Return the tags of a run that was not reproduced; none if it was."""
        first = next(iter(self._found.values()), None)
        return {TAG: str(first), COUNT_TAG: str(len(self))} if first else {}
