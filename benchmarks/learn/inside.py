"""Draws what training knew of itself, out of the thinned curves in result files: each beside what it is to be held against."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.learn.measures import TASKS
from pipeline.drawing.figures import COLOURS, DARK, QUIET

Runs = Mapping[int, Mapping[str, Any]]
"""Seed -> result."""


@dataclass(frozen=True)
class Panel:
    """Curves of one panel: what it is about, and (key, label, colour, line) of each."""

    title: str
    lines: Sequence[tuple[str, str, str, str]]


def figure(title: str, found: Mapping[str, Runs]) -> Figure:
    """Draw a row of panels for each scenario that has results: means over its seeds, and single seeds faint."""
    rows = [(scenario, runs, list(_panels(runs))) for scenario, runs in found.items() if runs]
    columns = max(len(panels) for _, _, panels in rows)
    drawn = Figure(figsize=(3.7 * columns, 2.9 * len(rows) + 0.5), layout="constrained")
    drawn.suptitle(title, x=0.01, ha="left")
    grid = drawn.subplots(len(rows), columns, squeeze=False)
    for line, (scenario, runs, panels) in zip(grid, rows, strict=True):
        for axes in line[len(panels) :]:
            axes.set_visible(False)
        for number, (axes, panel) in enumerate(zip(line, panels, strict=False)):
            _draw(axes, runs, panel)
            axes.set_title(f"{TASKS[scenario].title}: {panel.title}" if number == 0 else panel.title, loc="left", color=DARK, fontsize=10)
    return drawn


def _panels(runs: Runs) -> Iterator[Panel]:
    keys = set.intersection(*(set(run["training"]) for run in runs.values()))
    roles = sorted(key.split("/")[1] for key in keys if key.startswith("agents/") and key.endswith("/entropy_share"))
    own = dict(zip(roles, cycle(COLOURS), strict=False))
    yield Panel(
        "cross-entropy of rewards",
        [("world_model/reward", "reward head", COLOURS[1], "-"), ("world_model/reward_marginal", "frequencies alone", QUIET, "--")],
    )
    yield Panel("error of an observation entry", [("world_model/reconstruction_rmse", "reconstruction", COLOURS[1], "-")])
    if "world_model/teammate_accuracy" in keys:
        mates = ("world_model/teammate_accuracy", "predicted", COLOURS[1], "-")
        yield Panel("mates' actions", [mates, ("world_model/teammate_majority", "most frequent action", QUIET, "--")])
    rewards = [(f"agents/{role}/reward_imagined", f"{role}, imagined", colour, "-") for role, colour in own.items()]
    yield Panel(
        "reward a step", rewards + [(f"agents/{role}/reward_real", f"{role}, replay", colour, "--") for role, colour in own.items()]
    )
    yield Panel("entropy of policies / ln A", [(f"agents/{role}/entropy_share", role, colour, "-") for role, colour in own.items()])


def _draw(axes: Axes, runs: Runs, panel: Panel) -> None:
    for key, label, colour, line in panel.lines:
        curves = [np.array(run["training"][key], float) for run in runs.values()]  # null is NaN
        steps = [np.array(run["training"]["step"], float) for run in runs.values()]
        for at, curve in zip(steps, curves, strict=True):
            axes.plot(at, curve, color=colour, linestyle=line, alpha=0.3, linewidth=0.8)
        if all(np.array_equal(at, steps[0]) for at in steps):
            axes.plot(steps[0], np.mean(curves, axis=0), color=colour, linestyle=line, linewidth=1.8, label=label)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda step, _: f"{step / 1000:,.0f}k" if step else "0")
    axes.legend(fontsize=8)
