"""A search decides once: what it has drawn is in the log before it begins, and a killed one goes on to the same bits."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from matwm.checkpoint import open_checkpoint
from matwm.config import ConfigError, RangeConfig, SearchConfig, SweepConfig
from matwm.params_yaml import parse_sweeps, read_params
from matwm.scenarios import objective
from matwm.step_names import step_name, steps_in
from pipeline import runs, search, tracking
from pipeline.catalog.catalog import Catalog
from pipeline.params import decisions
from pipeline.params.segments import resolve_all
from pipeline.process import Interruption
from pipeline.train import train
from pipeline.trial import run_trial
from tests.pipeline.projects import SOURCE, Project, tiny_params

ROOT = "checkpoints/root"
RATE, EPOCHS = "actor_critic.learning_rate", "actor_critic.epochs"
SPACE = {RATE: {"low": 1.0e-4, "high": 1.0e-1, "log": True}, EPOCHS: {"choices": [1, 2]}}
OVERRIDE = {"evaluation": {"interval": 40, "objective": "self_play/agent"}}
START = "0" * 64
WHERE = "params.yaml: sweeps.tune"


def with_search(until: int = 80, override: dict[str, Any] = OVERRIDE, **changes: Any) -> dict[str, Any]:
    sweep = {"from": ROOT, "until": until, "override": override, "search": {"space": SPACE, "trials": 3, "startup": 1, **changes}}
    return {**tiny_params(segments={"s00": {"from": ROOT, "until": 40}}), "sweeps": {"tune": sweep}}


def write(project: Path, params: dict[str, Any]) -> None:
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


@pytest.fixture
def project(root: Path) -> Path:
    shutil.copytree(SOURCE / ROOT, root / ROOT)
    write(root, with_search())
    return root


def opened(project: Path, start: str = START) -> decisions.Log:
    params = read_params(project / "params.yaml")
    return decisions.open_log(project, params, "tune", parse_sweeps(params)["tune"], start)


def log_of(project: Path) -> decisions.Log:
    params = read_params(project / "params.yaml")
    return decisions.read(project, params, "tune", parse_sweeps(params)["tune"])


def judge(project: Path, trial: str) -> None:
    """Leave what a trained trial would: the better, the lower its learning rate."""
    folder, rate = project / "metrics/tune" / trial, log_of(project).trials[trial]["values"][RATE]
    score = {"mean": -rate, "stderr": 0.0}
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text(json.dumps({"step": 80, "sampled": {"self_play": {"agent_0": score}}}), encoding="utf-8")
    row = f"40,1,evaluation/sampled/self_play/agent_0,{-2 * rate!r}\n"
    (folder / "times.csv").write_text(f"step,timestamp_ms,key,value\n{row}", encoding="utf-8")


def searched(project: Path, finished: set[str]) -> list[str]:
    """Decide until nothing is left to decide, and return the log's lines."""
    while True:
        search.decide(project, "tune", finished.__contains__)
        new = [trial for trial in log_of(project).trials if f"tune/{trial}" not in finished]
        if not new:
            return log_of(project).path.read_text(encoding="utf-8").splitlines(keepends=True)
        for trial in new:
            if not (project / "metrics/tune" / trial).exists():
                judge(project, trial)
            finished.add(f"tune/{trial}")


# ---- what is drawn


def config(parallel: int = 1, **changes: Any) -> SearchConfig:
    return SearchConfig.model_validate({"space": SPACE, "trials": 9, "startup": 2, "parallel": parallel, **changes})


def known(count: int, value: float = 1.0) -> list[dict[str, Any]]:
    return [{"values": {RATE: 0.001 * (n + 1), EPOCHS: 1 + n % 2}, "value": value * n, "curve": {"40": value * n}} for n in range(count)]


def test_a_draw_is_a_function_of_the_search_and_of_the_trials_before_it() -> None:
    judged_by = objective.parse("win")
    drawn = [search.draw(number, config(), judged_by, known(number), number) for number in range(6)]
    assert drawn == [search.draw(number, config(), judged_by, known(number), number) for number in range(6)]
    assert len({one[RATE] for one in drawn}) == 6
    assert all(1e-4 <= one[RATE] <= 1e-1 and one[EPOCHS] in (1, 2) and float(f"{one[RATE]:.3g}") == one[RATE] for one in drawn)
    assert drawn != [search.draw(number, config(seed=1), judged_by, known(number), number) for number in range(6)]
    assert search.draw(5, config(), judged_by, known(5), 5) != search.draw(5, config(), judged_by, known(5, -1.0), 5), (
        "it learns from values"
    )


def test_what_runs_beside_a_trial_is_known_by_its_values_alone() -> None:
    judged_by = objective.parse("win")
    other = [*known(4), *known(6, -7.0)[4:]]
    assert search.draw(6, config(3), judged_by, known(6), 4) == search.draw(6, config(3), judged_by, other, 4)


def test_ranges_of_whole_numbers_and_lists_are_drawn_as_they_are_written() -> None:
    space = {"schedule.agents_every": {"low": 1, "high": 3}, "world_model.adam_betas": {"choices": [[0.9, 0.999], [0.5, 0.9]]}}
    drawn = [search.draw(number, config(space=space, startup=20), objective.parse("win"), [], 0) for number in range(20)]
    assert {type(one["schedule.agents_every"]) for one in drawn} == {int}
    assert {one["schedule.agents_every"] for one in drawn} == {1, 2, 3}
    assert {str(one["world_model.adam_betas"]) for one in drawn} == {"[0.9, 0.999]", "[0.5, 0.9]"}


def test_the_better_values_are_drawn_more_often_in_the_end(project: Path) -> None:
    write(project, with_search(trials=24, startup=6))
    opened(project)
    searched(project, set())
    rates = [facts["values"][RATE] for facts in log_of(project).trials.values()]
    assert sorted(rates[-8:])[4] < sorted(rates[:6])[3] / 3, "the objective is the better, the lower the rate"


def test_floors_are_the_quantile_of_what_whole_trials_had_reached() -> None:
    rows = [{"value": 1.0, "curve": {"40": one}} for one in (-4.0, -2.0, -1.0)] + [{"value": -9.0, "curve": {"40": -9.0}, "pruned": True}]
    rows += [{"diverged": True}]
    found = config(prune=0.5, startup=5)
    assert search.floors(found, objective.parse("win"), rows, [40, 80]) == {"40": -2.0}
    assert search.floors(config(prune=0.25, startup=5), objective.parse("win"), rows, [40]) == {"40": -3.0}
    assert search.floors(config(prune=0.25, startup=5), objective.parse("min win"), rows, [40]) == {"40": -1.5}
    assert search.floors(found, objective.parse("win"), rows[:4], [40]) == {}, "the first ones are not pruned"
    assert search.floors(config(startup=5), objective.parse("win"), rows, [40]) == {}


# ---- the log


def test_a_search_cut_off_after_any_line_is_decided_to_the_same_log(project: Path) -> None:
    write(project, with_search(trials=5, startup=2, prune=0.5))
    path = opened(project).path
    whole = searched(project, set())
    assert len(whole) == 1 + 5 * 2
    assert (project / "metrics/tune/trials.jsonl").read_text(encoding="utf-8") == "".join(whole)
    (project / "metrics/tune/trials.jsonl").unlink()
    for count in range(1, len(whole)):
        path.write_text("".join(whole[:count]) + whole[count][: len(whole[count]) // 2], encoding="utf-8")  # killed amid a line
        began = {f"tune/{trial}" for trial in log_of(project).trials}
        assert searched(project, began) == whole
        (project / "metrics/tune/trials.jsonl").unlink()


@pytest.mark.parametrize("parallel", [2, 3])
def test_trials_side_by_side_are_drawn_the_same_in_whichever_order_they_end(project: Path, parallel: int) -> None:
    write(project, with_search(trials=6, parallel=parallel))
    path = opened(project).path
    searched(project, set())
    whole = log_of(project).trials
    path.write_text(path.read_text(encoding="utf-8").splitlines(keepends=True)[0], encoding="utf-8")
    (project / "metrics/tune/trials.jsonl").unlink()
    finished: set[str] = set()
    while True:
        search.decide(project, "tune", finished.__contains__)
        new = [trial for trial in log_of(project).trials if f"tune/{trial}" not in finished]
        if not new:
            break
        assert len(new) <= parallel
        finished.add(f"tune/{new[-1]}")  # the youngest first
    assert log_of(project).trials == whole


def test_more_trials_go_on_with_the_same_search_and_other_values_begin_another(project: Path) -> None:
    opened(project)
    three = searched(project, set())
    write(project, with_search(trials=4))
    assert searched(project, {f"tune/{trial}" for trial in log_of(project).trials})[: len(three)] == three
    assert len(log_of(project).trials) == 4
    for other in (with_search(seed=1), with_search(until=120), {**with_search(), "seed": 5}, with_search(override={})):
        write(project, other)
        assert log_of(project).trials == {}
    write(project, with_search(trials=4))
    assert len(log_of(project).trials) == 4


def test_a_clone_goes_on_from_what_git_has(project: Path) -> None:
    whole = opened(project) and searched(project, set())
    shutil.rmtree(project / ".matwm/sweeps")
    assert [*log_of(project).trials] == [json.loads(line)["trial"] for line in whole[1::2]]
    assert "".join(whole) == opened(project).path.read_text(encoding="utf-8")
    assert len(opened(project, start="1" * 64).rows) == 1, "a parent that came out otherwise: the trials are others, too"
    (kept,) = log_of(project).path.parent.glob(f"{START[:12]}-trials.jsonl")
    assert kept.read_text(encoding="utf-8") == "".join(whole)


# ---- what params.yaml may say


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"space": {"actor_critic.lerning_rate": {"low": 1, "high": 2}}},
            f"{WHERE} (trial lerning_rate=1).actor_critic.lerning_rate is unk",
        ),
        (
            {"space": {RATE: {"low": -1.0, "high": 1.0}}},
            f"{WHERE} (trial learning_rate=-1.0).actor_critic.learning_rate is -1.0, but should",
        ),
        ({"space": {EPOCHS: {"choices": [1, 0, 2]}}}, f"{WHERE} (trial epochs=0).actor_critic.epochs is 0, but should be greater than or"),
        ({"space": {RATE: {"low": 2.0, "high": 1.0}}}, f"{WHERE}.search.space.{RATE}: low is 2.0, high 1.0: the first must be smaller"),
        ({"space": {RATE: {"low": 0.0, "high": 1.0, "log": True}}}, f"{WHERE}.search.space.{RATE}: low is 0.0, which has no logarithm"),
        (
            {"space": {RATE: {"low": "1e-4", "high": 1.0}}},
            f"{WHERE}.search.space.{RATE}.low is the text '1e-4', not a number: write 0.0001",
        ),
        ({"space": {RATE: {"high": 1.0}}}, f"{WHERE}.search.space.{RATE}: give it choices, or low and high"),
        ({"space": {RATE: {"choices": [1, 1]}}}, f"{WHERE}.search.space.{RATE}: choices are [1, 1]: name each value once"),
        ({"trails": 3}, f"{WHERE}.search.trails is unknown, did you mean trials?"),
        (
            {"prune": 0.5, "override": {**OVERRIDE, "run": {"save_interval": 60}}},
            f"{WHERE} (trial learning_rate=0.0001-epochs=1): search.prune",
        ),
        ({"prune": 1.5}, f"{WHERE}.search.prune is 1.5, but should be less than 1"),
    ],
)
def test_what_is_wrong_with_a_search_is_said_before_anything_is_drawn(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve_all(with_search(**changes), tmp_path)
    assert refused.value.problems[0].startswith(sentence)


def test_a_search_draws_its_trials_itself(tmp_path: Path) -> None:
    params = with_search()
    params["sweeps"]["tune"]["seeds"] = [1, 2]
    with pytest.raises(ConfigError, match="has a search, which draws its trials itself: leave grid, trials and seeds out"):
        resolve_all(params, tmp_path)


def test_numbers_stay_as_they_are_written() -> None:
    one = RangeConfig.model_validate({"low": 1, "high": 2.5})
    assert (type(one.low), type(one.high)) == (int, float)
    assert SweepConfig.model_validate(with_search()["sweeps"]["tune"]).search is not None


# ---- what is trained


def begin(project: Path, *rows: dict[str, Any]) -> None:
    decisions.append(opened(project).path, rows)


def test_a_trial_below_its_floor_ends_at_a_checkpoint_and_the_log_says_so(project: Path) -> None:
    values = {RATE: 0.01, EPOCHS: 1}
    begin(
        project,
        {"trial": "000-a", "values": values, "floors": {"40": 1.0e9}},
        {"trial": "001-b", "values": values, "floors": {"40": -1.0e9}},
    )
    assert run_trial(project, "tune/000-a", Interruption()) == 0
    assert steps_in(project / "checkpoints/tune/000-a", "manifest.json") == [40]
    assert log_of(project).trials["000-a"]["until"] == 40 and log_of(project).trials["000-a"]["pruned"] is True
    assert json.loads((project / "metrics/tune/000-a/evaluation.json").read_text(encoding="utf-8"))["step"] == 40
    lines = log_of(project).path.read_bytes()
    assert run_trial(project, "tune/000-a", Interruption()) == 0
    assert log_of(project).path.read_bytes() == lines, "nothing is decided twice"

    assert train(project, "tune/001-b", Interruption()) == 0
    assert steps_in(project / "checkpoints/tune/001-b", "manifest.json") == [40, 80]
    pruned, whole = (open_checkpoint(project / "checkpoints/tune" / one / step_name(40)) for one in ("000-a", "001-b"))
    assert pruned.fingerprint == whole.fingerprint

    search.decide(project, "tune", lambda trial: trial == "tune/000-a")
    told = log_of(project).trials["000-a"]
    assert told["curve"] == {"40": pytest.approx(told["value"], abs=1e-4)}
    found = {run.segment: run for run in tracking.list_runs()}
    assert (found["tune/000-a"].state, found["tune/000-a"].until, found["tune/000-a"].step) == ("FINISHED", 40, 40)
    described = {str(run.segment): run for run in Catalog(project).lineage.runs.values() if run.is_current}
    assert (described["tune/000-a"].step, described["tune/000-a"].until, described["tune/001-b"].until) == (40, 40, 80)
    assert runs.client(runs.configured_uri()).get_run(str(found["tune/000-a"].run_id)).data.tags["mlflow.parentRunId"]


def test_a_trial_that_diverges_is_an_answer_and_the_search_goes_on(project: Path) -> None:
    write(project, with_search(space={**SPACE, RATE: {"low": 1.0e-4, "high": 1.0e31, "log": True}}))
    begin(project, {"trial": "000-a", "values": {RATE: 1.0e30, EPOCHS: 1}, "floors": {}})
    assert run_trial(project, "tune/000-a", Interruption()) == 1
    assert log_of(project).trials["000-a"]["diverged"] is True
    assert "tune/000-a" not in resolve_all(read_params(project / "params.yaml"), project)
    search.decide(project, "tune", lambda _: False)
    assert len(log_of(project).trials) == 2


# ---- the stage, under DVC


def test_a_search_killed_amid_a_trial_ends_as_one_that_was_not(
    tmp_path: Path, store_template: Path, wait_until: Callable[..., None]
) -> None:
    killed = Project.create(tmp_path / "killed", with_search(trials=2), store_template)
    running = killed.start("dvc", "repro", "sweep@tune")
    work = killed.path / ".matwm/work"
    wait_until(lambda: any(work.glob(f"tune~001-*/checkpoints/{step_name(40)}/manifest.json")), 900)
    running.send_signal(signal.SIGKILL)  # DVC alone: everything below it follows
    running.wait()
    killed.matwm("sweep", "run", "tune")
    said = killed.matwm("sweep", "status", "tune")
    assert "2 trials: 2 FINISHED" in said and "search tune: 2 of 2 trials drawn" in said
    assert "up to date" in killed.dvc("status", "sweep@tune")

    other = Project.create(tmp_path / "undisturbed", with_search(trials=2), store_template)
    other.matwm("sweep", "run", "tune")
    logs = [(one.path / "metrics/tune/trials.jsonl").read_text(encoding="utf-8") for one in (killed, other)]
    assert logs[0] == logs[1]
    trials = [json.loads(line)["trial"] for line in logs[0].splitlines()[1::2]]
    assert len(trials) == 2
    for trial in trials:
        assert killed.fingerprint_at(80, f"tune/{trial}") == other.fingerprint_at(80, f"tune/{trial}")
    killed.matwm("continue", f"tune/{trials[0]}@40", "--until", "60")
    killed.commit("two trials")
    fresh = killed.clone(tmp_path / "clone", store_template)
    assert f"tune/{trials[1]}" in fresh.matwm("validate", "--json")
