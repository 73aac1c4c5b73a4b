"""Draws what a world model imagines beside what really came: errors by step, and frame by frame what each agent sees."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from matwm.config import EnvConfig
from matwm.envs.mpe_views import View, view
from matwm.open_loop import OpenLoop
from pipeline.drawing.figures import COLOURS, DARK, QUIET

MOST_AGENTS = 6
"""Agents of larger teams are left out of frames, the last ones."""
FRAME_HEIGHT = 720
FRAME_DPI = 100
SQUARE = 3.2
"""Inches of one agent's view in a frame."""
ENTRIES = "entries of the observation"


def errors(found: OpenLoop, title: str) -> Figure:
    """Draw each agent's error by step over the horizon, between the last observation held and the reconstruction."""
    agents = found.spec.agents
    columns = min(4, len(agents))
    rows = -(-len(agents) // columns)
    figure = Figure(figsize=(3.1 * columns + 0.8, 2.8 * rows + 1.3), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left")
    lines = (
        ("imagined, shown nothing", found.errors(), {"color": COLOURS[1], "marker": "o", "markersize": 3}),
        ("the last observation held", found.errors(found.held), {"color": QUIET, "linestyle": ":"}),
        ("reconstructed from each observation", found.errors(found.reconstructed), {"color": COLOURS[0], "linestyle": "--"}),
    )
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for number, axes in enumerate(grid.flat):
        if number >= len(agents):
            axes.set_visible(False)
            continue
        for label, values, how in lines:
            axes.plot(np.arange(len(values)), values[:, number], label=label, **how)
        axes.set_title(agents[number], loc="left", color=DARK)
        axes.set_xlabel(f"steps after step {found.start}", fontsize=10)
        axes.xaxis.get_major_locator().set_params(integer=True)
    grid[0, 0].set_ylim(bottom=0)  # with what all panels share: after the last line
    for axes in grid[:, 0]:
        unit = "pixels, 0 to 1" if found.spec.image_shape else "environment's units"
        axes.set_ylabel(f"root mean square error,\n{unit}", fontsize=10)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=10)
    return figure


def frames(found: OpenLoop, env: EnvConfig, episode: int, title: str) -> Iterator[Image.Image]:
    """Yield a frame for each step: a column for each agent, above what it really sees, below what is imagined.

    Positions where they are known of a scenario, pictures, else the entries of the observation. Ends with the episode.
    """
    agents = range(min(found.spec.num_agents, MOST_AGENTS))
    roles = {number: role for role, numbers in found.spec.roles().items() for number in numbers}
    views = [None if found.spec.image_shape else view(env, roles[number]) for number in agents]
    limits = [_limit(found.real[episode, :, number], views[number]) for number in agents]
    errors = [_error(found, episode, number) for number in agents]
    for step in range(found.real.shape[1]):
        if not found.counts[episode, step].any():
            return
        figure = Figure(figsize=(max(SQUARE * len(agents), 6.4) + 0.6, FRAME_HEIGHT / FRAME_DPI), dpi=FRAME_DPI, layout="constrained")
        figure.suptitle(f"{title}\nstep {found.start} + {step}", x=0.01, ha="left", fontsize=15)
        grid = figure.subplots(2, len(agents), squeeze=False)
        for number in agents:
            is_there = found.counts[episode, step, number]
            for row, (name, values) in enumerate((("real", found.real), ("imagined", found.imagined))):
                axes = grid[row, number]
                note = (f", error {errors[number][step]:.2f}" if row else "") if is_there else ", is gone"
                axes.set_title(f"{found.spec.agents[number]}, {name}{note}", loc="left", fontsize=12, color=_colour(number))
                if is_there:
                    _draw(axes, values[episode, step, number], number, found, views[number], limits[number])
                else:
                    axes.axis("off")
        yield _image(figure)


def _error(found: OpenLoop, episode: int, agent: int) -> Sequence[float]:
    """Return an agent's error at each step of one episode."""
    difference = (found.imagined - found.real)[episode, :, agent]
    difference = difference if found.spec.image_shape else difference[:, : found.spec.obs_sizes[agent]]
    return np.sqrt(np.square(difference).reshape(len(difference), -1).mean(1)).tolist()


def _limit(real: Float[np.ndarray, "T *shape"], how: View | None) -> float:
    """Return how far axes reach, the same at every step."""
    if real.ndim == 4:
        return 1.0
    values = real if how is None else np.concatenate([place.reshape(len(real), -1) for place in how.places(real).values()], 1)
    return 1.25 * max(float(np.abs(values).max()), 0.1)


def _draw(axes: Axes, seen: Float[np.ndarray, " *shape"], number: int, found: OpenLoop, how: View | None, limit: float) -> None:
    axes.grid(visible=False)
    if seen.ndim == 3:
        axes.imshow(seen.transpose(1, 2, 0))
        axes.axis("off")
        return
    if how is None:
        own = seen[: found.spec.obs_sizes[number]]
        axes.bar(np.arange(len(own)), own, color=_colour(number))
        axes.set_ylim(-limit, limit)
        axes.set_xlabel(ENTRIES, fontsize=9)
        return
    # What is imagined beyond the edge lies on it.
    places = {kind: found_at[0].clip(-0.98 * limit, 0.98 * limit) for kind, found_at in how.places(seen[None]).items()}
    axes.scatter(*places["landmarks"].T, marker="s", s=130, color=DARK, alpha=0.8)
    mates = found.spec.mates(number)
    for mate, at in zip(mates, places.get("others", ()), strict=False):
        axes.scatter(*at, s=150, color=_colour(mate), alpha=0.75)
    axes.scatter(*places["own"].T, s=260, color=_colour(number), edgecolor="black", linewidth=1.6)
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[], aspect="equal")
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color("#cccccc")


def _colour(agent: int) -> str:
    return COLOURS[agent % len(COLOURS)]


def _image(figure: Figure) -> Image.Image:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
