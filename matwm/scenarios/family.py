"""Says what a file of `matwm/envs/` declares of its family of environments, and of each scenario."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from matwm.scenarios.options import Options
from matwm.scenarios.sides import ONE_TEAM, Side
from matwm.types import AgentSpec, ResumeClass


@dataclass(frozen=True)
class Scenario:
    """What can be known of a scenario without importing it."""

    options: type[Options]
    team: tuple[int | str, ...]
    """Numbers of agents to be added up: a fixed number, or the option that holds one."""
    agent: AgentSpec | None = None
    """Every agent's with the default options, where that is known without the package; its name lacks the number."""
    sides: tuple[Side, ...] = ONE_TEAM
    """One where all share an aim, two where they are opponents."""
    objectives: tuple[str, ...] = ()
    """What runs are judged by unless params.yaml says it (see objective.py): one a role whose interests differ; none is known of others."""


@dataclass(frozen=True)
class Family:
    """Environments that come from one place."""

    meaning: str
    module: str
    """What must be there to import for its environments to run."""
    install: str
    """The command that installs that."""
    resume: ResumeClass
    """How its episodes come back; an environment by import path may say otherwise of itself."""
    scenarios: Mapping[str, Scenario] = field(default_factory=dict)
    """By name; none where a name is an import path."""
    packages: tuple[str, ...] = ()
    """Distributions whose versions decide what happens in its environments: exact repetition needs the same."""
    note: str = ""
    """What to know before its numbers are compared with anybody's."""
    also: str = ""
    """What must be there besides the package."""
    lacks: Callable[[], str | None] = lambda: None
    """Returns what of that is not there, None if all is."""
    namesake: str = ""
    """What the package index has under the name of the package."""
    is_heavy: bool = False
    """Each environment is a game with gigabytes of its own: no two are run side by side."""
