"""Makes the tables of learning in docs/results.md and README.md out of the result files, and writes them and the plots."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.learn import diagnosis_table, figures, files
from benchmarks.learn.diagnosis_table import table
from benchmarks.learn.measures import ABLATED, ABLATIONS, FINAL, MORE_SOURCE, NOBODY, SOURCE, TASKS, Measure
from benchmarks.learn.plan import differences
from matwm import durable
from matwm.errors import UserError

BEGIN, END = "<!-- learning -->", "<!-- /learning -->"
COMPARABLE = ("numerics", "steps", "judging", "config")
"""What seeds of one row must have in common, but for the seed."""
KEYS = ("preset", "changes", "cpu_seconds", "judging_cpu_seconds", "evaluation", "curve", "diagnosis", "training")
"""What a result must say besides."""
STEPS = 50_000
"""Rows of jobs with other numbers of steps say so."""
COLUMNS = (
    "",
    "random",
    "script",
    "MAPPO, 50,000 steps",
    "1,000,000",
    "MATWM, 50,000: sampled",
    "greedy",
    "seeds",
    "CPU minutes of training",
    "… of judging",
)
DIAGNOSES = "diagnosis.md"
MODEL_FREE = slice(3, 5)
"""Columns that the second table has not: nobody has trained another method there."""
SUMMARY_COLUMNS = ("", "random", "script", "MATWM: sampled", "greedy", "seeds")
SUMMARY_ROWS = 6
SUMMARY = (
    ("simple_spread_v3", "self_play"),
    ("simple_speaker_listener_v4", "self_play"),
    ("simple_reference_v3", "self_play"),
    ("simple_tag_v3", "learned_v_random"),
    ("simple_tag_v3", "chase_v_learned"),
    ("3m", "self_play"),
    ("pistonball_v6", "self_play"),
    ("simple_adversary_v3", "random_v_learned"),
    ("simple_adversary_v3", "learned_v_random"),
)
"""What the README shows: the first so many that there are results for, by scenario and match-up."""
MEANS = (
    "Mean over the finished seeds ± its standard error, of the seeds and of the episodes, which they share (of one seed: of its episodes), "
    "in brackets each seed's."
)

Runs = dict[int, dict[str, Any]]
"""Seed -> the contents of its result file."""


def write(results: Path, page: Path, docs: Path, readme: Path | None = None) -> str:
    """Write the tables between their marks in the page and in the README, the plots, and a diagnosis; return what was found.

    Raises:
        UserError: there is no result, or a result file, the page or the README is not as it must be.
    """
    pages = {page: section, **({} if readme is None else {readme: summary})}
    around = {file: _around(file) for file in pages}
    found = read_all(results)
    if not any(found[FINAL].values()):
        raise UserError(f"{results} holds no result {FINAL}/SCENARIO/seed_N.json: the tables stay as they are; name another --results")
    for name, picture in figures.pictures(found).items():
        durable.replace(docs / name, picture)
    durable.replace(results / DIAGNOSES, diagnosis_table.document(found).encode())
    for file, make in pages.items():
        head, tail = around[file]
        durable.replace(file, f"{head}{BEGIN}\n\n{make(results)}\n{END}{tail}".encode())
    finished = {name: sum(len(runs) for runs in sets.values()) for name, sets in found.items()}
    return f"finished seeds: {', '.join(f'{count} {name}' for name, count in finished.items())}"


def section(results: Path) -> str:
    """Return what stands between the marks.

    Raises:
        UserError: a result file is not as it must be.
    """
    found = read_all(results)
    usual, others = list(_usual_rows(found)), list(_other_rows(found))
    parts = [table(COLUMNS, usual), f"{MEANS} {SOURCE}"] if usual else []
    if others:
        parts += [table(_fewer(COLUMNS), [_fewer(row) for row in others]), f"{'' if usual else f'{MEANS} '}{MORE_SOURCE}"]
    parts += [f"![{figures.TITLES[name]}]({name})" for name in figures.names(found)]
    return "\n\n".join(parts) + "\n"


def summary(results: Path) -> str:
    """Return what stands between the README's marks: a few rows with fewer columns.

    Raises:
        UserError: a result file is not as it must be.
    """
    found = read_all(results)[FINAL]
    rows = []
    for scenario, matchup in SUMMARY:
        if runs := list(found[scenario].values()):
            task = TASKS[scenario]
            measure = next(one for one in task.measures if one.matchup == matchup)
            label, random, script, *_, sampled, greedy, seeds, _, _ = _row(f"{task.title}: {measure.label}", measure, runs)
            rows.append([label, random, script, *(ours.partition(" (")[0] for ours in (sampled, greedy)), seeds])
    return table(SUMMARY_COLUMNS, rows[:SUMMARY_ROWS]) + "\n"


def section_in(page: str) -> str:
    """Return what the page or the README has between its marks."""
    return page.partition(BEGIN)[2].partition(END)[0].strip() + "\n"


def read_all(results: Path) -> dict[str, dict[str, Runs]]:
    """Return the results that the table is about: name -> scenario -> seed -> result.

    Raises:
        UserError: a file is no result, is not where it belongs or of another preset, a seed of a row was trained or judged otherwise
            than the others, an ablation's is without its change, or with another one.
    """
    found: dict[str, dict[str, Runs]] = {}
    for name in (FINAL, *ABLATIONS):
        scenarios = TASKS if name == FINAL else [ABLATED]
        found[name] = {scenario: dict(_runs(results / name / scenario)) for scenario in scenarios}
        for scenario, runs in found[name].items():
            for seed, run in runs.items():
                first = next(iter(runs))
                _hold(runs[first], run, (), f"{name}/{scenario} seed {seed} is to be as seed {first}")
    for name, (label, key, _) in ABLATIONS.items():
        for seed, run in found[name][ABLATED].items():
            for complete in found[FINAL][ABLATED].values():
                _hold(complete, run, (f"{key} ",), f"{name}/{ABLATED} seed {seed} is to be {FINAL} {label}")
    return found


def read_result(file: Path) -> dict[str, Any]:
    """Return what a result file says.

    Raises:
        UserError: it is no JSON, or does not say all that a result says.
    """
    run = files.read(file) or {}
    if missing := [key for key in (*COMPARABLE, *KEYS) if key not in run]:
        raise UserError(f"{file} does not say {missing[0]}: remove it, or bring it back from git")
    return run


def final_rows(run: Mapping[str, Any], measure: Measure, mode: str) -> list[dict[str, Any]]:
    """Return the rows of a result that a measure is about (one, or none)."""
    return [row for row in run["evaluation"] if row["mode"] == mode and measure.is_of(row)]


def _around(file: Path) -> tuple[str, str]:
    """Return what stands before and after the marks."""
    if not file.is_file():
        raise UserError(f"{file} does not exist: name the file with --page or --readme")
    head, begun, rest = file.read_text(encoding="utf-8").partition(BEGIN)
    _, ended, tail = rest.partition(END)
    if not begun or not ended:
        raise UserError(f"{file} lacks {BEGIN} or {END}, between which the table belongs")
    return head, tail


def _hold(one: Mapping[str, Any], other: Mapping[str, Any], but: tuple[str, ...], claim: str) -> None:
    """Refuse two results that were trained or judged otherwise, but for their seeds and what is to differ."""
    before, after = ({key: run[key] for key in COMPARABLE} for run in (one, other))
    if others := [phrase for phrase in differences(before, after) if not phrase.startswith(("seed ", *but))]:
        raise UserError(f"{claim}, but there {others[0]}")


def _runs(folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for file in sorted(folder.glob("seed_*.json"), key=lambda path: (len(path.name), path.name)):
        run = read_result(file)
        if file != folder / f"seed_{run.get('seed')}.json" or run.get("scenario") != folder.name or run.get("name") != folder.parent.name:
            raise UserError(f"{file} holds the result of {run.get('name')}/{run.get('scenario')} seed {run.get('seed')}")
        label, key, value = ABLATIONS.get(folder.parent.name, ("", "", None))
        if key and run["changes"].get(key) != value:
            raise UserError(f"{file} is a result {label}, but {key} is {run['changes'].get(key)!r} in its changes, expected {value!r}")
        preset = TASKS[folder.name].preset
        if run["preset"] != preset:
            raise UserError(f"{file} is a result of preset {run['preset']}, but the table is about {preset}")
        if not key and run["changes"]:
            raise UserError(f"{file} is a result with {', '.join(run['changes'])} changed, but the table is about {preset} as it is")
        yield run["seed"], run


def _usual_rows(found: Mapping[str, Mapping[str, Runs]]) -> Iterator[list[str]]:
    for scenario, runs in found[FINAL].items():
        task = TASKS[scenario]
        for measure in task.measures if runs and task.is_usual else ():
            yield _row(f"{task.title}: {measure.label}", measure, list(runs.values()))
    for name, (label, _, _) in ABLATIONS.items():
        if runs := found[name][ABLATED]:
            yield _row(f"{TASKS[ABLATED].title} {label}", TASKS[ABLATED].measures[0], list(runs.values()))


def _other_rows(found: Mapping[str, Mapping[str, Runs]]) -> Iterator[list[str]]:
    for scenario, runs in found[FINAL].items():
        task = TASKS[scenario]
        for measure in task.measures if runs and not task.is_usual else ():
            yield _row(f"{task.title} (`{task.preset}`): {measure.label}", measure, list(runs.values()))


def _fewer(cells: Sequence[str]) -> list[str]:
    return [*cells[: MODEL_FREE.start], *cells[MODEL_FREE.stop :]]


def _row(label: str, measure: Measure, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    steps = sorted({run["steps"] for run in runs})
    if steps != [STEPS]:
        label += f", {' and '.join(f'{count:,}' for count in steps)} steps"
    minutes = [f"{statistics.fmean(run[key] for run in runs) / 60:.0f}" for key in ("cpu_seconds", "judging_cpu_seconds")]
    known = [
        measure.text(measure.random),
        measure.text(*measure.scripts),
        measure.text(measure.model_free),
        measure.text(measure.model_free_long),
    ]
    return [label, *known, *(_ours(measure, runs, mode) for mode in ("sampled", "greedy")), str(len(runs)), *minutes]


def _ours(measure: Measure, runs: Sequence[Mapping[str, Any]], mode: str) -> str:
    rows = [row for run in runs for row in final_rows(run, measure, mode)]
    means = [row["mean"] for row in rows]
    if not means:
        return NOBODY
    of_episodes = statistics.fmean(row["stderr"] ** 2 for row in rows)
    of_seeds = statistics.variance(means) / len(means) if len(means) > 1 else 0.0
    shown = f"**{measure.text(statistics.fmean(means))}** ± {measure.text((of_seeds + of_episodes) ** 0.5)}"
    return f"{shown} ({', '.join(map(measure.text, means))})" if len(means) > 1 else shown
