"""Reads what git has of trainings (`metrics/<segment>/`) into settings: trainings that differ in nothing but their seed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from matwm.scenarios.objective import METRICS, SELF_PLAY, Objective
from matwm.types import role_of
from pipeline import project as places
from pipeline.metrics import best
from pipeline.metrics.recorded import read_recorded
from pipeline.params import sweeps
from pipeline.plot import read_curves, table_in
from pipeline.project import ProjectError

if TYPE_CHECKING:  # matplotlib
    from pipeline.drawing.figures import Curve

NOBODY = ("random", "still")
"""Tactics that no script deserves its name for."""


@dataclass(frozen=True)
class Reference:
    """What scripts get where an objective's learners play."""

    random: float | None = None
    scripts: Mapping[str, float] = field(default_factory=dict)

    def script(self, objective: Objective) -> float | None:
        """The best script's."""
        return max(self.scripts.values(), key=objective.goodness, default=None)

    def normalised(self, objective: Objective, score: float) -> float | None:
        """Return a score with random play at 0 and the best script at 1; None where there is no script that is better than that."""
        script = self.script(objective)
        if self.random is None or script is None or objective.goodness(script) <= objective.goodness(self.random):
            return None
        return (score - self.random) / (script - self.random)


@dataclass(frozen=True)
class Training:
    """One training, as `metrics/<segment>/` has it."""

    name: str
    folder: Path
    setting: str
    """What it has in common with trainings of other seeds."""

    @cached_property
    def facts(self) -> dict[str, str]:
        """Its tags."""
        return places.record_in(self.folder).get("tags", {})

    @property
    def scenario(self) -> str:
        """The scenario's name."""
        return self.facts.get("matwm.env", "?")

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What it is judged by."""
        return best.objectives(self.facts)

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        """Its evaluation, a row a role and match-up; none if it was not evaluated."""
        file = self.folder / "evaluation.csv"
        if not file.is_file():
            return []
        with table_in(file) as rows:
            names = ("mode", "matchup", "role", "learned")
            return [{**{name: row[name] for name in names}, "mean": str(float(row["mean"]))} for row in rows]

    def score(self, objective: Objective) -> float | None:
        """Return the mean at its end in the first mode; None if that was not judged."""
        role = f"{METRICS}{objective.name}" if objective.is_metric else objective.name
        found = [row for row in self.rows if (row["matchup"], row["role"]) == (objective.matchup, role) and row["learned"] == "1"]
        return float(found[0]["mean"]) if found else None

    def reference(self, objective: Objective) -> Reference:
        """Return what scripts get in the learners' place."""
        role = f"{METRICS}{objective.name}" if objective.is_metric else objective.name
        place = r"([a-z_]+?)" if objective.matchup == SELF_PLAY else objective.matchup.replace("learned", "([a-z_]+?)")
        matches = [(re.fullmatch(place, row["matchup"]), row) for row in self.rows if row["mode"] == "reference" and row["role"] == role]
        found = {match[1]: float(row["mean"]) for match, row in matches if match and "_v_" not in match[1]}
        return Reference(found.get("random"), {name: mean for name, mean in found.items() if name not in NOBODY})

    def returns(self, role: str) -> "Curve | None":
        """Return the mean return of a role's agents in its training episodes."""
        file = self.folder / "episodes.csv"
        curves = read_curves(file) if file.is_file() else {}
        own = [curve for name, curve in curves.items() if name.startswith("return/") and role_of(name.removeprefix("return/")) == role]
        return (own[0][0], np.mean([values for _, values in own], axis=0)) if own else None

    def judged(self, objective: Objective) -> "Curve | None":
        """Return its evaluations over the steps, in the first mode."""
        points = read_recorded(self.folder)
        mode = best.mode_of({point.key for point in points}, self.facts.get(best.MODES_TAG))
        values = {point.key: dict[int, float]() for point in points}
        for point in points:
            values[point.key][point.step] = point.value
        curves = [values[key] for key in best.keys(values, mode, objective)] if mode else []
        steps = sorted(set.intersection(*map(set, curves))) if curves else []
        return (np.array(steps, float), np.array([np.mean([curve[step] for curve in curves]) for step in steps])) if steps else None


def scored(group: Sequence[Training], scenario: str, objective: Objective) -> list[tuple[float, float | None]]:
    """Return the score of each training of a scenario that was judged by an objective, and the normalised one where there is one."""
    judged = [(one, score) for one in group if one.scenario == scenario and (score := one.score(objective)) is not None]
    return [(score, one.reference(objective).normalised(objective, score)) for one, score in judged]


def gathered(project: Path, names: Sequence[str]) -> dict[str, list[Training]]:
    """Return trainings by their setting, in the order of the names.

    Raises:
        ProjectError: git has no metrics of one.
    """
    trainings: list[Training] = []
    for name in names:
        folder = places.metrics_folder(project, name)
        if not (folder / "run.json").is_file():
            raise ProjectError(f'metrics/{name}/ has no run.json: it is not trained here; "matwm repro" or "git pull" brings it')
        sweep, own = sweeps.split(name)
        trainings.append(Training(name, folder, (re.sub(r"-?\bseed=\d+$", "", own) or str(sweep)) if sweep else own))
    owners: dict[tuple[str, str], set[str | None]] = {}
    for one in trainings:
        owners.setdefault((one.setting, one.scenario), set()).add(sweeps.split(one.name)[0])
    is_shared = any(len(found) > 1 for found in owners.values())  # Two sweeps of one scenario are no seeds of each other.
    found: dict[str, list[Training]] = {}
    for one in trainings:
        sweep = sweeps.split(one.name)[0]
        setting = f"{sweep}/{one.setting}" if is_shared and sweep and sweep != one.setting else one.setting
        found.setdefault(setting, []).append(replace(one, setting=setting))
    return found


def objectives_of(trainings: Mapping[str, Sequence[Training]]) -> list[tuple[str, Objective]]:
    """Return every (scenario, objective) that trainings are judged by."""
    return list(dict.fromkeys((one.scenario, objective) for group in trainings.values() for one in group for objective in one.objectives))
