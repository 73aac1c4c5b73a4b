"""Draws the curves of a lineage for people: each function turns numbers into one matplotlib figure, and nothing else."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

Curve = tuple[Float[np.ndarray, " P"], Float[np.ndarray, " P"]]
"""Environment steps and the values there."""

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.titlesize": 15,
    "lines.linewidth": 2.0,
    "axes.formatter.useoffset": False,
}
DPI = 150
WIDTH = 9.5
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444")
"""Okabe and Ito's, which the colour-blind can tell apart; agents take them in their order, roles in theirs."""
LINES = ("-", "--", ":", "-.")
QUIET, DARK = "#8c8c8c", "#333333"
SMOOTHING_EPISODES = 40
SMOOTHING_POINTS = 10
MOST_LABELS = 8
"""Segments of a longer lineage get lines without names."""


@dataclass(frozen=True)
class Stretch:
    """A segment on its way from the root to the end of a lineage."""

    name: str
    start: int
    label: str


@dataclass(frozen=True)
class Lineage:
    """What all figures of one lineage say the same way."""

    title: str
    stretches: Sequence[Stretch]
    roles: Mapping[str, Sequence[str]]
    """Role -> its agents."""
    warmup: int = 0
    resumes: Sequence[int] = ()
    """Steps at which an interrupted segment was taken up again."""
    max_steps: int | None = None
    """Where episodes are truncated, if they are."""

    @property
    def limit(self) -> str:
        """What returns depend on, to be said with them."""
        return f", truncated at {self.max_steps:,} steps" if self.max_steps else ""

    def colour(self, role: str) -> str:
        """Return the role's colour."""
        return COLOURS[list(self.roles).index(role) % len(COLOURS)]


@contextmanager
def drawing() -> Iterator[None]:
    """Draw alike on every machine, whatever its own settings are."""
    with style.context(["default", STYLE]):
        yield


def png(figure: Figure) -> bytes:
    """Return the figure's file: the same bytes for the same numbers."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def returns(lineage: Lineage, curves: Mapping[str, Curve]) -> Figure:
    """Draw each agent's return in the training episodes: single ones faint, a trailing mean bold; one panel a role."""
    figure, panels = _panels(len(lineage.roles), f"Return of training episodes – {lineage.title}")
    for axes, (role, agents) in zip(panels, lineage.roles.items(), strict=True):
        window = 1
        for number, (label, agent) in enumerate(_distinct(agents, curves)):
            steps, values = curves[agent]
            window = max(1, min(SMOOTHING_EPISODES, len(values) // 5))
            colour, line = _agent_style(lineage, role, number)
            axes.plot(steps, values, color=colour, alpha=0.22, linewidth=0.6)
            axes.plot(*_smooth(steps, values, window), color=colour, linestyle=line, label=label)
        axes.set_ylabel(f"return per episode{lineage.limit}".replace(", ", ",\n"))
        axes.set_title(f"{role}, mean of the last {window} episodes", loc="left", color=DARK)
        _mark(axes, lineage, is_first=axes is panels[0])
        _legend(axes)
        if lineage.warmup:
            axes.axvspan(0, lineage.warmup, color="#f0f0f0", zorder=0, linewidth=0)
    panels[-1].set_xlabel(f"environment steps{' (shaded: random actions)' if lineage.warmup else ''}")
    return figure


def losses(lineage: Lineage, curves: Mapping[str, Curve]) -> Figure:
    """Draw the world model's loss by term, a panel each."""
    columns = min(4, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(3.4 * columns + 0.6, 2.8 * rows + 0.9), layout="constrained")
    figure.suptitle(f"World-model loss by term – {lineage.title}", x=0.01, ha="left")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True).flat
    for number, ((name, curve), axes) in enumerate(zip(curves.items(), grid, strict=False)):  # leaves the empty panels in `grid`
        axes.plot(*curve, color=DARK if name == "total" else COLOURS[1], linewidth=1.6)
        axes.set_title(name.replace("_", " "), loc="left", color=DARK)
        if (curve[1] > 0).all() and curve[1].max() > 20 * curve[1].min():
            axes.set_yscale("log")
        if number % columns == 0:
            axes.set_ylabel("loss")
        if number >= len(curves) - columns:
            axes.set_xlabel("environment steps")
            axes.xaxis.set_tick_params(labelbottom=True)
        _mark(axes, lineage, is_first=False, ticks=3)
    for axes in grid:
        axes.set_visible(False)
    return figure


def rewards(lineage: Lineage, imagined: Mapping[str, Curve], real: Mapping[str, Curve]) -> Figure:
    """Draw the mean reward of imagined steps against that of real ones, one panel a role."""
    figure, panels = _panels(len(lineage.roles), f"Imagined against real reward – {lineage.title}")
    for axes, (role, agents) in zip(panels, lineage.roles.items(), strict=True):
        for curves, colour, line, label in ((real, DARK, "--", "real, in the replay"), (imagined, lineage.colour(role), "-", "imagined")):
            curve = _mean_curve([curves[agent] for agent in agents])
            axes.plot(*curve, color=colour, alpha=0.22, linewidth=0.8)
            axes.plot(*_smooth(*curve, _points_window(curve)), color=colour, linestyle=line, label=label)
        axes.set_ylabel("reward per step")
        axes.set_title(role if len(agents) == 1 else f"{role}, mean of {len(agents)} agents", loc="left", color=DARK)
        _mark(axes, lineage, is_first=axes is panels[0])
        _legend(axes)
    panels[-1].set_xlabel("environment steps")
    return figure


def teammates(lineage: Lineage, accuracy: Curve, majority: Curve) -> Figure:
    """Draw how often the teammate predictor is right, against always naming what each mate does most often."""
    figure, (axes,) = _panels(1, f"Teammate prediction – {lineage.title}")
    for curve, colour, line, label in (
        (majority, DARK, "--", "most frequent action"),
        (accuracy, COLOURS[1], "-", "teammate predictor"),
    ):
        axes.plot(*curve, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(*_smooth(*curve, _points_window(curve)), color=colour, linestyle=line, label=label)
    axes.set_ylim(0, 1)
    axes.set_ylabel("share of actions predicted")
    axes.set_xlabel("environment steps")
    _mark(axes, lineage, is_first=True)
    _legend(axes)
    return figure


def _panels(count: int, title: str) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, 1.6 + 2.9 * count), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left")
    return figure, list(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0])


def _mark(axes: Axes, lineage: Lineage, *, is_first: bool, ticks: int = 8) -> None:
    """Mark where each segment goes on from a checkpoint, and set the axis of steps."""
    stretches = lineage.stretches
    for stretch in stretches:
        if stretch.start:
            axes.axvline(stretch.start, color=DARK, linestyle=(0, (2, 2)), linewidth=1.1)
    for number, step in enumerate(lineage.resumes):
        label = "resumed" if is_first and number == 0 else None
        axes.plot(step, 0.0, "^", color=DARK, markersize=7, clip_on=False, transform=axes.get_xaxis_transform(), label=label)
    if is_first and len(stretches) <= MOST_LABELS:
        for stretch in (stretch for stretch in stretches if stretch.start):
            axes.annotate(
                stretch.label, (stretch.start, 1.0), xycoords=axes.get_xaxis_transform(), xytext=(4, -3), textcoords="offset points",
                fontsize=10, color=DARK, va="top", bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
            )  # fmt: skip
    axes.set_xlim(left=0)
    axes.margins(x=0.01)
    axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))


def _legend(axes: Axes) -> None:
    """Put the legend where it covers nothing: on the title's line, or beside the panel if it is long."""
    is_short = len(axes.get_legend_handles_labels()[1]) <= 2
    where = {"loc": "lower right", "bbox_to_anchor": (1.0, 0.98)} if is_short else {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
    axes.legend(**where, ncols=2 if is_short else 1, fontsize=11, borderaxespad=0.2)


def _agent_style(lineage: Lineage, role: str, number: int) -> tuple[str, str]:
    """Return the colour and line of the n-th distinct agent of a role."""
    before = sum(len(agents) for other, agents in list(lineage.roles.items())[: list(lineage.roles).index(role)])
    return (lineage.colour(role), "-") if number == 0 else (COLOURS[(before + number + 1) % len(COLOURS)], LINES[number % len(LINES)])


def _distinct(agents: Sequence[str], curves: Mapping[str, Curve]) -> list[tuple[str, str]]:
    """Return (label, agent) for each different curve: agents that share every reward are one line."""
    groups: dict[bytes, list[str]] = {}
    for agent in agents:
        groups.setdefault(curves[agent][1].tobytes(), []).append(agent)
    return [
        (same[0] if len(same) == 1 else f"{same[0]} to {same[-1].rsplit('_', 1)[1]} (all the same)", same[0]) for same in groups.values()
    ]


def _smooth(steps: np.ndarray, values: np.ndarray, window: int) -> Curve:
    """Return the trailing mean over `window` values, from the first full window on."""
    if len(values) < window:
        return steps, values
    total = np.cumsum(np.concatenate([[0.0], values]))
    return steps[window - 1 :], (total[window:] - total[:-window]) / window


def _points_window(curve: Curve) -> int:
    return max(1, min(SMOOTHING_POINTS, len(curve[0]) // 8))


def _mean_curve(curves: Sequence[Curve]) -> Curve:
    return curves[0][0], np.mean([values for _, values in curves], axis=0)
