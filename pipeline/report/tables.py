"""Lays scores out as rows, and rows as Markdown, CSV and LaTeX."""

import csv
import io
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.report.numbers import Training, objectives_of, scored
from pipeline.report.statistics import interquartile_mean, interval

COLUMNS = (
    "scenario",
    "objective",
    "setting",
    "seeds",
    "median",
    "quartiles",
    "IQM",
    "95 %",
    "random",
    "script",
    "normalised",
    "its 95 %",
)
ALL = "all"
LATEX = str.maketrans({"_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#"})


def rows(settings: Mapping[str, Sequence[Training]]) -> list[tuple[str, ...]]:
    """Return a row for each objective and setting: raw scores, then those with random play at 0 and the best script at 1.

    Below them, where there is more than one objective, the normalised scores of a setting over all of them.
    """
    found: list[tuple[str, ...]] = []
    normalised: dict[str, list[np.ndarray]] = {}
    for scenario, objective in objectives_of(settings):
        for setting, group in settings.items():
            if not (judged := scored(group, scenario, objective)):
                continue
            scores, relative = np.array([score for score, _ in judged]), [value for _, value in judged if value is not None]
            reference = next(one for one in group if one.scenario == scenario and one.rows).reference(objective)
            if len(relative) == len(judged):
                normalised.setdefault(setting, []).append(np.array(relative))
            low, middle, high = np.quantile(scores, [0.25, 0.5, 0.75])
            found.append((
                scenario, str(objective), setting, str(len(scores)), _number(middle), f"{_number(low)} to {_number(high)}",
                *_summary([scores]), _number(reference.random), _number(reference.script(objective)),
                *(_summary([np.array(relative)]) if len(relative) == len(judged) else ("-", "-")),
            ))  # fmt: skip
    if len(objectives_of(settings)) > 1:
        for setting, strata in normalised.items():
            count = str(max(map(len, strata)))
            found.append((ALL, f"{len(strata)} objectives", setting, count, "-", "-", "-", "-", "-", "-", *_summary(strata)))
    return found


def markdown(table: Sequence[Sequence[str]]) -> str:
    """Return rows as a table of Markdown."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *table]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_csv(table: Sequence[Sequence[str]]) -> str:
    """Return rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *table])
    return text.getvalue()


def latex(table: Sequence[Sequence[str]]) -> str:
    """Return rows as a table of LaTeX, with the rules of booktabs."""
    body = [" & ".join(cell.translate(LATEX) for cell in line) + r" \\" for line in (COLUMNS, *table)]
    head, *lines = body
    rules = [
        rf"\begin{{tabular}}{{lll{'r' * (len(COLUMNS) - 3)}}}",
        r"\toprule",
        head,
        r"\midrule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(rules) + "\n"


def _summary(strata: Sequence[np.ndarray]) -> tuple[str, str]:
    found = interval(strata, interquartile_mean)
    middle = float(interquartile_mean(np.concatenate(strata)[None])[0])
    return _number(middle), f"{_number(found[0])} to {_number(found[1])}" if found else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
