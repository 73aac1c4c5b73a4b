"""Draws an evaluation: what each learned role earns against each opponent, beside what scripts earn in its place."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.drawing.figures import COLOURS, DARK, QUIET, WIDTH, Lineage

MARKERS = {"random": "x", "still": "+"}
SCRIPT_MARKERS = ("^", "s", "v", "p")
WIN_RATE = "win rate"
"""The "role" of scores that are the share of episodes won."""


@dataclass(frozen=True)
class Score:
    """One role's mean return in a match-up with its standard error, or the win rate."""

    mode: str
    tactics: tuple[str, ...]
    role: str
    is_learned: bool
    mean: float
    stderr: float


def evaluation(lineage: Lineage, step: int, episodes: int, scores: Sequence[Score]) -> Figure:
    """Draw how often the learned agents win, where that is said, and what each of their roles earns, beside scripts in their place."""
    learned = [score for score in scores if score.is_learned]
    roles = [role for role in (WIN_RATE, *lineage.roles) if any(score.role == role for score in learned)]
    rows = {role: list(dict.fromkeys(score.tactics for score in learned if score.role == role)) for role in roles}
    heights = [len(rows[role]) + 0.6 for role in roles]
    figure = Figure(figsize=(WIDTH, 0.62 * sum(heights) + 0.55 * len(roles) + 1.5), layout="constrained")
    figure.suptitle(f"Evaluation at step {step:,} – {lineage.title}", x=0.01, ha="left")
    panels = figure.subplots(len(roles), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, role in zip(panels, roles, strict=True):
        for row, tactics in enumerate(rows[role]):
            _draw_row(axes, row, role, tactics, scores, COLOURS[2] if role == WIN_RATE else lineage.colour(role))
        axes.set_yticks(range(len(rows[role])), [_row_name(tactics) for tactics in rows[role]])
        axes.set_ylim(len(rows[role]) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        several = f", mean of {count} agents" if (count := len(lineage.roles.get(role, ()))) > 1 else ""
        axes.set_title(f"{role}{several}", loc="left", color=DARK)
    if roles[0] == WIN_RATE:
        panels[0].set_xlim(-0.03, 1.03)
        panels[0].set_xlabel(f"share of episodes won{lineage.limit}, mean ± standard error over {episodes} episodes")
    panels[-1].set_xlabel(f"return per episode{lineage.limit}, mean ± standard error over {episodes} episodes")
    entries = {label: handle[0] for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    handles = [_in_black(handle) if label.startswith("learned") else handle for label, handle in entries.items()]
    figure.legend(handles, entries.keys(), loc="outside lower center", ncols=min(4, len(entries)), fontsize=11)
    return figure


def _draw_row(axes: Axes, row: int, role: str, tactics: tuple[str, ...], scores: Sequence[Score], colour: str) -> None:
    axes.axhspan(row - 0.42, row + 0.42, color="#f6f6f6", zorder=0, linewidth=0)
    own = [score for score in scores if score.role == role and score.tactics == tactics and score.is_learned]
    for score in own:
        is_greedy = score.mode == "greedy"
        axes.errorbar(
            score.mean, row - 0.2 + 0.2 * is_greedy, xerr=score.stderr, color=colour, marker="D" if is_greedy else "o", markersize=8,
            markerfacecolor="white" if is_greedy else colour, markeredgewidth=1.8, elinewidth=2, linestyle="none", zorder=3,
            label=f"learned, {score.mode}",
        )  # fmt: skip
    for tactic, score in _in_its_place(role, tactics, scores):
        index = len([known for known in _scripts(scores) if known < tactic])
        marker = MARKERS.get(tactic, SCRIPT_MARKERS[index % len(SCRIPT_MARKERS)])
        shade = QUIET if tactic in MARKERS else DARK
        axes.errorbar(
            score.mean, row + 0.22, xerr=score.stderr, color=shade, marker=marker, markersize=8, elinewidth=1.2, linestyle="none",
            markeredgewidth=1.8, zorder=2, label=tactic if tactic in MARKERS else f"script: {tactic.replace('_', ' ')}",
        )  # fmt: skip


def _in_black(marker: Line2D) -> Line2D:
    """Return a marker for the legend, where one entry stands for roles of several colours."""
    filled = marker.get_markerfacecolor() != "white"
    return Line2D(
        [], [], color=DARK, marker=marker.get_marker(), markersize=8, markeredgewidth=1.8, linestyle="none",
        markerfacecolor=DARK if filled else "white",
    )  # fmt: skip


def _scripts(scores: Sequence[Score]) -> list[str]:
    return sorted({tactic for score in scores if score.mode == "reference" for tactic in score.tactics} - set(MARKERS))


def _in_its_place(role: str, tactics: tuple[str, ...], scores: Sequence[Score]) -> Iterator[tuple[str, Score]]:
    """Yield each script's tactic and score where it replaces the learner against the same opponents; none for self-play of two sides."""
    places = [place for place, tactic in enumerate(tactics) if tactic == "learned"]
    if len(places) != 1:
        return
    (place,) = places
    for score in scores:
        others = score.tactics[:place] + score.tactics[place + 1 :]
        if score.mode == "reference" and score.role == role and others == tactics[:place] + tactics[place + 1 :]:
            yield score.tactics[place], score


def _row_name(tactics: tuple[str, ...]) -> str:
    others = [tactic for tactic in tactics if tactic != "learned"]
    return f"against {', '.join(others)}".replace("_", " ") if others else "among themselves"
