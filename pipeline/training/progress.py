"""Shows how far training is: a bar on a terminal, a line every so often elsewhere."""

import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text

PLAIN = "MATWM_PLAIN_PROGRESS"
"""Set where several trainings share a terminal: lines instead of a bar."""
MARKS, MARK_SECONDS = 20, 3.0
"""Steps a second are counted over as many stretches, each at least so long: about the last minute."""


class Display:
    """Where a segment's training is, for a person: steps, rate, time left, latest returns and last checkpoint."""

    def __init__(self, segment: str, until: int, *, line_seconds: float, stream: TextIO | None = None) -> None:
        self.step, self.until = 0, until
        self._segment, self._line_seconds, self._stream = segment, line_seconds, stream or sys.stderr
        self._bar: Progress | None = None
        self._returns = ""
        self._checkpoint: int | None = None
        self.begin(0)

    def __enter__(self) -> "Display":
        if self._stream.isatty() and not os.environ.get(PLAIN):
            columns = (
                TextColumn("[bold]{task.description}"), BarColumn(bar_width=12), TaskProgressColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[rate]:.1f}/s"), TextColumn("{task.fields[left]}"), TextColumn("{task.fields[saved]}"),
            )  # fmt: skip
            self._bar = _BarOverReturns(*columns, console=Console(file=self._stream), refresh_per_second=4)
            self._task = self._bar.add_task(self._segment, total=self.until, rate=0.0, left="", saved="", returns="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # a terminal that was closed
            if self._bar is not None:
                self._bar.stop()
            elif self.step:
                self.say_where()

    def begin(self, step: int) -> None:
        """Take note of the step that training goes on from."""
        self.step = self._start = step
        self._last_line = time.monotonic()
        self._marks = deque([(self._last_line, step)], maxlen=MARKS)
        if self._bar is not None:
            self._bar.reset(self._task, completed=step)  # what was trained before says nothing about the time that is left

    @property
    def rate(self) -> float:
        """Steps a second of late: warm-up is many times faster than what follows and says nothing about it."""
        then, step = self._marks[0]
        return (self.step - step) / max(time.monotonic() - then, 1e-9)

    def advance(self, step: int) -> None:
        """Take note of a finished step."""
        self.step = step
        now = time.monotonic()
        if now - self._marks[-1][0] >= MARK_SECONDS:
            self._marks.append((now, step))
        if self._bar is not None:
            self._bar.update(self._task, completed=step, rate=self.rate, left=self._left(), returns=self._returns)
        elif time.monotonic() - self._last_line >= self._line_seconds:
            self.say_where()

    def returns(self, means: Mapping[str, float], episodes: int) -> None:
        """Take note of each role's mean return, an agent's, of the latest episodes: one alone says little."""
        self._returns = f"{', '.join(f'{role} {mean:.1f}' for role, mean in means.items())} ({episodes} episode{'s' * (episodes != 1)})"

    def saved(self, step: int) -> None:
        """Take note of a checkpoint."""
        self._checkpoint = step
        if self._bar is not None:
            self._bar.update(self._task, saved=f"checkpoint {step}")

    def say_where(self) -> None:
        """Write a line where there is no bar."""
        if self._bar is not None:
            return
        self._last_line = time.monotonic()
        times = f"{self.rate:.1f} steps/s, {self._left()} left, " if self.step > self._start else ""
        line = f"{self._segment} step {self.step}/{self.until} ({self.step / self.until:.0%}), {times}{self._note()}"
        self._stream.write(f"{line.rstrip(', ')}\n")
        self._stream.flush()

    def _left(self) -> str:
        return _duration((self.until - self.step) / self.rate) if self.step > self._start and self.rate else ""

    def _note(self) -> str:
        parts = [f"return {self._returns}"] if self._returns else []
        parts += [f"checkpoint {self._checkpoint}"] if self._checkpoint is not None else []
        return ", ".join(parts)


class _BarOverReturns(Progress):
    """Gives the returns a line of their own: beside the bar they would squeeze steps and time left out of a terminal of 80 columns."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the bar, then the returns."""
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            yield Text(task.fields["returns"] and f"return {task.fields['returns']}", no_wrap=True, overflow="ellipsis")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
