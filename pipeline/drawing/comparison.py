"""Draws settings side by side: the median over seeds and the band between the quartiles."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline.drawing.figures import COLOURS, DARK, LINES, QUIET, WIDTH


@dataclass(frozen=True)
class Band:
    """A setting over the steps."""

    setting: str
    seeds: int
    steps: Float[np.ndarray, " P"]
    quartiles: Float[np.ndarray, "3 P"]


@dataclass(frozen=True)
class Panel:
    """What one objective or role has."""

    title: str
    bands: Sequence[Band]
    lines: Mapping[str, float]
    """Name -> what scripts get."""


@dataclass(frozen=True)
class Bar:
    """A setting's score with its interval."""

    label: str
    number: int
    """Of the setting, which decides the colour."""
    value: float
    interval: tuple[float, float] | None
    points: Sequence[float]
    """Of each seed."""


def curves(title: str, label: str, panels: Sequence[Panel]) -> Figure:
    """Draw a panel below the other, each with a line and a band a setting."""
    figure = Figure(figsize=(WIDTH, 1.4 + 3.0 * len(panels)), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left")
    settings = list(dict.fromkeys(band.setting for panel in panels for band in panel.bands))
    every: list[Axes] = list(figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0])
    for axes, panel in zip(every, panels, strict=True):
        for band in panel.bands:
            number = settings.index(band.setting)
            colour, line = COLOURS[number % len(COLOURS)], LINES[number // len(COLOURS) % len(LINES)]
            marker = "o" if len(band.steps) <= 12 else None
            axes.plot(band.steps, band.quartiles[1], line, color=colour, marker=marker, label=f"{band.setting} (n = {band.seeds})")
            axes.fill_between(band.steps, band.quartiles[0], band.quartiles[2], color=colour, alpha=0.2, linewidth=0)
        for name, value in panel.lines.items():
            axes.axhline(value, color=QUIET, linestyle=(0, (4, 3)), linewidth=1.1, zorder=1)
            axes.annotate(
                name, (1.0, value), xycoords=axes.get_yaxis_transform(), xytext=(-3, 2), textcoords="offset points", ha="right",
                fontsize=9, color=DARK,
            )  # fmt: skip
        axes.set_title(panel.title, loc="left", color=DARK)
        axes.set_ylabel(label)
        axes.set_xlim(left=0)
    every[-1].set_xlabel("environment steps")
    every[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    every[-1].xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    handles = {label: handle for axes in every for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    columns = 2 if max(map(len, handles), default=0) < 40 else 1
    figure.legend(list(handles.values()), list(handles), loc="outside lower left", ncols=columns, fontsize=11)
    return figure


def bars(title: str, label: str, rows: Sequence[Bar]) -> Figure:
    """Draw a row a setting: the seeds as dots, the summary as a mark, its interval as a line; 0 is random play, 1 the best script."""
    figure = Figure(figsize=(WIDTH, 1.6 + 0.5 * len(rows)), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left")
    axes: Axes = figure.subplots()
    for number, row in enumerate(rows):
        colour = COLOURS[row.number % len(COLOURS)]
        axes.plot(row.points, [number] * len(row.points), "o", color=colour, alpha=0.35, markersize=5)
        if row.interval:
            axes.plot(row.interval, [number, number], color=colour, linewidth=3, solid_capstyle="butt")
        axes.plot(row.value, number, "D", color=colour, markersize=8)
    for value in (0.0, 1.0):
        axes.axvline(value, color=QUIET, linestyle=(0, (4, 3)), linewidth=1.1, zorder=1)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(label)
    return figure


def svg(figure: Figure) -> bytes:
    """Return the figure as SVG: the same bytes for the same numbers."""
    file = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "matwm"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
