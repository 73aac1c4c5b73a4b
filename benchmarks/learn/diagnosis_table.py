"""Lists what the diagnoses of finished jobs found, of all scenarios at once: means over the seeds."""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from statistics import fmean
from typing import Any

from benchmarks.learn.measures import ABLATIONS, NOBODY, TASKS

HEAD = """# What limits learning

Written by `.venv/bin/python benchmarks/learning.py report`: diagnoses of the last checkpoints on fresh episodes of their own play, sampled;
means over the seeds. [RESULTS.md](../../RESULTS.md#learning-what-was-tried) says how to read them; `benchmarks/learning.py diagnose FOLDER`
prints the whole of one, with open-loop errors and rare rewards."""

OF_ROLES = (
    ("entropy / ln A", "entropy / ln A"),
    ("value", "value: mean"),
    ("… realised", "value: realised mean"),
    ("… spread of realised", "value: spread of realised"),
    ("… correlation", "value: correlation"),
    ("rewards of the horizon, imagined", "reward over * steps: imagined"),
    ("… real", "reward over * steps: real"),
    ("… correlation", "reward over * steps: correlation"),
)
"""Columns, and which figure of a diagnosis is in each."""
OF_WORLD_MODELS = (
    ("reward, cross-entropy", "reward"),
    ("… of frequencies", "reward_marginal"),
    ("mates' actions, accuracy", "teammate_accuracy"),
    ("… of the most frequent", "teammate_majority"),
    ("… if policies were known", "teammate_accuracy if policies were known"),
    ("KL, nats", "kl"),
    ("… share clipped", "kl_clipped"),
)
WORLD_MODEL = "world_model"

Diagnoses = Sequence[Mapping[str, Mapping[str, float]]]


def document(found: Mapping[str, Mapping[str, Mapping[int, Mapping[str, Any]]]]) -> str:
    """Return the whole file from the results: name -> scenario -> seed -> result."""
    told = list(_diagnosed(found))
    policies = [_row(f"{label}: {role}", each, role, OF_ROLES) for label, each in told for role in each[0] if role != WORLD_MODEL]
    models = [_row(label, each, WORLD_MODEL, OF_WORLD_MODELS) for label, each in told]
    tables = [
        table(["", "seeds", *(column for column, _ in columns)], rows)
        for columns, rows in ((OF_ROLES, policies), (OF_WORLD_MODELS, models))
    ]
    return "\n\n".join([HEAD, *tables]) + "\n"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown has it."""
    lines = (f"| {' | '.join(cells)} |" for cells in (columns, *rows))
    return "\n".join([next(lines), f"|{' --- |' * len(columns)}", *lines])


def _diagnosed(found: Mapping[str, Mapping[str, Mapping[int, Mapping[str, Any]]]]) -> Iterator[tuple[str, Diagnoses]]:
    for name, scenarios in found.items():
        for scenario, runs in scenarios.items():
            diagnoses = [run["diagnosis"] for run in runs.values() if not isinstance(run["diagnosis"], str)]  # why there is none
            if diagnoses:
                label = f" {ABLATIONS[name][0]}" if name in ABLATIONS else ""
                yield f"{TASKS[scenario].title}{label}", diagnoses


def _row(label: str, diagnoses: Diagnoses, part: str, columns: Sequence[tuple[str, str]]) -> list[str]:
    return [label, str(len(diagnoses)), *(_mean(diagnoses, part, pattern) for _, pattern in columns)]


def _mean(diagnoses: Diagnoses, part: str, pattern: str) -> str:
    numbers = [value for each in diagnoses for key, value in each.get(part, {}).items() if fnmatchcase(key, pattern)]
    return f"{fmean(numbers):.2f}".replace("-", "−") if numbers else NOBODY
