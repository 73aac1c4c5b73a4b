"""Lists all jobs, finished or not, for who tunes."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.learn import files
from benchmarks.learn.measures import TASKS, Measure
from benchmarks.learn.report import final_rows, read_result
from matwm.errors import UserError

ALONE = Measure("each agent", "self_play", "agent", float("nan"))
"""What is shown of scenarios that the table does not have."""


def lines(work: Path, results: Path, name: str | None) -> Iterator[str]:
    """Yield a line for each job and measure: the judgements inside training, then, of a finished one, those of its end.

    Raises:
        UserError: a file is no JSON, of no seed, or does not say all that a result says.
    """
    places = {file.parent.relative_to(work) for file in work.glob("*/*/seed_*/progress.json")}
    places |= {file.relative_to(results).with_suffix("") for file in results.glob("*/*/seed_*.json")}
    for place in sorted(places, key=lambda path: (*path.parts[:-1], _seed(path))):
        if name in (None, place.parts[0]):
            file = results / place.with_suffix(".json")
            result = read_result(file) if file.exists() else None
            progress = files.read(work / place / "progress.json") or {}
            task = TASKS.get(place.parts[1])
            for measure in task.measures if task else (ALONE,):
                yield f"{place.as_posix()}  {measure.label}: {'  '.join(_figures(measure, result, progress))}"


def _seed(place: Path) -> int:
    number = place.name.removeprefix("seed_")
    if not number.isdecimal():
        raise UserError(f"{place} is named after no seed (seed_1, seed_2, …): remove it, or name it so")
    return int(number)


def _figures(measure: Measure, result: Mapping[str, Any] | None, progress: Mapping[str, Any]) -> Iterator[str]:
    for step, rows in (result or progress).get("curve", {}).items():
        for row in rows:
            if measure.is_of(row):
                yield f"{int(step):,}: {measure.text(row['mean'])}"
    if result:
        ends = [f"{mode} {measure.text(row['mean'])}" for mode in ("sampled", "greedy") for row in final_rows(result, measure, mode)]
        yield f"{result['steps']:,}: {', '.join(ends)} ({result['cpu_seconds'] / 60:.0f} CPU min)"
    elif spent := progress.get("spent"):
        step = max(map(int, spent))
        yield f"… at {step:,}, {1e3 * spent[str(step)]['cpu_seconds'] / step:.1f} CPU ms a step"
    else:
        yield "… begun"
