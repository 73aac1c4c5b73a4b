"""Says what one learning job is: a scenario, a seed and every value it is trained and judged by."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.learn.measures import ABLATIONS, FINAL
from matwm.config import Config, ConfigError
from matwm.params_yaml import SEGMENT_NAME, load_config, preset_path
from matwm.tree_diff import differing
from matwm.version import NUMERICS
from pipeline.params import assignments, overrides

CURVE_SEED = 20_000
"""Environment seed of the first episode of the judgements inside training: the last judgement has other episodes."""
TUNING_SEED = 15_000
"""… of the last judgement of jobs that are in no table: who tunes does not look at those of the table, either."""


@dataclass(frozen=True)
class Judging:
    """How a job is judged: at its end in both modes against every opponent, inside training sampled against the table's."""

    episodes: int
    """At the end, a match-up and mode."""
    every: int
    """Environment steps a judgement inside training, the last at its end; 0: none."""
    curve_episodes: int


@dataclass(frozen=True)
class Plan:
    """A job: the same plan given again goes on with the same work."""

    name: str
    """Of the set of jobs that belong together."""
    preset: str
    changes: Mapping[str, Any]
    """Path in params.yaml -> value, where it is not the preset's."""
    steps: int
    config: Config
    judging: Judging

    @property
    def scenario(self) -> str:
        """The environment's name."""
        return self.config.env.name

    @property
    def place(self) -> Path:
        """Where its files lie below the folders of work and results."""
        return Path(self.name) / self.scenario / f"seed_{self.config.seed}"

    def __str__(self) -> str:
        return f"{self.name}/{self.scenario} seed {self.config.seed}"

    @property
    def first_seed(self) -> int:
        """Environment seed of the first episode of the last judgement."""
        return self.config.evaluation.seed if self.name in (FINAL, *ABLATIONS) else TUNING_SEED

    def identity(self) -> dict[str, Any]:
        """Return everything that its result depends on: of the code, the version of its arithmetic."""
        judging = {**vars(self.judging), "first_seed": self.first_seed}
        return {"numerics": NUMERICS, "steps": self.steps, "judging": judging, "config": self.config.shaping()}

    def is_judged_at(self, step: int) -> bool:
        """Return whether a point of the curve is due at a step."""
        return bool(self.judging.every) and step > 0 and (step % self.judging.every == 0 or step == self.steps)


def make_plan(name: str, preset: str, scenario: str, seed: int, steps: int, words: Sequence[str], judging: Judging) -> Plan:
    """Return the plan of one job; `words` are KEY=VALUE.

    Raises:
        ConfigError: one sentence for each thing that is wrong.
    """
    base = load_config(preset_path(preset))
    options = base.env.options if scenario == base.env.name else {}
    env = {**base.env.model_dump(), "name": scenario, "options": options}
    base = overrides.begin(base, {"seed": seed, "env": env}, "--scenario ")
    asked, paths, problems = assignments.override_of(words, base)
    if own := {"seed", "env.name"} & set(paths):
        problems.append(f"--set {min(own)}: use --seeds and --scenario for that")
    if not SEGMENT_NAME.fullmatch(name):
        problems.append(f"--name {name}: a name is made of letters, digits, '-' and '_', with a letter or digit first")
    if problems:
        raise ConfigError(problems)
    config = overrides.begin(base, asked, "--set ")
    data = config.resolved()
    return Plan(name, preset, {path: assignments.value_at(data, path) for path in sorted(paths)}, steps, config, judging)


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Yield a phrase for each value in which two identities differ."""
    for path, (old, new) in differing(before, after).items():
        yield f"{path.removeprefix('config.')} was {old!r} and is {new!r} now"
