"""Draws learning curves by fixed opponents, and what agents' words say of goals, out of result files."""

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.learn import inside
from benchmarks.learn.measures import ABLATED, ABLATIONS, FINAL, TASKS, Measure
from pipeline.drawing import words as speaking
from pipeline.drawing.figures import COLOURS, DARK, QUIET, drawing, png

CURVES, COMPARED, INSIDE = "learning.png", "learning_ablations.png", "learning_inside.png"
WORDS = {f"learning_words_{scenario}.png": scenario for scenario in TASKS}
"""Picture -> its scenario; it is drawn where results say what agents said."""
TITLES = {
    CURVES: "Judged by environment steps, each seed and the mean",
    COMPARED: "Ablations on Simple Spread",
    INSIDE: "What training knew of itself, by environment steps",
    **{name: f"Words by goals over training, {TASKS[scenario].title}, sampled" for name, scenario in WORDS.items()},
}

Found = Mapping[str, Mapping[str, Mapping[int, Mapping[str, Any]]]]
"""Name of jobs -> scenario -> seed -> result."""


def names(found: Found) -> list[str]:
    """Return the names of the pictures that there are results for."""
    has_final = any(found[FINAL].values())
    of_words = [name for name, scenario in WORDS.items() if speakers(found[FINAL].get(scenario, {}))]
    return [CURVES, INSIDE] * has_final + of_words + [COMPARED] * any(found[name][ABLATED] for name in ABLATIONS)


def pictures(found: Found) -> dict[str, bytes]:
    """Return the PNG files by name."""
    draw = {CURVES: _curves, COMPARED: _ablations, INSIDE: lambda found: inside.figure(TITLES[INSIDE], found[FINAL])}
    with drawing():
        return {name: _few_colours(png(draw[name](found) if name in draw else _words(name, found))) for name in names(found)}


def _few_colours(picture: bytes) -> bytes:
    """Return a PNG file with a palette of 256 colours: a third of the size, and nothing that is seen."""
    file = io.BytesIO()
    opaque = Image.open(io.BytesIO(picture)).convert("RGB")
    opaque.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


def _curves(found: Found) -> Figure:
    """Draw a panel for each measure that somebody was judged by."""
    panels = [
        (scenario, measure) for scenario, runs in found[FINAL].items() if runs for measure in TASKS[scenario].measures if measure.has_curve
    ]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.4 * columns + 0.4, 3.1 * rows + 0.7), layout="constrained")
    figure.suptitle(TITLES[CURVES], x=0.01, ha="left")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (scenario, measure) in zip(grid, panels, strict=False):
        _draw(axes, found[FINAL][scenario], measure, COLOURS[1], "MATWM, sampled")
        for value, colour, line, label in (
            (measure.random, QUIET, ":", "random"),
            *((value, COLOURS[0], ":", "script") for value in measure.scripts),
            (measure.model_free, QUIET, "--", "MAPPO, 50,000 steps"),
            (measure.model_free_long, QUIET, "-.", "MAPPO, 1,000,000"),
        ):
            if value is not None:
                axes.axhline(value, color=colour, linestyle=line, linewidth=1.3, label=label)
        axes.set_title(f"{TASKS[scenario].title}: {measure.label}", loc="left", color=DARK, fontsize=11)
        if measure.metric:
            axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
        _finish(axes)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    named = {label: line for axes in grid for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named.keys(), loc="outside lower left", ncols=len(named), fontsize=11)
    return figure


def _ablations(found: Found) -> Figure:
    figure = Figure(figsize=(9.5, 4.5), layout="constrained")
    axes = figure.subplots()
    (measure,) = TASKS[ABLATED].measures
    labels = {FINAL: "complete", **{name: label for name, (label, _, _) in ABLATIONS.items()}}
    for colour, (name, label) in zip((COLOURS[1], COLOURS[0], COLOURS[2], COLOURS[3]), labels.items(), strict=True):
        if runs := found[name][ABLATED]:
            _draw(axes, runs, measure, colour, f"{label} ({len(runs)} seed{'s' * (len(runs) > 1)})")
    axes.set_title(f"{TITLES[COMPARED]}: return of each agent, sampled", loc="left", color=DARK)
    _finish(axes)
    axes.legend(fontsize=10)
    return figure


def _draw(axes: Axes, runs: Mapping[int, Mapping[str, Any]], measure: Measure, colour: str, label: str) -> None:
    """Draw each seed faint, and their mean where every one has a point."""
    curves = [dict(points(run, measure)) for run in runs.values()]
    for curve in curves:
        axes.plot(list(curve), list(curve.values()), color=colour, alpha=0.35, linewidth=0.9, marker=".", markersize=4)
    shared = sorted(set.intersection(*(set(curve) for curve in curves)))
    axes.plot(shared, [float(np.mean([curve[step] for curve in curves])) for step in shared], color=colour, label=label)


def points(run: Mapping[str, Any], measure: Measure) -> Iterator[tuple[int, float]]:
    """Yield (step, mean) of the judgements inside training, all on the same episodes."""
    for step, rows in run["curve"].items():
        for row in rows:
            if row["mode"] == "sampled" and measure.is_of(row):
                yield int(step), row["mean"]


def _words(name: str, found: Found) -> Figure:
    return speaking.words(TITLES[name], speakers(found[FINAL][WORDS[name]]))


def speakers(runs: Mapping[int, Mapping[str, Any]]) -> list[speaking.Speaker]:
    """Return each speaker of each seed, where result files say what it said: those of earlier versions do not."""
    return [
        speaking.Speaker(f"seed {seed}: {name}", moments[-1][1]["goals"], [_moment(step, row) for step, row in moments])
        for seed, run in runs.items()
        for name, moments in spoken(run).items()
    ]


def spoken(run: Mapping[str, Any]) -> dict[str, list[tuple[int, Mapping[str, Any]]]]:
    """Return what each speaker said in self-play at each judged step, sampled; at the last step, in the episodes of the last judgement."""
    by_step = {**{int(step): rows for step, rows in run["curve"].items()}, run["steps"]: run["evaluation"]}
    found: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for step, rows in sorted(by_step.items()):
        for row in rows:
            if "speaker" in row and (row["mode"], row["matchup"]) == ("sampled", "self_play"):
                found.setdefault(row["speaker"], []).append((step, row))
    return found


def _moment(step: int, row: Mapping[str, Any]) -> speaking.Moment:
    counts = np.array(row["words"], np.float64)
    totals = counts.sum(1, keepdims=True)
    shares = np.where(totals > 0, counts / np.maximum(totals, 1), np.nan)
    share = float("nan") if row["information_share"] is None else row["information_share"]
    return speaking.Moment(step, shares, row["information"], share, row["reached"], row["swapped_followed"], row["swapped_reached"])


def _finish(axes: Axes) -> None:
    axes.set_xlim(left=0)
    axes.set_xlabel("environment steps")
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
