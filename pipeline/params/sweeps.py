"""Makes trials of the sweeps of params.yaml: entries like those of `segments`, under names of two parts, SWEEP/TRIAL.

A trial is named by what its sweep varies: `learning_rate=0.001-seed=2`. Names do not depend on which other values there are, so that
to append one changes nothing of the trials that are there.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any

from matwm.config import ConfigError, SegmentConfig, SweepConfig, merge
from matwm.params_yaml import parse_segments, parse_sweeps
from matwm.step_names import step_of
from pipeline.params import decisions

SOURCE = "params.yaml"
LONGEST_NAME = 100
MOST_TRIALS = 10_000


class Decided(SegmentConfig):
    """A trial that its sweep has decided on while it ran."""

    log: Path
    """Where decisions about it are recorded."""
    floors: dict[int, float] = {}
    """Steps at which it ends if it is below these values of the objective until then."""


def entries(params: Mapping[str, Any], project: Path) -> dict[str, SegmentConfig]:
    """Return the segments of params.yaml by name, then the trials of its sweeps: of a search those that it has decided on by now.

    Raises:
        ConfigError: one sentence for each thing that is wrong with their form.
    """
    problems: list[str] = []
    segments: dict[str, SegmentConfig] = {}
    sweeps: dict[str, SweepConfig] = {}
    try:
        segments = parse_segments(params, source=SOURCE)
    except ConfigError as error:
        problems += error.problems
    try:
        sweeps = parse_sweeps(params, source=SOURCE)
    except ConfigError as error:
        problems += error.problems
    found = dict(segments)
    for name, sweep in sweeps.items():
        if name in segments:
            problems.append(f"{SOURCE}: sweeps.{name}: there is a segment of that name: choose another for the sweep")
        try:
            found |= decided(name, sweep, decisions.read(project, params, name, sweep)) if sweep.is_decided else trials(name, sweep)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return found


def trials(sweep: str, config: SweepConfig) -> dict[str, SegmentConfig]:
    """Return the trials of a sweep by their whole names, in the order of its values.

    Raises:
        ConfigError: it varies nothing, a value twice, or too much.
    """
    where = f"{SOURCE}: sweeps.{sweep}"
    varied = list(config.grid) + ["seed"] * bool(config.seeds)
    if problems := list(_problems(where, config, varied)):
        raise ConfigError(problems)
    grid = [
        [(path, value) for value in values] for path, values in [*config.grid.items(), *([("seed", config.seeds)] if config.seeds else [])]
    ]
    shown = _short_names([*dict.fromkeys(path for trial in config.trials for path in trial), *varied])
    found: dict[str, SegmentConfig] = {}
    for trial in config.trials or [{}]:
        for chosen in product(*grid):
            values = {**trial, **dict(chosen)}
            name = f"{sweep}/{_name({shown[path]: value for path, value in values.items()})}"
            if name in found:
                raise ConfigError([f"{where}: two trials are called {name}: name each value once"])
            found[name] = _with_values(config, values)
    if unknown := [name for name in config.skip if f"{sweep}/{name}" not in found]:
        raise ConfigError([f"{where}.skip names {unknown[0]!r}, which is no trial of it (such as {next(iter(found)).partition('/')[2]})"])
    return {name: entry for name, entry in found.items() if name.partition("/")[2] not in config.skip}


def decided(sweep: str, config: SweepConfig, log: decisions.Log) -> dict[str, SegmentConfig]:
    """Return the trials that a sweep has decided on by their whole names, without those that diverged: there is nothing of
    them, or of a member of a population what it was at the last boundary.

    Raises:
        ConfigError: the sweep has trials of other kinds, too.
    """
    where = f"{SOURCE}: sweeps.{sweep}"
    if problems := list(_problems(where, config, [])):
        raise ConfigError(problems)
    found: dict[str, SegmentConfig] = {}
    for name, facts in log.trials.items():
        until = facts.get("step") if facts.get("diverged") else facts.get("until", config.until)
        if until is not None and name not in config.skip:
            floors = {int(step): value for step, value in facts.get("floors", {}).items()}
            start = facts.get("from", config.from_)
            found[f"{sweep}/{name}"] = _with_values(config, facts["values"], (start, until), log=log.path, floors=floors)
    return found


def samples(params: Mapping[str, Any]) -> dict[str, SegmentConfig]:
    """Return trials that searches could draw, by names such as theirs, so that what is wrong with their values is said at once.

    Those of each search: one of all lowest values or first choices, one of all highest or last, and one for each other choice. Of a
    population its first member.
    """
    found: dict[str, SegmentConfig] = {}
    for sweep, config in parse_sweeps(params, source=SOURCE).items():
        if config.search:
            ends = {path: one.choices or [one.low, one.high] for path, one in config.search.space.items()}
            drawn = [{path: values[end] for path, values in ends.items()} for end in (0, -1)]
            drawn += [{**drawn[0], path: value} for path, values in ends.items() for value in values[1:-1]]
            found |= {f"{sweep}/{values_name(values)}": _with_values(config, values) for values in drawn}
        elif config.population:
            found[f"{sweep}/000"] = _with_values(config, {})
    return found


def values_name(values: Mapping[str, Any]) -> str:
    """Return values by the ends of their paths, such as `learning_rate=0.001-layers=2`."""
    shown = _short_names([*values])
    return _name({shown[path]: value for path, value in values.items()})


def _with_values(config: SweepConfig, values: Mapping[str, Any], reach: tuple[str, int] | None = None, **decided: Any) -> SegmentConfig:
    """Return a trial; `reach` is from where to which step, if not the sweep's own."""
    override = dict(config.override)
    for path, value in values.items():
        override = merged_value(override, path, value)
    start, until = reach or (config.from_, config.until)
    began = (step_of(PurePosixPath(start).name) or 0) if reach else 0
    keep = [step for step in config.keep if began < step <= until] if reach else config.keep
    entry = {"from": start, "until": until, "override": override, "keep": keep, "patience": config.patience}
    return (Decided if decided else SegmentConfig).model_validate({**entry, **decided})


def merged_value(override: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return an override with a value at a dotted path."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return merge(override, value)


def split(name: str) -> tuple[str | None, str]:
    """Return a trial's sweep and its own name; None and the name for a segment."""
    sweep, slash, trial = name.partition("/")
    return (sweep, trial) if slash else (None, name)


def _problems(where: str, config: SweepConfig, varied: Sequence[str]) -> Iterator[str]:
    space = [*(config.search.space if config.search else ()), *(config.population.mutate if config.population else ())]
    kinds = [kind for kind in ("search", "population") if getattr(config, kind)]
    if kinds and (config.grid or config.trials or config.seeds or len(kinds) > 1):
        others = "grid, trials, seeds and population" if len(kinds) > 1 else "grid, trials and seeds"
        yield f"{where} has a {kinds[0]}, which draws its trials itself: leave {others} out"
    if not varied and not config.trials and not space:
        yield f"{where} varies nothing: give it a grid, trials, seeds, a search or a population"
    for path in [*varied, *(path for trial in config.trials for path in trial), *space]:
        if path.partition(".")[0] in ("segments", "sweeps"):
            yield f"{where}: {path} is no parameter that a trial can change"
        if path.startswith("env.options."):
            yield f"{where}: {path}: the options count as one value: vary env.options, with all that differ from the scenario's own"
    if config.population and config.patience:
        yield f"{where} has a population, whose members end at its boundaries: leave patience out"
    if "seed" in config.grid and config.seeds:
        yield f"{where} has seeds twice, in seeds and in grid: leave one of them out"
    for path in {path for trial in config.trials for path in trial} & {*varied}:
        yield f"{where}: {path} stands in trials and in grid or seeds: leave one of them out"
    count = max(1, len(config.trials)) * max(1, len(config.seeds))
    for values in config.grid.values():
        count *= len(values)
    if count > MOST_TRIALS:
        yield f"{where} has {count} trials, more than {MOST_TRIALS}: take values out"


def _short_names(paths: Sequence[str]) -> dict[str, str]:
    """Return the last parts of paths, as many as tell them apart."""
    found: dict[str, str] = {}
    for path in paths:
        parts = path.split(".")
        endings = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        found[path] = next(end for end in endings if not any(other != path and f".{other}".endswith(f".{end}") for other in paths))
    return found


def _name(values: Mapping[str, Any]) -> str:
    text = "-".join(f"{name}={_text(value)}" for name, value in values.items())
    plain = re.sub(r"[^A-Za-z0-9_.=+-]", "_", text)
    if plain == text and len(plain) <= LONGEST_NAME:
        return plain
    mark = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    return f"{plain[: LONGEST_NAME - 9]}-{mark}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
