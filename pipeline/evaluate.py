"""Stage `evaluate@<segment>`: judges exactly the last checkpoint of a segment by whole episodes (see matwm/evaluation.py).

metrics/<segment>/evaluation.json    for `dvc metrics`: each learned agent's returns by mode and match-up, the scripts'
                                     beside them, what the environment says of episodes, such as `win`, and the `max_steps`
                                     at which they are truncated, on which returns depend; where agents have words, what these say
                                     of goals (see metrics/words.py)
metrics/<segment>/evaluation.csv     the same by role, complete: what the plot is drawn from; what the environment says has rows
                                     of the "role" `metrics/win`
metrics/<segment>/evaluated.csv      all evaluations and measured times of the run, as MLflow has them (see metrics/evaluated.py)
plots/<segment>/episode.gif          the evaluated self-play episode with the median return
"""

import argparse
import csv
import io
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matwm.errors import run_program
from pipeline.process import Interruption, follow_parent, leave

if TYPE_CHECKING:  # Importing torch takes seconds, in which DVC could die unnoticed.
    from matwm.checkpoint import Checkpoint
    from matwm.config import Config
    from matwm.evaluation import Result, Summary

DIGITS = 4
GIF = "episode.gif"
REFERENCE = "reference"
"""The mode of match-ups in which nobody learns."""
STATISTICS = ("mean", "median", "std", "stderr", "min", "max", "episodes")
COLUMNS = ("step", "mode", "matchup", "role", "learned", *STATISTICS, "max_steps")


def evaluate(project: Path, name: str) -> None:
    """Evaluate a segment of the project and write what comes of it.

    Raises:
        ConfigError, ProjectError, CheckpointError, TrackingError: one sentence that a person can act on.
    """
    from matwm import durable
    from matwm.config import ConfigError
    from matwm.params_yaml import read_params
    from matwm.store import LocalStore
    from pipeline import project as places
    from pipeline import tracking
    from pipeline.keys import manifest_key
    from pipeline.metrics import best, words
    from pipeline.metrics.points import TimedPoint
    from pipeline.metrics.recorded import EVALUATED, TIMES, read_recorded, write_recorded
    from pipeline.params import segments
    from pipeline.tracking.committed import committed_records
    from pipeline.tracking.report import report
    from pipeline.tracking.run_facts import restore_run_facts
    from pipeline.validate import missing_devices

    tracking.configure(project)
    places.make_importable(project)
    segment = segments.resolve(read_params(project / places.PARAMS), name, project)
    if problems := missing_devices({name: segment}):
        raise ConfigError(problems)
    checkpoint = LocalStore(places.published_folder(project, name)).open(segment.until)
    if manifest_key(checkpoint.manifest) != segment.key(checkpoint.parent.digest):
        raise places.ProjectError(
            f"{checkpoint.path} was trained with other values than params.yaml has for segment {name}: "
            'run "matwm repro", not this stage alone'
        )
    restore_run_facts(project, name, checkpoint)
    learned, references = _results(checkpoint, segment.config)
    folder = places.metrics_folder(project, name)
    places.write_json(folder / "evaluation.json", _for_people(checkpoint.step, learned, references))
    places.write_text(folder / "evaluation.csv", _table(checkpoint.step, [*learned, *references]))
    artifacts = [(folder / "evaluation.json", ""), (folder / "evaluation.csv", "")]
    pictures = project / "plots" / name
    pictures.mkdir(parents=True, exist_ok=True)  # an output of the stage, with or without a GIF
    if segment.config.evaluation.gif and (gif := _gif(checkpoint, segment.config, learned[0])):
        durable.replace(pictures / GIF, gif)
        artifacts.append((pictures / GIF, "plots"))
    step = checkpoint.step
    points = [p for result in learned for p in best.points(step, str(result.mode), result.matchup, _judged(result), result.metrics)]
    points += [p for result in learned for p in words.points(step, str(result.mode), result.matchup, result.communication)]
    earlier = committed_records(project, name, segment.key(checkpoint.parent.digest))
    now = time.time_ns() // 1_000_000
    timed = [TimedPoint(point.key, point.step, point.value, now) for point in points]
    judged = [*earlier, *read_recorded(folder, [TIMES]), *timed]
    found = best.of_history(segment.config.objectives, segment.config.evaluation.modes[0], judged, segment.origin.step)
    tags = {**best.tags(segment.config), **best.tag(found)}
    kept = report(project, name, segment.config.tracking, points=points, earlier=earlier, artifacts=artifacts, tags=tags)
    kept = kept or [*earlier, *timed]
    trained = {repr(point) for point in read_recorded(folder, [TIMES])}  # NaN equals itself as text.
    write_recorded(folder / EVALUATED, [point for point in kept if repr(point) not in trained])


def _results(checkpoint: "Checkpoint", config: "Config") -> "tuple[list[Result], list[Result]]":
    """Return the learned agents' match-ups and the scripts' own."""
    from matwm.evaluation import evaluate as judge
    from matwm.evaluation import reference_lines
    from matwm.policy import load_networks
    from matwm.trainer import prepare_torch

    device, settings, networks = prepare_torch(config), config.evaluation, load_networks(checkpoint)
    learned = judge(
        networks.world_model.to(device),
        networks.actors.to(device),
        config.env,
        episodes=settings.episodes,
        first_seed=settings.seed,
        modes=settings.modes,
        acting_context=networks.acting_context,
    )
    return learned, reference_lines(config.env, episodes=settings.episodes, first_seed=settings.seed)


def _judged(result: "Result") -> "dict[str, Summary]":
    """Return the returns of the agents that learn: a frozen opponent's say nothing more."""
    return {agent: result.agents[agent] for number, agent in enumerate(result.spec.agents) if number in result.learned}


def _for_people(step: int, learned: "Sequence[Result]", references: "Sequence[Result]") -> dict[str, Any]:
    from pipeline.metrics import words

    nested: dict[str, Any] = {"step": step, "max_steps": learned[0].spec.max_steps}
    for result in learned:
        agents = {agent: _rounded(summary, STATISTICS[:4]) for agent, summary in _judged(result).items()}
        nested.setdefault(str(result.mode), {})[result.matchup] = agents
    nested["references"] = {
        result.matchup: {role: _rounded(summary, ("mean", "stderr")) for role, summary in result.roles.items()} for result in references
    }
    for result in (*learned, *references):
        if result.metrics:
            told = {name: _rounded(summary, ("mean", "stderr", "episodes")) for name, summary in result.metrics.items()}
            nested.setdefault("metrics", {}).setdefault(result.mode or "references", {})[result.matchup] = told
        if told := words.for_people(result.communication, DIGITS):
            nested.setdefault(words.WORDS, {}).setdefault(result.mode or "references", {})[result.matchup] = told
    return nested


def _rounded(summary: "Summary", names: Iterable[str]) -> dict[str, float]:
    return {name: round(getattr(summary, name), DIGITS) for name in names}


def _table(step: int, results: "Iterable[Result]") -> str:
    from pipeline.metrics.best import METRICS

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for result in results:
        for role, numbers in result.spec.roles().items():
            is_learned = int(set(numbers) <= set(result.learned))
            values = _rounded(result.roles[role], STATISTICS).values()
            writer.writerow([step, result.mode or REFERENCE, result.matchup, role, is_learned, *values, result.spec.max_steps])
        for name, summary in result.metrics.items():
            row = [f"{METRICS}{name}", int(bool(result.learned)), *_rounded(summary, STATISTICS).values(), result.spec.max_steps]
            writer.writerow([step, result.mode or REFERENCE, result.matchup, *row])
    return text.getvalue()


def _gif(checkpoint: "Checkpoint", config: "Config", self_play: "Result") -> bytes | None:
    """Draw neither the best nor the worst episode; None, said aloud, if the environment cannot draw itself or play it again."""
    from matwm.envs.base import NoPictureError
    from pipeline.drawing.animation import animate

    if checkpoint.spec.resume == "episode":
        sys.stderr.write(f"there is no {GIF}: an episode of {checkpoint.spec.name} cannot be played again from its seed\n")
        return None
    episode = self_play.typical
    title = f"{checkpoint.spec.name}, {self_play.mode}, step {checkpoint.step:,}"
    try:
        return animate(config.env, self_play.seeds[episode], self_play.actions[episode], title)
    except NoPictureError as error:
        sys.stderr.write(f"there is no {GIF}: {error}\n")
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stage for the segment named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.evaluate", description="Evaluate the last checkpoint of a segment.")
    parser.add_argument("segment", help="its name, for example s00")
    name = parser.parse_args(arguments).segment
    from pipeline.project import root

    follow_parent()
    with Interruption():
        return run_program(lambda: evaluate(root(), name))


if __name__ == "__main__":
    leave(main())
