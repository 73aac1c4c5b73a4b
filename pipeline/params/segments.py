"""Resolves the segments of params.yaml: where each starts, with which configuration it trains, what it saves, and its key.

Pure: the result depends on params.yaml and on files in git: the manifests of imported checkpoints beside their pointers, what searches
have decided (`params/decisions.py`), and where the evaluations of a segment with `patience` have ended it (`metrics/`). No checkpoint,
cache or server is asked, and the cost is linear in the number of segments.
A problem is one sentence with the field's full path; what else a machine must have for the segments to be trained is checked in
`pipeline/validate.py`.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from matwm import step_names
from matwm.changes import Change, changes
from matwm.config import Config, ConfigError, SegmentConfig, SweepConfig, leaves
from matwm.params_yaml import parse_config, parse_sweeps
from matwm.spelling import nearest
from matwm.version import NUMERICS
from pipeline import project as places
from pipeline.keys import segment_key
from pipeline.params import imports, overrides, sweeps
from pipeline.wording import few

SOURCE = "params.yaml"
TAKEN = {"root": "checkpoints/root, the start of every lineage", "lineage": "plots/lineage, the plots of all segments"}
MOST_CHECKPOINTS = 100_000  # each is a folder, a published artifact and a number in memory
CHECKPOINT = re.compile(rf"(checkpoints|imports)/([^/]+(?:/[^/]+)?)/({step_names.PATTERN})")


@dataclass(frozen=True)
class Origin:
    """The checkpoint that a segment starts from."""

    folder: str
    step: int
    segment: str | None = None
    """The segment that publishes it, None for the root and for an import."""
    run: str | None = None
    """The run it was imported from, None for the root and for another segment's."""


@dataclass(frozen=True)
class ResolvedSegment:
    """One segment with everything that params.yaml says about it."""

    name: str
    """Of a trial SWEEP/TRIAL."""
    origin: Origin
    until: int
    config: Config
    saves: tuple[int, ...]
    """Steps at which the segment makes checkpoints, ascending; they depend on params.yaml alone. What is handed on: `retention`."""
    needed: tuple[int, ...] = ()
    """Those of them that stay whatever the retention: what other segments start from, what `keep` names, and the last one."""
    changed: tuple[Change, ...] = ()
    """Every value that differs from the configuration of the checkpoint it starts from; none at a root."""
    log: Path | None = None
    """Where decisions about a trial are recorded whose sweep decides while it runs (see `params/decisions.py`)."""
    floors: Mapping[int, float] = field(default_factory=dict)
    """Steps at which such a trial ends if its objective is worse than this."""
    patience: int | None = None
    """How many evaluations without a better one end it at a checkpoint; None: it trains to its last step whatever they say."""
    planned: "ResolvedSegment | None" = None
    """The segment as params.yaml has it, if this one has ended before its last step for that reason."""

    def key(self, parent_digest: str) -> str:
        """Return the segment key (see `segment_key`)."""
        return segment_key(NUMERICS, self.config.shaping(), parent_digest)

    @property
    def judged(self) -> tuple[int, ...]:
        """Steps before the last one that are saved, and evaluated while it trains."""
        interval = self.config.evaluation.interval
        return tuple(step for step in self.saves if interval and step < self.until and step % interval == 0)

    def ending(self, step: int) -> "ResolvedSegment":
        """Return the segment with one of the steps that it saves as its last."""
        needed = {*(one for one in self.needed if one <= step), step}
        return replace(self, until=step, saves=tuple(one for one in self.saves if one <= step), needed=tuple(sorted(needed)))


def resolve(params: Mapping[str, Any], name: str, project: Path) -> ResolvedSegment:
    """Return one segment of params.yaml.

    Raises:
        ConfigError: params.yaml is wrong, in this segment or elsewhere.
    """
    segments = resolve_all(params, project)
    if name not in segments:
        raise ConfigError([f"{SOURCE}: segments.{name} is not there (known: {', '.join(segments)})"])
    return segments[name]


def resolve_all(params: Mapping[str, Any], project: Path) -> dict[str, ResolvedSegment]:
    """Return all segments of params.yaml by name, and the trials of its sweeps.

    Raises:
        ConfigError: one sentence for each thing that is wrong.
    """
    return _resolve(params, project)[0]


def sample_of(params: Mapping[str, Any], project: Path, sweep: str) -> ResolvedSegment:
    """Return a trial as a search could draw it: all but the drawn values holds for every one of its trials.

    Raises:
        ConfigError: one sentence for each thing that is wrong.
    """
    return next(one for name, one in _resolve(params, project)[1].items() if sweeps.split(name)[0] == sweep)


def _resolve(params: Mapping[str, Any], project: Path) -> tuple[dict[str, ResolvedSegment], dict[str, ResolvedSegment]]:
    """Return all segments and trials, and samples of what searches could draw."""
    problems: list[str] = []
    base, entries = None, None
    try:
        base = parse_config(params, source=SOURCE)
    except ConfigError as error:
        problems += error.problems
    try:
        entries = sweeps.entries(params, project)
    except ConfigError as error:
        problems += error.problems
    if base is None or entries is None:
        raise ConfigError(list(dict.fromkeys(problems)))
    samples = sweeps.samples(params)
    graph = _Graph(base, {**samples, **entries}, project)
    if problems := _once([*graph.problems(), *graph.unsearchable(parse_sweeps(params))]):
        raise ConfigError(problems)
    return {name: graph.segment(name) for name in entries}, {name: graph.segment(name) for name in samples}


@dataclass
class _Graph:
    base: Config
    entries: Mapping[str, SegmentConfig]
    project: Path
    origins: dict[str, Origin] = field(default_factory=dict)
    starts: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """Steps of each segment that others start from."""
    configs: dict[str, Config] = field(default_factory=dict)
    changed: dict[str, tuple[Change, ...]] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)

    def problems(self) -> list[str]:
        """Return what is wrong, parents before children; what follows from a wrong parent is left out."""
        found: list[str] = []
        for name in self.entries:
            try:
                origin = self.origins[name] = self._origin(name)
                if origin.segment is not None:
                    self.starts[origin.segment].add(origin.step)
            except _ProblemError as problem:
                found.append(f"{SOURCE}: {_where(name)}{problem}")
        order, cycles = self._parents_first()
        found += [f"{SOURCE}: {_where(cycle[0])}.from leads back to itself: {' from '.join([*cycle, cycle[0]])}" for cycle in cycles]
        if found:
            return found
        for name in order:
            origin = self.origins[name]
            if origin.segment is not None and origin.segment not in self.configs:
                continue
            try:
                self._check_reach(name)
                self.configs[name] = self._config(name)
                self._check_count(name)
            except (_ProblemError, imports.ImportedError) as problem:
                found.append(f"{SOURCE}: {_where(name)}{problem}")
            except ConfigError as error:
                found += error.problems
        return found

    def segment(self, name: str) -> ResolvedSegment:
        origin, config, until = self.origins[name], self.configs[name], self.entries[name].until
        every = config.run.save_interval
        needed = {until, *self.starts[name], *self.entries[name].keep}
        steps = set(range((origin.step // every + 1) * every, until, every)) | needed
        found = ResolvedSegment(name, origin, until, config, tuple(sorted(steps)), tuple(sorted(needed)), self.changed.get(name, ()))
        entry = self.entries[name]
        found = replace(found, patience=entry.patience)
        if isinstance(entry, sweeps.Decided):
            found = replace(found, log=entry.log, floors=entry.floors)
        return replace(found.ending(end), planned=found) if (end := self._end(name)) < until else found

    def unsearchable(self, found: Mapping[str, SweepConfig]) -> Iterator[str]:
        """Yield a sentence for each search that could not tell which trial is better, or could never prune where it is to."""
        for name, config in self.configs.items():
            sweep = sweeps.split(name)[0]
            yield from self._impatient(name, config)
            search = found[sweep].search if sweep else None
            if sweep and found[sweep].is_decided and not config.objectives:
                yield (
                    f"{SOURCE}: {_where(name)} has nothing to tell by who is better: {config.env.name} has no objective of its own: set "
                    "evaluation.objective"
                )
            if search and search.prune is not None and not self.segment(name).judged:
                yield (
                    f"{SOURCE}: {_where(name)}: search.prune is {search.prune}, but no step before the last is both evaluated "
                    f"(evaluation.interval is {config.evaluation.interval}) and saved (run.save_interval is {config.run.save_interval}): "
                    "make the first a multiple of the second"
                )
            if sweep and (population := found[sweep].population):
                yield from _immutable(f"{SOURCE}: sweeps.{sweep}.population.mutate", config, list(population.mutate))

    def _impatient(self, name: str, config: Config) -> Iterator[str]:
        """Yield a sentence if a segment is to stop early and never could."""
        segment = self.segment(name)
        if segment.patience is None:
            return
        where = f"{SOURCE}: {_where(name)}.patience is {segment.patience}, but"
        if not config.objectives:
            yield f"{where} {config.env.name} has no objective of its own: set evaluation.objective"
        elif not (segment.planned or segment).judged:
            yield (
                f"{where} no step before the last is both evaluated (evaluation.interval is {config.evaluation.interval}) and saved "
                f"(run.save_interval is {config.run.save_interval}): make the first a multiple of the second"
            )

    def _end(self, name: str) -> int:
        """Return the last step of a segment: that of params.yaml, or where its evaluations have ended it, as `metrics/` records it."""
        if name not in self.ends:
            self.ends[name] = self._recorded_end(name)
        return self.ends[name]

    def _recorded_end(self, name: str) -> int:
        entry = self.entries[name]
        if entry.patience is None:
            return entry.until
        record = places.read_json(places.metrics_folder(self.project, name) / "train.json") or {}
        step = record.get("stopped_at")
        if not isinstance(step, int) or record.get("patience") != entry.patience or step < max(entry.keep, default=0):
            return entry.until
        return step if self.origins[name].step < step < entry.until else entry.until

    def _origin(self, name: str) -> Origin:
        text = self.entries[name].from_
        folder = PurePosixPath(text).as_posix()
        first = name.partition("/")[0]
        if first in TAKEN:
            raise _ProblemError(f": the name {first} is taken by {TAKEN[first]}")
        if folder == places.ROOT_CHECKPOINT:
            return Origin(folder, 0)
        match = CHECKPOINT.fullmatch(folder)
        if match is None:
            raise _ProblemError(
                f".from is {text!r}: expected {places.ROOT_CHECKPOINT}, checkpoints/<segment>/step_000005000 "
                "or imports/<run>/step_000005000"
            )
        kind, owner, step = match[1], match[2], places.step_of(match[3])
        assert step is not None
        if kind == "imports":
            return Origin(folder, step, run=owner)
        if owner not in self.entries:
            raise _ProblemError(f".from is {text!r}, but there is no segment {owner} (known: {few(list(self.entries), at_most=8)})")
        if owner == name:
            raise _ProblemError(f".from is {text!r}, a checkpoint of itself: start from {places.ROOT_CHECKPOINT} or from another segment")
        return Origin(folder, step, segment=owner)

    def _parents_first(self) -> tuple[list[str], list[list[str]]]:
        """Return the segments in an order in which parents come first, and the cycles, each from its first entry on."""
        number = {name: position for position, name in enumerate(self.entries)}
        order: list[str] = []
        cycles: list[list[str]] = []
        seen: set[str] = set()
        for first in self.origins:
            walk: dict[str, None] = {}  # ordered, and quick to look into
            name: str | None = first
            while name in self.origins and name not in seen and name not in walk:
                walk[name] = None
                name = self.origins[name].segment
            if name in walk:
                cycle = list(walk)[list(walk).index(name) :]
                begin = cycle.index(min(cycle, key=number.__getitem__))
                cycles.append(cycle[begin:] + cycle[:begin])
            seen |= walk.keys()
            order += reversed(walk)
        return order, cycles

    def _check_reach(self, name: str) -> None:
        origin, entry = self.origins[name], self.entries[name]
        if origin.segment is not None:
            start, end = self.origins[origin.segment].step, self.entries[origin.segment].until
            if not start < origin.step <= end:
                raise _ProblemError(
                    f".from is {entry.from_!r}, but {_where(origin.segment)} goes from step {start} to {end} and has no step {origin.step}"
                )
        if origin.segment is not None and origin.step > (end := self._end(origin.segment)):
            raise _ProblemError(
                f".from is {entry.from_!r}, but {_where(origin.segment)} was stopped early at step {end} (patience is "
                f"{self.entries[origin.segment].patience}): start from a step up to that, or add keep: [{origin.step}] to it"
            )
        if entry.until <= origin.step:
            raise _ProblemError(f".until is {entry.until}, which is not beyond step {origin.step} of {origin.folder}: raise it")
        if outside := [step for step in entry.keep if not origin.step < step <= entry.until]:
            raise _ProblemError(f".keep names step {outside[0]}, but the segment goes from step {origin.step} to {entry.until}")

    def _check_count(self, name: str) -> None:
        every = self.configs[name].run.save_interval
        count = (self.entries[name].until - self.origins[name].step) // every
        if count > MOST_CHECKPOINTS:
            raise _ProblemError(
                f".until is {self.entries[name].until}, which with run.save_interval = {every} makes {count} checkpoints, "
                f"more than {MOST_CHECKPOINTS}: raise run.save_interval"
            )

    def _config(self, name: str) -> Config:
        origin, override = self.origins[name], self.entries[name].override
        where = f"{SOURCE}: {_where(name)}{'' if '/' in name else '.override'}."
        if origin.segment is not None:
            parent = self.configs[origin.segment]
        elif origin.run is not None:
            parent = imports.config(self.project, origin.folder, self.base)
        else:
            return overrides.begin(self.base, override, where) if override else self.base
        config = overrides.apply(parent, override, where) if override else parent
        if origin.run is not None:
            imports.check_base(origin.folder, config, overrides.begin(self.base, override, where))
        self.changed[name] = tuple(changes(parent, config))
        return config


def _where(name: str) -> str:
    """Return where params.yaml describes a segment or a trial."""
    sweep, own = sweeps.split(name)
    return f"sweeps.{sweep} (trial {own})" if sweep else f"segments.{own}"


def _immutable(where: str, config: Config, paths: Sequence[str]) -> Iterator[str]:
    """Yield a sentence for each parameter that copies in a population could not have another value of."""
    known = {path: (value, marks) for path, value, marks in leaves(config)}
    for path in paths:
        if path not in known:
            yield f"{where}.{path} is no parameter{nearest(path, list(known))}"
        elif known[path][1]["branch"] == "fixed":
            yield f"{where}.{path} cannot change in a copy, which goes on from another member's state: mutate something else"
        elif isinstance(known[path][0], bool) or not isinstance(known[path][0], int | float) or path == "seed":
            yield f"{where}.{path} is {known[path][0]!r}, which no factor makes another value of the kind: mutate a number"


def _once(problems: list[str]) -> list[str]:
    """Leave out what is wrong with a trial where another of its sweep has the same fault."""
    seen: dict[str, str] = {}
    for problem in problems:
        seen.setdefault(re.sub(r"^(params.yaml: sweeps\.[\w-]+) \(trial [^)]*\)", r"\1", problem), problem)
    return list(seen.values())


class _ProblemError(Exception):
    """What is wrong with a segment, as it goes on after `segments.<name>`."""
