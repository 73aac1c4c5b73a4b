"""A training that is killed within an episode ends as one that was not, in every family that promises it: the stage's process, by SIGKILL.

Of `mpe` test_dvc.py and test_kill.py do the same through `dvc repro`. This process trains on, which has trained undisturbed before;
that an episode goes on in a process that knows nothing of it is in tests/matwm/envs/test_base.py.
"""

import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from matwm import scenarios
from matwm.envs import is_installed
from matwm.evaluation import evaluate
from matwm.params_yaml import parse_config
from matwm.trainer import Trainer, build_trainer
from pipeline.evaluate import evaluate as judge
from pipeline.process import Interruption
from pipeline.train import train
from tests.pipeline.projects import HOLDING, Project, fingerprint_of, tiny_params, until
from tests.readme import own_environment


@dataclass(frozen=True)
class Case:
    """A tiny training, of which somebody has died where its checkpoint is taken if its environment has deaths."""

    env: Mapping[str, Any]
    last: int
    has_deaths: bool = False
    is_judged: bool = False
    """Evaluated in the end, its battles won or lost."""
    files: Mapping[str, str] = field(default_factory=dict)
    """What lies beside params.yaml."""

    def params(self, save_interval: int) -> dict[str, Any]:
        segments = {"s00": {"from": "checkpoints/root", "until": self.last}}
        return tiny_params({"env": self.env, "run": {"save_interval": save_interval}}, segments)

    def is_good(self, trainer: Trainer) -> bool:
        """Return whether a checkpoint of now is within an episode, with half of the training to come."""
        tick = trainer.env.tick
        is_within = tick is not None and bool(trainer.env.state_dict()["actions"])
        return is_within and trainer.env_step > self.last / 2 and (not self.has_deaths or not tick.alive.all())


MEETING, SECTION = own_environment()
KNIGHTS = {"family": "butterfly", "name": "knights_archers_zombies_v11", "options": {"spawn_delay": 2, "line_death": True}}
CASES = {
    "images": Case({"family": "butterfly", "name": "cooperative_pong_v6", "options": {}}, 120),
    "deaths": Case(KNIGHTS, 160, has_deaths=True),
    "battles": Case({"family": "smax", "name": "3m", "options": {}}, 160, has_deaths=True, is_judged=True),
    "own": Case(SECTION, 300, files={"meeting.py": MEETING}),
}


def uninterrupted(case: Case) -> tuple[Trainer, int]:
    """Return the trainer at the end, and the first step whose checkpoint is good."""
    trainer, step = build_trainer(parse_config(case.params(case.last))), None
    while trainer.env_step < case.last:
        trainer.step()
        if step is None and case.is_good(trainer):
            step = trainer.env_step
    assert step is not None, "no checkpoint would be within an episode"
    return trainer, step


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_kill_within_an_episode_changes_nothing(
    case: Case, tmp_path: Path, store_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = scenarios.family(case.env["family"])
    if not is_installed(case.env["family"]):
        pytest.skip(family.install)
    path = tmp_path / "p"
    path.mkdir()
    for name, text in case.files.items():
        (path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(path)
    monkeypatch.setattr("sys.path", [*sys.path])
    whole, step = uninterrupted(case)
    project = Project.create(path, case.params(step), store_template)

    trainer = project.start(sys.executable, str(HOLDING), "-m", "pipeline.train", "s00", **project.hold(step))
    until(lambda: project.has_saved(step) or trainer.poll() is not None)
    assert trainer.poll() is None, trainer.communicate()[0]
    trainer.kill()
    assert trainer.wait(timeout=300) == -signal.SIGKILL
    assert train(path, "s00", Interruption()) == 0
    assert project.json("metrics/s00/run.json")["resumed_at"] == [step]
    assert project.fingerprint_at(case.last) == fingerprint_of(whole)
    if case.is_judged:
        judge(path, "s00")
        judged = project.json("metrics/s00/evaluation.json")
        assert win_rate_and_returns(whole) == (
            judged["metrics"]["sampled"]["self_play"]["win"]["mean"],
            {agent: told["mean"] for agent, told in judged["sampled"]["self_play"].items()},
        )


def win_rate_and_returns(whole: Trainer) -> tuple[float, dict[str, float]]:
    """Judge the policies that were never interrupted as the stage judges those that were."""
    judging = whole.config.evaluation
    (result,) = evaluate(
        whole.learner.world_model, whole.learner.actors, whole.config.env, episodes=judging.episodes, first_seed=judging.seed,
        modes=judging.modes, acting_context=whole.config.schedule.acting_context,
    )  # fmt: skip
    return round(result.metrics["win"].mean, 4), {agent: round(summary.mean, 4) for agent, summary in result.agents.items()}
