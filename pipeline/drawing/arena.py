"""Draws what checkpoints get with and against each other: a matrix for each role."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.drawing.figures import DARK

Square = Float[np.ndarray, "P P"]


def arena(title: str, note: str, players: Sequence[str], matrices: Sequence[tuple[str, Square, Square]]) -> Figure:
    """Draw matrices of means with their standard errors, each with its own colours; (title, means, errors)."""
    side = max(4.2, 1.15 * len(players) + 0.11 * max(map(len, players)) + 1.0)
    figure = Figure(figsize=(side * len(matrices) + 0.4, side + 0.7), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left")
    figure.supxlabel(note, fontsize=10, color=DARK, x=0.01, ha="left")
    for axes, one in zip(figure.subplots(1, len(matrices), squeeze=False)[0], matrices, strict=True):
        _matrix(axes, players, *one)
    return figure


def _matrix(axes: Axes, players: Sequence[str], title: str, mean: Square, stderr: Square) -> None:
    image = axes.imshow(mean, cmap="Blues")
    axes.set_title(title, loc="left", color=DARK)
    places = range(len(players))
    is_long = max(map(len, players)) > 8
    axes.set_xticks(places, players, rotation=30 if is_long else 0, ha="right" if is_long else "center")
    axes.set_yticks(places, players)
    axes.set_xlabel("who plays all others")
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    for row, column in np.ndindex(mean.shape):
        is_dark = float(np.asarray(image.norm(mean[row, column]))) > 0.6
        text = f"{mean[row, column]:.2f}\n± {stderr[row, column]:.2f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=11, color="white" if is_dark else DARK)
