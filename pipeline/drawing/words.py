"""Draws what agents' words say of goals over training: matrices of words by goals, and what listeners make of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from pipeline.drawing.figures import COLOURS, DARK, QUIET

MOST_MATRICES = 6
"""Of one speaker: evenly chosen among the steps at which it was judged, the first and the last with them."""
MOST_NUMBERS = 5
"""Matrices with more words have no numbers in their cells."""
LEAST_COLUMNS = 3
ENDS: Sequence[tuple[str, Mapping[str, Any], str]] = (
    ("reached", {"linestyle": "-", "marker": "o", "markersize": 8, "markerfacecolor": "white"}, "told the goal: ends at the goal"),
    ("followed", {"linestyle": "--", "marker": "D", "markersize": 4}, "told another goal: ends at that one"),
    ("held", {"linestyle": ":", "marker": "x", "markersize": 6}, "told another goal: ends at the goal all the same"),
)
"""What listeners do, in the order of `Moment`, and how it is drawn: one above the other, where nobody listens, all three can be seen."""


@dataclass(frozen=True)
class Moment:
    """What was measured of one speaker and its listener at one step of training; shares are from 0 to 1."""

    step: int
    shares: Float[np.ndarray, "goals words"]
    """How often each word is said where a goal is given; NaN for a goal that no episode had."""
    information: float
    """Mutual information of word and goal, in nats."""
    information_share: float
    """The same by the goals' entropy; NaN where all episodes had one goal."""
    reached: float
    followed: float
    held: float


@dataclass(frozen=True)
class Speaker:
    """One row of matrices and one curve."""

    label: str
    goals: Sequence[str]
    moments: Sequence[Moment]


def words(title: str, speakers: Sequence[Speaker], starts: Sequence[int] = ()) -> Figure:
    """Draw each speaker's matrices over training, and below them the information and the listeners' ends; lines where a segment starts."""
    columns = max(LEAST_COLUMNS, *(len(_chosen(speaker.moments)) for speaker in speakers))
    most_words = max(speaker.moments[0].shares.shape[1] for speaker in speakers)
    width = max(11.0, columns * (1.6 + 0.12 * most_words) + 1.8)
    heights = (1.95 * len(speakers) + 0.9, 4.0)
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left")
    above, below = figure.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0]
    grid = above.subplots(len(speakers), columns, squeeze=False)
    image = None
    for row, (speaker, panels) in enumerate(zip(speakers, grid, strict=True)):
        for panel in panels:
            panel.set_visible(False)
        for column, (panel, moment) in enumerate(zip(panels, _chosen(speaker.moments), strict=False)):
            panel.set_visible(True)
            image = _matrix(panel, speaker, moment, is_left=column == 0, is_lowest=row == len(speakers) - 1)
    if image is not None:
        bar = above.colorbar(image, ax=grid, fraction=0.03, pad=0.01)
        bar.set_label("share of the steps\nof episodes with this goal", fontsize=10)
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    left, right = below.subplots(1, 2)
    _information(left, speakers)
    _ends(right, speakers)
    for axes in (left, right):
        _finish(axes, starts, max(moment.step for speaker in speakers for moment in speaker.moments))
    return figure


def _chosen(moments: Sequence[Moment]) -> list[Moment]:
    places = np.linspace(0, len(moments) - 1, min(MOST_MATRICES, len(moments))).round().astype(int)
    return [moments[place] for place in places]


def _matrix(axes: Axes, speaker: Speaker, moment: Moment, *, is_left: bool, is_lowest: bool) -> AxesImage:
    num_goals, num_words = moment.shares.shape
    axes.set_facecolor("#d9d9d9")  # seen through rows of NaN
    image = axes.imshow(moment.shares, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    share = "" if np.isnan(moment.information_share) else f", {100 * moment.information_share:.0f} %"
    axes.set_title(f"step {moment.step:,}: {moment.information:.2f} nats{share}", loc="left", fontsize=10, color=DARK)
    axes.set_xticks(range(num_words))
    axes.set_yticks(range(num_goals), speaker.goals if is_left else [""] * num_goals)
    axes.tick_params(length=0, labelsize=9)
    axes.grid(visible=False)
    if is_left:
        axes.set_ylabel(f"{speaker.label}\ngoal that it sees", fontsize=10)
    if is_lowest:
        axes.set_xlabel("word that it says", fontsize=10)
    for goal, word in np.ndindex(num_goals, num_words) if num_words <= MOST_NUMBERS else ():
        share = moment.shares[goal, word]
        if not np.isnan(share):
            axes.text(word, goal, f"{100 * share:.0f}", ha="center", va="center", fontsize=9, color="white" if share > 0.6 else DARK)
    for goal in np.flatnonzero(np.isnan(moment.shares[:, 0])):
        axes.text((num_words - 1) / 2, float(goal), "no episode", ha="center", va="center", fontsize=9, color=DARK)
    return image


def _information(axes: Axes, speakers: Sequence[Speaker]) -> None:
    for number, speaker in enumerate(speakers):
        steps, shares = [moment.step for moment in speaker.moments], [moment.information_share for moment in speaker.moments]
        axes.plot(steps, shares, color=_colour(number), marker="o", markersize=4, label=speaker.label)
    axes.set_title(
        "Mutual information of word and goal (above: in nats),\nas a share of the goals' entropy", loc="left", fontsize=11, color=DARK
    )
    axes.set_ylabel("100 %: the word tells the goal", fontsize=10)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=min(3, len(speakers)), fontsize=9)


def _ends(axes: Axes, speakers: Sequence[Speaker]) -> None:
    for number, speaker in enumerate(speakers):
        for name, line, _ in ENDS:
            steps, shares = [moment.step for moment in speaker.moments], [getattr(moment, name) for moment in speaker.moments]
            axes.plot(steps, shares, color=_colour(number), linewidth=1.6, **line)
    goals = len(speakers[0].goals)
    axes.axhline(1 / goals, color=QUIET, linewidth=1.0)
    axes.set_title("Where the listener ends its episode:\nthe landmark that it is nearest to", loc="left", fontsize=11, color=DARK)
    axes.set_ylabel("share of episodes", fontsize=10)
    # In black: an entry stands for speakers of several colours.
    lines = [Line2D([], [], color=DARK, linewidth=1.6, label=meaning, **line) for _, line, meaning in ENDS]
    lines.append(Line2D([], [], color=QUIET, linewidth=1.0, label=f"by chance, 1 of {goals}"))
    axes.legend(handles=lines, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=9)


def _finish(axes: Axes, starts: Sequence[int], last: int) -> None:
    for start in starts:
        axes.axvline(start, color=DARK, linestyle=(0, (2, 2)), linewidth=1.1)
    axes.set_xlim(0, 1.04 * last)
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("environment steps")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
