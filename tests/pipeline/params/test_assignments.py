"""`--set KEY=VALUE`: which words name a value, what they put into an override, and the sentence for each that does not."""

from typing import Any

import pytest

from matwm.params_yaml import parse_config
from pipeline.params.assignments import override_of, value_at
from tests.pipeline.projects import tiny_params

PARENT = parse_config(tiny_params())
REGIMES = PARENT.resolved()["actor_critic"]["imagination"]["regimes"]


@pytest.mark.parametrize(
    ("words", "override"),
    [
        (["seed=4"], {"seed": 4}),
        ([" seed = 4 "], {"seed": 4}),
        (["actor_critic.learning_rate=1.0e-4", "actor_critic.lambda=0.5"], {"actor_critic": {"learning_rate": 1e-4, "lambda": 0.5}}),
        (["actor_critic.learning_rate=2e-05"], {"actor_critic": {"learning_rate": 2e-5}}),
        (["tracking.experiment='1e3'"], {"tracking": {"experiment": "1e3"}}),
        (["evaluation.gif=true", "evaluation.modes=[greedy]"], {"evaluation": {"gif": True, "modes": ["greedy"]}}),
        (["actor_critic.adam_betas.1=0.99"], {"actor_critic": {"adam_betas": [0.9, 0.99]}}),
        (
            ["actor_critic.imagination.regimes.0.horizon=3", "actor_critic.imagination.regimes.0.starts=9"],
            {"actor_critic": {"imagination": {"regimes": [{**REGIMES[0], "horizon": 3, "starts": 9}]}}},
        ),
        (["env.options.max_cycles=13"], {"env": {"options": {**PARENT.env.options, "max_cycles": 13}}}),
        (["tracking.experiment=a=b"], {"tracking": {"experiment": "a=b"}}),
        (["env.options.num_agent_neighbors=null"], {"env": {"options": PARENT.env.options}}),
        ([], {}),
    ],
)
def test_a_word_puts_one_value_in_its_place(words: list[str], override: dict[str, Any]) -> None:
    found, named, problems = override_of(words, PARENT)
    assert (found, problems) == (override, [])
    assert named == [word.partition("=")[0].strip() for word in words]


def test_the_parent_stays_as_it_is() -> None:
    before = PARENT.resolved()
    override_of(["actor_critic.imagination.regimes.0.horizon=3", "env.options.max_cycles=13", "seed=9"], PARENT)
    assert PARENT.resolved() == before


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("seed", "seed: expected KEY=VALUE, for example actor_critic.learning_rate=1.0e-4"),
        ("=3", "=3: expected KEY=VALUE, for example actor_critic.learning_rate=1.0e-4"),
        ("", ": expected KEY=VALUE, for example actor_critic.learning_rate=1.0e-4"),
        ("seed=", "seed= has no value: write one behind the =, or null where that is meant"),
        ("seed=  ", "seed= has no value: write one behind the =, or null where that is meant"),
        ("seed=[", "seed is '[', which is not valid YAML (expected the node content, but found '<stream end>'): put quotes around a text"),
        ("seed={a: 1, a: 2}", "seed is '{a: 1, a: 2}', which is not valid YAML (key 'a' stands twice): put quotes around a text"),
        ("seed=&a [*a]", "seed is '&a [*a]': write the value itself, without a reference"),
        ("seed=2026-13-45", "seed is '2026-13-45', which is not valid YAML (month must be in 1..12): put quotes around a text"),
        ("seed=010", "seed is 010, which is 8 to some readers of YAML and 10 to others: put it in quotes, or write 8 or 10"),
        (
            "actor_critic.learning_rate=3e-5",
            "actor_critic.learning_rate is 3e-5, which is the text '3e-5' to some readers of",
        ),
        ("seed.x=3", "seed.x: seed is a value (0) and has no parts"),
        ("actor_critic.lerning_rate=1", "actor_critic.lerning_rate is unknown, did you mean actor_critic.learning_rate?"),
        ("learning_rate=1", "learning_rate is unknown, did you mean world_model.learning_rate or actor_critic.learning_rate?"),
        ("actor_critic.capacity=1", "actor_critic.capacity is unknown, did you mean replay.capacity?"),
        ("actor_critic.lambda_=1", "actor_critic.lambda_ is unknown, did you mean actor_critic.lambda?"),
        ("env.options.max_cycle=3", "env.options.max_cycle is unknown, did you mean env.options.max_cycles?"),
        ("x.y=3", "x.y is unknown (known: seed, env, world_model, "),
        ("world_model.bins=3", "world_model.bins is a section: set its values one by one, such as world_model.bins.count"),
        ("actor_critic.imagination.regimes.0={}", "actor_critic.imagination.regimes.0 is a section: set its values one by one, such as "),
        ("actor_critic.adam_betas.2=0", "actor_critic.adam_betas.2: actor_critic.adam_betas has the entries 0 to 1, and no '2'"),
        ("actor_critic.adam_betas.-1=0", "actor_critic.adam_betas.-1: actor_critic.adam_betas has the entries 0 to 1, and no '-1'"),
        (
            f"actor_critic.adam_betas.{'1' * 5000}=0",
            f"actor_critic.adam_betas.{'1' * 5000}: actor_critic.adam_betas has the entries 0 to 1",
        ),
        (f"seed={'[' * 2000}{']' * 2000}", "seed is '[[["),
        (f"seed={'9' * 5000}", "seed is '999"),
        ("tracking.experiment=\udcff", "tracking.experiment is '\\udcff', which is not valid YAML"),
        ("until=5", "until: that is no parameter but the segment's own, which --until says"),
        ("segments.s00.until=5", "segments.s00.until is unknown: a branch changes parameters; segments are appended, not changed"),
    ],
)
def test_a_word_that_names_no_value_gets_one_sentence(word: str, sentence: str) -> None:
    override, named, (problem,) = override_of([word], PARENT)
    assert (override, named) == ({}, [])
    assert problem.startswith(f"--set {sentence}")
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["seed=1", "seed=1"], "--set seed is given twice: once is enough"),
        (["seed=-1", "seed=9"], "--set seed is given twice: once is enough"),
        (
            ["actor_critic.adam_betas=[0.9, 0.99]", "actor_critic.adam_betas.0=0.8"],
            "--set actor_critic.adam_betas.0 and actor_critic.adam_betas overlap: give one",
        ),
    ],
)
def test_a_value_is_given_once(words: list[str], sentence: str) -> None:
    override, _, problems = override_of(words, PARENT)
    assert (override, problems) == ({}, [sentence]), "and none of the values is judged"


def test_every_wrong_word_is_told_and_the_right_ones_are_kept() -> None:
    override, named, problems = override_of(["sed=1", "seed=5", "replay=1"], PARENT)
    assert (override, named, len(problems)) == ({"seed": 5}, ["seed"], 2)


def test_values_are_found_by_their_paths() -> None:
    data = PARENT.resolved()
    assert value_at(data, "actor_critic.imagination.regimes.0.horizon") == 2
    assert value_at(data, "replay.capacity") == 500
