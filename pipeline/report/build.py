"""Makes the figures of a report from settings."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from matwm.scenarios.objective import Objective
from pipeline.drawing import comparison
from pipeline.drawing.comparison import Band, Bar, Panel
from pipeline.drawing.figures import Curve
from pipeline.report.numbers import Training, objectives_of, scored
from pipeline.report.statistics import aligned, band, interquartile_mean, interval

Settings = Mapping[str, Sequence[Training]]


def figures(settings: Settings) -> dict[str, Figure]:
    """Return the figures for which there are numbers, by name."""
    made = {"training returns": _returns(settings), "evaluations": _evaluations(settings), "scores": _scores(settings)}
    return {name: figure for name, figure in made.items() if figure is not None}


def _returns(settings: Settings) -> Figure | None:
    panels: list[Panel] = []
    for scenario, objective in objectives_of(settings):
        role = objective.role
        if role is None:
            continue
        bands = list(_bands(settings, scenario, lambda one, role=role: one.returns(role), band))
        if bands and not any(panel.title == f"{scenario}, {role}" for panel in panels):
            panels.append(Panel(f"{scenario}, {role}", bands, {}))
    title = "Return of training episodes: median over seeds, band between the quartiles"
    return comparison.curves(title, "return per episode", panels) if panels else None


def _evaluations(settings: Settings) -> Figure | None:
    panels: list[Panel] = []
    for scenario, objective in objectives_of(settings):
        bands = list(_bands(settings, scenario, lambda one, objective=objective: one.judged(objective), aligned))
        if any(len(one.steps) > 1 for one in bands):
            panels.append(Panel(f"{scenario}, {objective}", bands, _lines(settings, scenario, objective)))
    return comparison.curves("Evaluations: median over seeds, band between the quartiles", "mean score", panels) if panels else None


def _scores(settings: Settings) -> Figure | None:
    rows: list[Bar] = []
    several = len(objectives_of(settings)) > 1
    for scenario, objective in objectives_of(settings):
        for setting, group in settings.items():
            judged = scored(group, scenario, objective)
            relative = [value for _, value in judged if value is not None]
            if relative and len(relative) == len(judged):
                scores = np.array(relative)
                label = f"{setting} – {objective}" if several else setting
                middle = float(interquartile_mean(scores[None])[0])
                rows.append(Bar(label, list(settings).index(setting), middle, interval([scores], interquartile_mean), relative))
    title = "Scores at the end: interquartile mean and 95 % interval"
    return comparison.bars(title, "score (0: random play, 1: best script)", rows) if rows else None


def _bands(
    settings: Settings, scenario: str, curve_of: Callable[[Training], Curve | None], summed: Callable[[Sequence[Curve]], Curve]
) -> Iterator[Band]:
    for setting, group in settings.items():
        curves = [curve for one in group if one.scenario == scenario and (curve := curve_of(one)) is not None]
        if curves and len((found := summed(curves))[0]):
            yield Band(setting, len(curves), *found)


def _lines(settings: Settings, scenario: str, objective: Objective) -> dict[str, float]:
    group = next(group for group in settings.values() if group[0].scenario == scenario)
    reference = group[0].reference(objective)
    return {**({"random": reference.random} if reference.random is not None else {}), **reference.scripts}
