"""Prints a diagnosis for people."""

import math
from collections.abc import Iterator, Sequence

from benchmarks.learn.diagnosis import SHOWN_STEPS, Diagnosis


def text(found: Diagnosis) -> str:
    """Return the tables."""
    return "\n\n".join([*_tables(found)]) + "\n"


def _tables(found: Diagnosis) -> Iterator[str]:
    roles = list(found.play)
    names = list(found.play[roles[0]])
    yield _table(["fresh self-play, sampled", *roles], [[name, *(_number(found.play[role][name]) for role in roles)] for name in names])
    yield _table(["world model on whole episodes", ""], [[name, _number(value)] for name, value in found.world_model.items()])
    for role in roles:
        steps = found.horizon[role]
        shown = [k for k in steps if k in (0, *SHOWN_STEPS, max(steps))]
        names = list(steps[max(steps)])
        rows = [[name, *(_number(steps[k].get(name)) for k in shown)] for name in names]
        yield _table([f"{role}: open loop, real actions, after", *map(str, shown)], rows)
        entries = found.entries[role]
        names = list(entries[0])
        yield _table(
            [f"{role}: rms error of entry", *(str(number) for number in range(len(entries)))],
            [[name, *(f"{entry[name]:.2f}" for entry in entries)] for name in names],
        )


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):  # no rows
        return ""
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [head, *rows]
    ]
    return "\n".join(line.rstrip() for line in [lines[0], "-" * len(lines[0]), *lines[1:]])
