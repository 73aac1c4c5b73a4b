"""What environments cost is measured on the same episodes, and the documentation shows what was measured."""

import dataclasses
import importlib
import itertools
import re

import pytest

from benchmarks.learning import REPOSITORY
from matwm import scenarios
from matwm.config import EnvConfig
from matwm.envs import is_installed, make_env

LIMIT = 0.25
"""An adapter of these families may be so much slower than the environment that it adapts."""
LIMITED = ("mpe", "smax", "butterfly")


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    return importlib.import_module("environments"), importlib.import_module("env_speed")


def committed(environments):
    return environments.results()


def test_the_page_shows_the_committed_figures(scripts):
    environments, _ = scripts
    shown = environments.PAGE.read_text(encoding="utf-8").partition(environments.BEGIN)[2].partition(environments.END)[0]
    assert shown.strip() == environments.section(committed(environments)).strip(), "run `benchmarks/environments.py --report`"


def test_every_case_was_measured_and_no_adapter_is_too_slow(scripts):
    environments, _ = scripts
    found = committed(environments)
    kept = {field.name for field in dataclasses.fields(environments.Case)}
    assert [{key: one[key] for key in kept} for one in found] == [dataclasses.asdict(case) for case in environments.CASES]
    assert {one["family"] for one in found} == set(scenarios.FAMILIES) - {"smac"}  # which needs the game
    assert {(one["family"], one["name"]): one["slower"][1] for one in found if one["family"] in LIMITED and one["slower"][1] > LIMIT} == {}


def test_what_is_said_of_environments_is_so(scripts):
    environments, _ = scripts
    for one in committed(environments):
        assert one["resume"] == scenarios.family(one["family"]).resume
        if is_installed(one["family"]):
            spec = make_env(EnvConfig(family=one["family"], name=one["name"], options=one["options"])).spec
            assert environments.facts(spec) == {key: one[key] for key in ("agents", "observation", "resume")}


def test_the_tests_of_resuming_that_are_named_are_there(scripts):
    environments, _ = scripts
    assert set(environments.TESTS) == {known.resume for known in scenarios.families().values()}
    for name in itertools.chain.from_iterable(environments.TESTS.values()):
        file, _, function = name.partition("::")
        assert re.search(rf"^def {function}\(", (REPOSITORY / file).read_text(encoding="utf-8"), re.MULTILINE), name


@pytest.mark.parametrize(
    ("family", "name", "options"),
    [
        ("mpe", "simple_tag_v3", {}),
        ("butterfly", "cooperative_pong_v6", {}),
        ("butterfly", "pistonball_v6", {"n_pistons": 5}),
        ("smax", "3m", {}),
        ("pettingzoo", "mpe2.simple_spread_v3:parallel_env", {}),
    ],
)
def test_both_play_the_same_episodes(scripts, family, name, options):
    if not is_installed(family):
        pytest.skip(scenarios.family(family).install)
    _, speed = scripts
    env = EnvConfig(family=family, name=name, options=options)
    episodes = speed.recorded(env, 0.3)
    ours, theirs = speed.adapter(env), speed.bare(env)
    for seed, actions in episodes[:3]:
        assert ours(seed, actions) == pytest.approx(theirs(seed, actions), rel=1e-5, abs=1e-5)


def test_a_case_is_measured_on_real_checkpoints(scripts):
    environments, _ = scripts
    case = environments.Case("mpe", "simple_tag_v3", "ci-tiny")
    found = environments.measure(case, seconds=0.05, pairs=3, steps=100)
    # 104 rows of 4 agents: 16 numbers, 5 flags, an action, a reward, two more flags; and two flags of everybody's.
    row = 4 * (16 * 4 + 5 + 2 + 4 + 2) + 2
    assert found["replay"] == pytest.approx(104 * row, rel=0.1)
    assert found["replay"] < found["checkpoint"] < 1.5 * found["replay"] < found["once"]
    assert found["bare"] > 0 < found["adapter"] and found["slower"] == sorted(found["slower"])
