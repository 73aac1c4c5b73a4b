"""Stage `plot`: figures of every lineage, from the root to each segment that nothing continues from its end.

plots/lineage/<segment>/<figure>.png for each of `FIGURES`; the numbers are in metrics/<segment>/*.csv, where those of training are
cumulative. Words are drawn where agents tell each other of goals, of the judged steps of every segment of the lineage.
"""

import contextlib
import csv
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from matwm.errors import run_program
from pipeline.process import Interruption, follow_parent, leave

if TYPE_CHECKING:
    from matwm.envs.words import Channel
    from pipeline.drawing.figures import Curve, Figure, Lineage
    from pipeline.drawing.scoreboard import Score
    from pipeline.drawing.words import Moment, Speaker
    from pipeline.params.segments import ResolvedSegment

SELF_PLAY = "self_play"
UPKEEP_SECONDS = 30.0
"""For MLflow to take what earlier stages and processes could not send: it is the last stage, and nobody may come after it."""

logger = logging.getLogger(__name__)


def plot(project: Path) -> list[Path]:
    """Draw all lineages of the project that are trained, add them to the runs of their last segments, and return the files.

    Raises:
        ConfigError, ProjectError, TrackingError: one sentence that a person can act on.
    """
    from matwm import durable
    from matwm.params_yaml import read_params
    from pipeline import project as places
    from pipeline import tracking
    from pipeline.drawing import figures
    from pipeline.params import segments
    from pipeline.tracking import upkeep
    from pipeline.tracking.report import report

    tracking.configure(project)
    places.make_importable(project)
    graph = segments.resolve_all(read_params(project / places.PARAMS), project)
    lineages = {path[-1].name: path for path in paths(graph) if _is_trained(project, path[-1].name)}
    if not lineages:
        raise places.ProjectError('metrics/ has no trained segment of params.yaml to plot: run "matwm repro"')
    target = project / "plots" / "lineage"
    shutil.rmtree(target, ignore_errors=True)
    written: list[Path] = []
    for name, path in lineages.items():
        (target / name).mkdir(parents=True)
        files: list[Path] = []
        with figures.drawing():
            for title, figure in draw(places.metrics_folder(project, name), path).items():
                files.append(target / name / f"{title}.png")
                durable.replace(files[-1], figures.png(figure))
        report(project, name, path[-1].config.tracking, artifacts=[(file, "plots") for file in files])
        written += files
    for sentence in upkeep.settle(project, timeout=UPKEEP_SECONDS):
        logger.warning("%s", sentence)
    return written


def paths(graph: "Mapping[str, ResolvedSegment]") -> "list[list[ResolvedSegment]]":
    """Return the way from the root to each segment whose last step no other segment starts from."""
    continued = {
        origin.segment for segment in graph.values() if (origin := segment.origin).segment and origin.step == graph[origin.segment].until
    }
    found: list[list[ResolvedSegment]] = []
    for name in graph:
        if name not in continued and "/" not in name:  # `matwm report` draws trials side by side.
            path = [graph[name]]
            while (parent := path[0].origin.segment) is not None:
                path.insert(0, graph[parent])
            found.append(path)
    return found


@dataclass(frozen=True)
class Numbers:
    """What the figures of a lineage are drawn from."""

    path: "Sequence[ResolvedSegment]"
    """From the root to the last segment."""
    folder: Path
    """Metrics of the last segment, which are cumulative; those of the others lie beside it."""
    lineage: "Lineage"
    training: "Mapping[str, Curve]"
    """Training metrics by name."""
    episodes: "Mapping[str, Curve]"
    """Columns of episodes.csv."""

    @property
    def agents(self) -> list[str]:
        """The names of all agents, by role."""
        return [agent for members in self.lineage.roles.values() for agent in members]

    def losses(self) -> "dict[str, Curve]":
        """The parts of the world model's loss."""
        from pipeline.metrics.records import MODEL, loss_terms

        return {term: self.training[f"{MODEL}{term}"] for term in loss_terms(self.training)}


def draw(folder: Path, path: "Sequence[ResolvedSegment]") -> "dict[str, Figure]":
    """Return the figures of a lineage by name, from the metrics of its last segment; those without data are left out."""
    training, episodes = read_curves(folder / "training.csv"), read_curves(folder / "episodes.csv")
    numbers = Numbers(path, folder, _lineage(path, folder.parent), training, episodes)
    return {name: figure for name, draw_one in FIGURES.items() if (figure := draw_one(numbers)) is not None}


def draw_returns(numbers: Numbers) -> "Figure | None":
    """Draw each agent's return in the training episodes."""
    from pipeline.drawing import figures

    if not numbers.episodes:
        return None
    return figures.returns(numbers.lineage, {agent: numbers.episodes[f"return/{agent}"] for agent in numbers.agents})


def draw_losses(numbers: Numbers) -> "Figure | None":
    """Draw the world model's loss by term."""
    from pipeline.drawing import figures

    terms = numbers.losses()
    return figures.losses(numbers.lineage, terms) if terms else None


def draw_rewards(numbers: Numbers) -> "Figure | None":
    """Draw imagined against real rewards."""
    from pipeline.drawing import figures

    agents, training = numbers.agents, numbers.training
    if f"agents/{agents[0]}/reward_imagined" not in training:
        return None
    imagined, real = ({agent: training[f"agents/{agent}/reward_{kind}"] for agent in agents} for kind in ("imagined", "real"))
    return figures.rewards(numbers.lineage, imagined, real)


def draw_teammates(numbers: Numbers) -> "Figure | None":
    """Draw how often the teammate predictor is right."""
    from pipeline.drawing import figures

    if "world_model/teammate_accuracy" not in numbers.training:
        return None
    accuracy, majority = (numbers.training[f"world_model/teammate_{name}"] for name in ("accuracy", "majority"))
    return figures.teammates(numbers.lineage, accuracy, majority)


def draw_evaluation(numbers: Numbers) -> "Figure | None":
    """Draw the last segment's evaluation."""
    from pipeline.drawing import scoreboard

    file = numbers.folder / "evaluation.csv"
    return scoreboard.evaluation(numbers.lineage, *read_scores(file)) if file.is_file() else None


def draw_words(numbers: Numbers) -> "Figure | None":
    """Draw what words say of goals, where agents tell each other of them."""
    from pipeline.drawing import words

    if not (speakers := read_words(numbers.folder.parent, numbers.path)):
        return None
    starts = [stretch.start for stretch in numbers.lineage.stretches if stretch.start]
    return words.words(f"Words by goals, {_judged_mode(numbers.path)} – {numbers.lineage.title}", speakers, starts)


FIGURES: "dict[str, Callable[[Numbers], Figure | None]]" = {
    "returns": draw_returns,
    "losses": draw_losses,
    "rewards": draw_rewards,
    "teammates": draw_teammates,
    "evaluation": draw_evaluation,
    "words": draw_words,
}
"""Name of a figure's file: the function that draws it; None where there are no numbers for it."""


def read_curves(file: Path) -> "dict[str, Curve]":
    """Read a table of curves over `step`: each column without its gaps; columns without any value are left out.

    Raises:
        ProjectError: it is no such table.
    """
    import numpy as np

    with table_in(file) as rows:
        columns = [name for name in rows[0] if name != "step"] if rows else []
        steps = [float(row["step"]) for row in rows]
        points = {name: [(step, float(row[name])) for step, row in zip(steps, rows, strict=True) if row[name]] for name in columns}
    return {name: (array[:, 0], array[:, 1]) for name, pairs in points.items() if pairs for array in [np.array(pairs)]}


def read_scores(file: Path) -> "tuple[int, int, list[Score]]":
    """Read an evaluation: its step, the number of episodes, and each role's score and the win rate in each match-up.

    Raises:
        ProjectError: it is none.
    """
    from pipeline.drawing.scoreboard import WIN_RATE, Score
    from pipeline.metrics.best import METRICS, WIN

    with table_in(file) as rows:
        num_sides = max(len(row["matchup"].split("_v_")) for row in rows)
        scores = [
            Score(
                row["mode"],
                _tactics(row["matchup"], num_sides),
                WIN_RATE if row["role"] == f"{METRICS}{WIN}" else row["role"],
                row["learned"] == "1",
                float(row["mean"]),
                float(row["stderr"]),
            )
            for row in rows
        ]
        return int(rows[0]["step"]), int(rows[0]["episodes"]), scores


@contextlib.contextmanager
def table_in(file: Path) -> Iterator[list[dict[str, str]]]:
    """Yield the rows of a table in `metrics/`, which is git's.

    Raises:
        ProjectError: it cannot be read, or not understood in the block.
    """
    from pipeline.project import ProjectError

    try:
        with file.open(encoding="utf-8", newline="") as stream:
            yield list(csv.DictReader(stream))
    except (OSError, csv.Error, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ProjectError(
            f'{file} is empty or damaged ({error}): restore it with "git checkout HEAD -- {file}", or, where git does not have it, '
            f'make it anew with "dvc repro --force {"evaluate" if file.stem == "evaluation" else "train"}@SEGMENT"'
        ) from None


def read_words(metrics: Path, path: "Sequence[ResolvedSegment]") -> "list[Speaker]":
    """Return what speakers said on the way to the end of a lineage, by the evaluations of its segments; nothing of scenarios without words.

    Raises:
        ProjectError: a file of metrics is damaged.
    """
    from matwm.envs.words import channels
    from pipeline.drawing.words import Speaker
    from pipeline.metrics import recorded, words

    known = channels(path[-1].config.env)
    if not known:
        return []
    ends = [*(segment.origin.step for segment in path[1:]), path[-1].until]
    points = [
        point
        for segment, end in zip(path, ends, strict=True)
        for point in recorded.read_recorded(metrics / segment.name)
        if point.step <= end
    ]
    spoken = [(channel, words.by_step(points, _judged_mode(path), SELF_PLAY, channel.speaker)) for channel in known]
    return [
        Speaker(channel.speaker, channel.goals, [_moment(step, values, channel) for step, values in steps.items()])
        for channel, steps in spoken
        if steps
    ]


def _moment(step: int, values: Mapping[str, float], channel: "Channel") -> "Moment":
    import numpy as np

    from pipeline.drawing.words import Moment
    from pipeline.metrics import words

    shares = np.array(words.matrix(values, len(channel.goals), channel.num_words))
    names = ("information", "information_share", "reached", "swapped/followed", "swapped/reached")
    return Moment(step, shares, *(values.get(name, float("nan")) for name in names))


def _judged_mode(path: "Sequence[ResolvedSegment]") -> str:
    """Return the mode of evaluations that counts."""
    return path[-1].config.evaluation.modes[0]


def _tactics(matchup: str, num_sides: int) -> tuple[str, ...]:
    return ("learned",) * num_sides if matchup == SELF_PLAY else tuple(matchup.split("_v_"))


def _is_trained(project: Path, name: str) -> bool:
    from pipeline import project as places

    folder = places.metrics_folder(project, name)
    return (folder / "training.csv").is_file() and (folder / "episodes.csv").is_file()


def _lineage(path: "Sequence[ResolvedSegment]", metrics: Path) -> "Lineage":
    from matwm.envs import make_env
    from pipeline import project as places
    from pipeline.drawing.figures import Lineage, Stretch

    with contextlib.closing(make_env(path[-1].config.env)) as env:
        spec = env.spec
    roles = {role: [spec.agents[number] for number in numbers] for role, numbers in spec.roles().items()}
    stretches = [Stretch(segment.name, segment.origin.step, _label(segment)) for segment in path]
    title = f"{spec.name}, {' → '.join(_shortened([segment.name for segment in path]))}"
    facts = [places.record_in(metrics / segment.name) for segment in path]
    resumes = sorted({step for one in facts for step in one.get("resumed_at", [])})
    warmup = path[0].config.schedule.random_steps if path[0].origin.step == 0 else 0
    return Lineage(title, stretches, roles, warmup, resumes, spec.max_steps)


def _label(segment: "ResolvedSegment") -> str:
    origin = segment.origin
    return f"{segment.name} from {(origin.segment or origin.run or '')[:12]} at {origin.step:,}" if origin.step else segment.name


def _shortened(names: list[str]) -> list[str]:
    return names if len(names) <= 4 else [*names[:2], "…", names[-1]]


def main() -> int:
    """Run the stage."""
    from pipeline.project import root

    def draw_all() -> None:
        plot(root())

    follow_parent()
    with Interruption():
        return run_program(draw_all)


if __name__ == "__main__":
    leave(main())
