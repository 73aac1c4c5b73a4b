import ast
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from matwm import config as module
from matwm.config import (
    ActorCriticConfig,
    Config,
    ConfigError,
    EnvConfig,
    EvaluationConfig,
    ImaginationConfig,
    PopulationConfig,
    RangeConfig,
    RunConfig,
    ScheduleConfig,
    SearchConfig,
    Section,
    SegmentConfig,
    SweepConfig,
    TrackingConfig,
    WorldModelConfig,
    leaves,
    merge,
)
from matwm.params_yaml import PRESETS, load_config, parse_config, parse_segments, preset_path, preset_text, read_params
from matwm.stateful import fingerprint
from matwm.trainer import Trainer
from tests.matwm.tiny import make_trainer, run, tiny_config, tiny_data
from tests.matwm.toy_envs import CounterEnv

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in PRESETS.glob("*.yaml"))


def sections() -> list[type[Section]]:
    return [item for item in vars(module).values() if isinstance(item, type) and issubclass(item, Section) and item is not Section]


def all_fields() -> Iterator[tuple[type[Section], str, Any]]:
    for section in sections():
        for name, info in section.model_fields.items():
            yield section, name, info


def holds_section(info: Any) -> bool:
    return isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)


def put(data: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    data = copy.deepcopy(data)
    *above, name = path.split(".")
    node = data
    for key in above:
        node = node[key]
    node[name] = value
    return data


def problems_of(path: str, value: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(put(tiny_data(), path, value))
    return caught.value.problems


# ---- the schema


YOUNGER = {
    *((RunConfig, name) for name in ("precision", "cuda_graphs")),
    *((WorldModelConfig, name) for name in ("latent_code", "reward_input", "reward_reads", "dynamics_reads", "reward_learning_rate")),
    *((ActorCriticConfig, name) for name in ("action_factors", "epochs", "ratio_clip", "return_debias", "critic_reads", "team_reward")),
    *((ImaginationConfig, name) for name in ("mates", "opponents_predicted")),
    (ScheduleConfig, "agents_from"),
    (EnvConfig, "seconds_per_call"),
    (EvaluationConfig, "objective"),
    (TrackingConfig, "notify"),
}


LINEAGE = (SegmentConfig, SweepConfig, SearchConfig, RangeConfig, PopulationConfig)


def test_every_field_is_required_and_has_a_meaning_and_both_marks():
    """No default: a value that is not in params.yaml would hide in code. What came after the first checkpoints has one."""
    for section, name, info in all_fields():
        where = f"{section.__name__}.{name}"
        if section in LINEAGE and name not in ("from_", "until"):
            continue  # nothing is changed unless something is written there
        assert info.is_required() != ((section, name) in YOUNGER), where
        if holds_section(info):
            continue
        assert info.description, where
        marks = info.json_schema_extra
        assert marks["branch"] in ("free", "adapt", "fixed"), where
        assert isinstance(marks["shapes"], bool), where


def read_names() -> set[str]:
    """Every name that code outside the schema reads: as an attribute, or as a text (loss weights go by their names)."""
    names = set()
    for path in [*(ROOT / "matwm").rglob("*.py"), *(ROOT / "pipeline").rglob("*.py")]:
        if path.name == "config.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                names.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.add(node.value)
    return names


READ_IN_CONFIG = {
    ("Regime", "max_agents"): "ImaginationConfig.regime picks a regime by it",
    ("ScheduleConfig", "batch_is_total"): "ScheduleConfig.per_agent shares batches out by it",
    ("ScheduleConfig", "agents_from"): "ScheduleConfig.random_steps is the later of it and warmup_steps",
}


def test_every_field_is_read_by_something():
    names = read_names()
    unread = {(s.__name__, name) for s, name, info in all_fields() if not {name, info.alias} & names}
    assert unread == set(READ_IN_CONFIG)


MOVES: dict[str, Any] = {
    "seed": 4,
    "env.name": "simple_world_comm_v3",
    "env.options": {"max_cycles": 5},
    "env.seconds_per_call": 5.0,
    "world_model.latents": 5,
    "world_model.classes": 5,
    "world_model.latent_code": "ordinal",
    "world_model.unimix": 0.02,
    "world_model.latent_gradient": "reinmax",
    "world_model.hidden_size": 20,
    "world_model.layers": 1,
    "world_model.heads": 4,
    "world_model.feedforward_multiple": 3,
    "world_model.max_positions": 33,
    "world_model.dropout": 0.0,
    "world_model.encoder_layers": 2,
    "world_model.reward_input": "arrival",
    "world_model.reward_reads": "joint",
    "world_model.dynamics_reads": "joint",
    "world_model.encoder_width": 17,
    "world_model.head_layers": 2,
    "world_model.head_width": 17,
    "world_model.dynamics_layers": 0,
    "world_model.agent_identity": False,
    "world_model.action_words": "shared",
    "world_model.bins.count": 23,
    "world_model.bins.bound": 5.0,
    "world_model.teammates.enabled": False,
    "world_model.teammates.hidden_size": 10,
    "world_model.teammates.layers": 2,
    "world_model.teammates.heads": 4,
    "world_model.loss_weights.reconstruction": 0.5,
    "world_model.loss_weights.reward": 0.5,
    "world_model.loss_weights.continuation": 0.5,
    "world_model.loss_weights.teammates": 0.5,
    "world_model.loss_weights.action_mask": 1.0,
    "world_model.loss_weights.dynamics": 1.0,
    "world_model.loss_weights.representation": 1.0,
    "world_model.free_nats": 1.0,
    "world_model.windows": 9,
    "world_model.window_length": 7,
    "world_model.learning_rate": 2e-3,
    "world_model.autoencoder_learning_rate": 2e-3,
    "world_model.reward_learning_rate": 2e-3,
    "world_model.adam_betas": [0.5, 0.9],
    "world_model.adam_epsilon": 1e-3,
    "world_model.clip_norm": 1e-2,
    "actor_critic.layers": 2,
    "actor_critic.width": 17,
    "actor_critic.bins.count": 23,
    "actor_critic.bins.bound": 5.0,
    "actor_critic.action_factors": [10, 5],
    "actor_critic.actor_unimix": 0.1,
    "actor_critic.discount": 0.9,
    "actor_critic.lambda": 0.5,
    "actor_critic.entropy": 0.1,
    "actor_critic.return_low": 10.0,
    "actor_critic.return_high": 90.0,
    "actor_critic.return_decay": 0.9,
    "actor_critic.return_scale_min": 50.0,
    "actor_critic.slow_decay": 0.9,
    "actor_critic.slow_weight": 0.5,
    "actor_critic.learning_rate": 2e-3,
    "actor_critic.adam_betas": [0.5, 0.9],
    "actor_critic.adam_epsilon": 1e-3,
    "actor_critic.clip_norm": 1e-3,
    "actor_critic.epochs": 2,
    "actor_critic.ratio_clip": 0.3,
    "actor_critic.return_debias": True,
    "actor_critic.critic_reads": "joint",
    "actor_critic.team_reward": "role",
    "actor_critic.imagination.context_length": 2,
    "actor_critic.imagination.start_state": "prior",
    "actor_critic.imagination.mates": "imagined",
    "actor_critic.imagination.opponents_predicted": 1.0,
    "actor_critic.imagination.regimes": [{"max_agents": None, "starts": 8, "horizon": 4}],
    "replay.capacity": 20,
    "replay.recency_decay": 1.0,
    "replay.chunk_rows": 17,
    "schedule.warmup_steps": 13,
    "schedule.world_model_every": 2,
    "schedule.agents_every": 3,
    "schedule.agents_from": 15,
    "schedule.batch_is_total": False,
    "schedule.acting_context": 1,
    "run.precision": "bfloat16",
    "run.metrics_interval": 4,
    "run.save_interval": 7,
    "retention.keep_last": 1,
    "retention.keep_every": 7,
    "retention.keep_best": 1,
    "evaluation.episodes": 3,
    "evaluation.seed": 101,
    "evaluation.modes": ["greedy"],
    "evaluation.interval": 3,
    "evaluation.gif": True,
    "evaluation.objective": "min self_play/agent",
    "tracking.experiment": "other",
    "tracking.upload_seconds": 1.0,
    "tracking.progress_seconds": 1.0,
    "tracking.push": True,
    "tracking.notify": "true",
}
NOT_MOVED = {
    "env.family": "there is one",
    "run.device": "needs another machine; the same method trains there",
    "run.threads": "may change sums in the last bit, or not",
    "run.cuda_graphs": "needs run.device: cuda",
}
TOGETHER = {"actor_critic.imagination.mates": "imagined"}
NEEDS: dict[str, dict[str, Any]] = {
    "world_model.reward_reads": {**TOGETHER, "world_model.reward_input": "arrival"},
    "world_model.dynamics_reads": TOGETHER,
    "actor_critic.critic_reads": TOGETHER,
    "actor_critic.team_reward": TOGETHER,
    "actor_critic.imagination.opponents_predicted": {**TOGETHER, "env.name": "simple_tag_v3"},
    "actor_critic.ratio_clip": {"actor_critic.epochs": 3},
    "actor_critic.action_factors": {"env.name": "simple_reference_v3"},
}
"""What a value has its say beside."""
BASE = {"env.name": "simple_spread_v3", "world_model.free_nats": 0.0, "actor_critic.return_scale_min": 1e-4}
"""Every step has a reward; of untrained tiny networks every KL lies below the free nats, and every return below the smallest scale."""


@pytest.fixture(scope="module")
def unmoved():
    return {"mpe": outcome({}), "counter": outcome({}, CounterEnv)}


def outcome(changes: dict[str, Any], make_env: Any = None) -> str:
    config = tiny_config({**BASE, **changes})
    trainer: Trainer = make_trainer(make_env, None if make_env else config)
    if make_env:  # the toy's own team size, with the same values
        data = merge(trainer.config.resolved(), {"world_model": config.world_model.model_dump(mode="json")})
        trainer = make_trainer(make_env, parse_config(data))
    parts = run(trainer, 18).parts()
    return fingerprint(parts)


def test_the_moves_below_are_of_all_fields():
    paths = {path for path, _, _ in leaves(tiny_config())}
    assert paths == MOVES.keys() | NOT_MOVED.keys()


@pytest.mark.parametrize("path", MOVES)
def test_training_changes_with_exactly_the_values_that_are_marked_as_shaping_it(path, unmoved):
    shapes = {name: marks["shapes"] for name, _, marks in leaves(tiny_config())}[path]
    kind, make_env = ("counter", CounterEnv) if path.endswith("action_mask") else ("mpe", None)
    needs = NEEDS.get(path, {})
    before = outcome(needs) if needs else unmoved[kind]
    assert (outcome({**needs, path: MOVES[path]}, make_env) != before) == shapes


def test_shaping_holds_the_marked_values_under_their_names():
    shaping = tiny_config().shaping()
    assert shaping["actor_critic"]["lambda"] == 0.95
    assert shaping["env"]["options"]["max_cycles"] == 6
    assert "save_interval" not in shaping["run"]
    assert "evaluation" not in shaping
    assert parse_config(merge(tiny_config().resolved(), shaping)) == tiny_config()


# ---- presets


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_complete_and_takes_nothing_for_granted(name):
    data = read_params(preset_path(name))
    config = load_config(preset_path(name))
    resolved = config.resolved()
    assert data.keys() - {"segments", "sweeps"} == resolved.keys()
    options = data["env"].pop("options")
    assert options == {key: value for key, value in resolved["env"].pop("options").items() if key in options}
    assert {key: data[key] for key in resolved} == resolved
    assert list(parse_segments(data)) == ["s00"]


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_that_builds_on_another_says_what_differs_and_its_text_what_they_say_together(name):
    own = yaml.safe_load(preset_path(name).read_text(encoding="utf-8"))
    text = preset_text(name)
    below = read_params(preset_path(own.pop("base"))) if "base" in own else {}
    assert yaml.safe_load(text) == read_params(preset_path(name)) == merge(below, own)
    with pytest.raises(ConfigError, match="base is unknown"):
        parse_config({**read_params(preset_path(name)), "base": "cpu-small"})


@pytest.mark.parametrize(
    ("name", "scenario", "until", "save_interval"),
    [
        ("cpu-small", "simple_spread_v3", 10_000, 5_000),
        ("simple-tag", "simple_tag_v3", 50_000, 5_000),
        ("simple-reference", "simple_reference_v3", 50_000, 5_000),
        ("large-batch", "simple_spread_v3", 50_000, 5_000),
        ("paper", "simple_tag_v3", 50_000, 5_000),
        ("smax-easy", "3m", 50_000, 5_000),
        ("smax-easy-paper", "3m", 50_000, 5_000),
        ("smax-hard", "5m_vs_6m", 200_000, 10_000),
        ("smax-hard-paper", "5m_vs_6m", 200_000, 10_000),
        ("image-small", "pistonball_v6", 50_000, 5_000),
        ("image-paper", "cooperative_pong_v6", 50_000, 5_000),
    ],
)
def test_presets_train_as_long_and_save_as_often_as_they_are_to(name, scenario, until, save_interval):
    data, config = read_params(preset_path(name)), load_config(preset_path(name))
    found = config.env.name, parse_segments(data)["s00"].until, config.run.save_interval
    assert found == (scenario, until, save_interval)


def test_ordinal_latents_need_a_share_of_uniform():
    data = put(put(tiny_data(), "world_model.latent_code", "ordinal"), "world_model.unimix", 0.0)
    with pytest.raises(ConfigError, match=r"^params\.yaml: world_model\.unimix is 0, but classes of ordinal latents .*: use 0\.001$"):
        parse_config(data)
    assert parse_config(put(tiny_data(), "world_model.unimix", 0.0)).world_model.unimix == 0.0


def test_leaving_any_value_out_is_refused_by_its_name():
    for path, _, _ in leaves(tiny_config()):
        *above, name = path.split(".")
        if path == "env.options" or name in {young for _, young in YOUNGER}:
            continue
        data = tiny_data()
        node = data
        for key in above:
            node = node[key]
        del node[name]
        with pytest.raises(ConfigError) as caught:
            parse_config(data)
        assert caught.value.problems[0] == f"params.yaml: {path} is missing"


def test_the_paper_preset_has_the_values_of_table_c6():
    config = load_config(preset_path("paper"))
    wm, ac, imagination = config.world_model, config.actor_critic, config.actor_critic.imagination
    assert (wm.latents, wm.classes, wm.unimix) == (32, 32, 0.01)
    assert (wm.hidden_size, wm.layers, wm.heads, wm.dropout, wm.max_positions) == (512, 2, 8, 0.1, 64)
    assert (wm.encoder_layers, wm.encoder_width) == (3, 512)
    assert (wm.windows, wm.window_length, imagination.context_length) == (16, 64, 8)
    assert (wm.learning_rate, wm.clip_norm, ac.learning_rate, ac.clip_norm) == (3e-5, 1000.0, 3e-4, 100.0)
    assert (wm.loss_weights.action_mask, wm.loss_weights.dynamics, wm.loss_weights.representation) == (0.5, 0.5, 0.1)
    assert wm.action_words == "scaled"
    assert not wm.agent_identity
    assert [(r.max_agents, r.starts, r.horizon) for r in imagination.regimes] == [(3, 512, 16), (6, 768, 12), (None, 1024, 8)]
    assert (config.replay.capacity, config.replay.recency_decay) == (50000, 0.9998)
    schedule = config.schedule
    assert (schedule.warmup_steps, schedule.world_model_every, schedule.agents_every) == (1000, 1, 1)
    assert schedule.batch_is_total
    assert (ac.discount, ac.lambda_, ac.entropy, ac.slow_decay, ac.return_decay) == (0.985, 0.95, 3e-4, 0.98, 0.99)
    assert config.evaluation.episodes == 50


@pytest.mark.parametrize(("agents", "expected"), [(1, (512, 16)), (3, (512, 16)), (4, (768, 12)), (6, (768, 12)), (7, (1024, 8))])
def test_batch_and_horizon_follow_the_number_of_agents(agents, expected):
    regime = load_config(preset_path("paper")).actor_critic.imagination.regime(agents)
    assert (regime.starts, regime.horizon) == expected


def test_an_unknown_preset_gets_the_nearest():
    with pytest.raises(ConfigError, match=r"there is no preset 'cpu-smal', did you mean cpu-small\?$"):
        preset_path("cpu-smal")
    with pytest.raises(ConfigError, match=r"there is no preset 'zzz' \(known: ci-tiny, cpu-small, image-paper, "):
        preset_path("zzz")


# ---- refusals


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("world_model.learning_rat", 1.0, "world_model.learning_rat is unknown, did you mean learning_rate?"),
        ("worldmodel", {}, "worldmodel is unknown, did you mean world_model?"),
        ("actor_critic.lambda_", 0.9, "actor_critic.lambda_ is unknown, did you mean lambda?"),
        (
            "world_model.learning_rate",
            "3e-5",
            "world_model.learning_rate is the text '3e-5', not a number: write 3.0e-05 (YAML reads 3e-5 as text, 3.0e-5 as a number)",
        ),
        ("world_model.learning_rate", -1.0, "world_model.learning_rate is -1.0, but should be greater than 0"),
        ("world_model.learning_rate", float("inf"), "world_model.learning_rate is inf, but should be a finite number"),
        (
            "world_model.learning_rate",
            "1.25e-5",
            "world_model.learning_rate is the text '1.25e-5', not a number: write 1.25e-05 (YAML",
        ),
        ("world_model.adam_betas", [0.9], "world_model.adam_betas is [0.9], which has 1 entries, but should have 2"),
        ("world_model.windows", 2.5, "world_model.windows is 2.5, but should be a valid integer"),
        ("world_model.windows", "1e4", "world_model.windows is the text '1e4', not a whole number: write 10000"),
        ("world_model.windows", "nan", "world_model.windows is 'nan', but should be a valid integer"),
        ("world_model.windows", True, "world_model.windows is True, but should be a valid integer"),
        ("world_model.dropout", 1.0, "world_model.dropout is 1.0, but should be less than 1"),
        ("world_model.bins.count", 40, "world_model.bins: count is 40: use an odd number, so that zero is a bin"),
        ("world_model.heads", 3, "world_model.hidden_size is 16, which world_model.heads = 3 does not divide"),
        ("world_model.teammates.heads", 3, "world_model.teammates.hidden_size is 8, which world_model.teammates.heads = 3 does not divide"),
        ("schedule.acting_context", 33, "schedule.acting_context is 33, more than world_model.max_positions = 32"),
        (
            "actor_critic.imagination.context_length",
            30,
            "actor_critic.imagination: context_length + horizon is 33, more than world_model.max_positions = 32",
        ),
        (
            "actor_critic.imagination.regimes",
            [{"max_agents": None, "starts": 1, "horizon": 0}],
            "actor_critic.imagination.regimes.0.horizon is 0, but should be greater than or equal to 1",
        ),
        (
            "actor_critic.imagination.regimes",
            [{"max_agents": 3, "starts": 1, "horizon": 2}],
            "actor_critic.imagination: regimes have max_agents [3]: use ascending numbers and null for the last",
        ),
        ("actor_critic.return_low", 95.0, "actor_critic: return_low is 95.0, return_high 95.0: the first must be smaller"),
        ("schedule.warmup_steps", 7, "schedule.warmup_steps is 7, less than world_model.window_length = 8: the first update would"),
        ("evaluation.modes", [], "evaluation.modes is [], but should not be empty"),
        ("evaluation.modes", ["greedy", "greedy"], "evaluation: modes are ['greedy', 'greedy']: name each once"),
        ("evaluation.seed", 2**31 - 1, "evaluation: seed is 2147483647, episodes "),
        ("run.threads", 100_000, "run.threads is 100000, but should be less than or equal to 1024"),
        ("run.device", "gpu", "run.device is 'gpu', but should be 'cpu' or 'cuda'"),
        ("world_model", 3, "world_model is 3: expected a section with keys"),
        ("env.name", "simple_tagg_v3", "env.name 'simple_tagg_v3' is unknown, did you mean simple_tag_v3? known: collect_treasure_v1, "),
        ("env.options", {"num_goood": 1}, "env.options.num_goood is unknown, did you mean num_good?"),
        (
            "env.options",
            {"continuous_actions": True},
            "env.options.continuous_actions is True, but MATWM has discrete actions only: remove",
        ),
        ("env.options", {"max_cycles": 0}, "env.options.max_cycles is 0, expected a whole number of at least 1"),
        ("env.options", {"max_cycles": 2**31}, "env.options.max_cycles is 2147483648, expected a whole number of at most 2147483647"),
        ("run.cuda_graphs", True, "run: cuda_graphs is true, but device is cpu: set device to cuda, or cuda_graphs to false"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_with_its_path(path, value, sentence):
    (problem,) = problems_of(path, value)
    assert problem.startswith(f"params.yaml: {sentence}")


def test_a_misspelt_key_is_one_problem_and_not_a_missing_one_too():
    data = tiny_data()
    data["world_model"]["bins"]["cuont"] = data["world_model"]["bins"].pop("count")
    data["segment"] = {}
    with pytest.raises(ConfigError) as caught:
        parse_config(data)
    assert caught.value.problems == [
        "params.yaml: world_model.bins.cuont is unknown, did you mean count?",
        "params.yaml: segment is unknown, did you mean segments?",
    ]


def test_a_window_longer_than_the_table_of_positions_is_refused():
    data = put(tiny_data({"schedule.warmup_steps": 50}), "world_model.window_length", 33)
    with pytest.raises(ConfigError) as caught:
        parse_config(data)
    assert caught.value.problems == ["params.yaml: world_model.window_length is 33, more than world_model.max_positions = 32"]


def test_more_windows_than_the_replay_can_hold_are_refused():
    (problem,) = problems_of("replay.capacity", 7)
    assert "world_model.windows = 4 of world_model.window_length = 8 rows need 8 rows an agent" in problem
    assert "more than replay.capacity = 7 can hold" in problem


def test_every_problem_is_told_at_once():
    data = put(put(tiny_data(), "world_model.windows", "many"), "seed", -1)
    with pytest.raises(ConfigError) as caught:
        parse_config(data, source="p.yaml")
    assert [problem.split(" is ")[0] for problem in caught.value.problems] == ["p.yaml: seed", "p.yaml: world_model.windows"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("seed: 1\nenv: {}\nseed: 2\n", "key 'seed' stands twice"),
        ("env: {name: a, name: b}\n", "key 'name' stands twice"),
        ("? [seed]\n: 1\n", "a key is a list or a section"),
        ("- 1\n", "holds no sections"),
        ("a: [\n", "is not valid YAML"),
        ("", r'holds no sections \(it is empty\): write a complete one with "matwm preset cpu-small"'),
    ],
)
def test_a_file_that_is_no_mapping_of_unique_keys_is_refused(tmp_path, text, sentence):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=sentence) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match=r'does not exist: write one with "matwm preset cpu-small"'):
        load_config(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("segments", "sentence"),
    [
        (None, "segments is missing or empty"),
        ({"a b": {"from": "x", "until": 1}}, "segments.a b: a segment's name is made of"),
        ({"--force": {"from": "x", "until": 1}}, "segments.--force: a segment's name is made of"),
        ({"s" * 65: {"from": "x", "until": 1}}, f"segments.{'s' * 65}: a segment's name is made of"),
        ({"s00": {"from": "x"}}, "segments.s00.until is missing"),
        ({"s00": {"from": "x", "until": 10**20}}, "segments.s00.until is 100000000000000000000, but should be less than 1000000000"),
        ({"s00": {"form": "x", "from": "y", "until": 5}}, "segments.s00.form is unknown, did you mean from?"),
        ({"s00": {"from": "x", "until": 0}}, "segments.s00.until is 0, but should be greater than or equal to 1"),
        ({"s00": 3}, "segments.s00 is 3: expected a section with keys"),
    ],
)
def test_malformed_segments_are_refused(segments, sentence):
    with pytest.raises(ConfigError) as caught:
        parse_segments({"segments": segments})
    assert caught.value.problems[0].startswith(f"params.yaml: {sentence}")


# ---- values


def test_a_configuration_survives_its_own_plain_data():
    config = tiny_config()
    assert parse_config(yaml.safe_load(yaml.safe_dump(config.resolved()))) == config


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        tiny_config().seed = 4  # type: ignore[misc]


def test_overrides_replace_values_section_by_section_but_options_and_lists_whole():
    base = {"a": {"x": 1, "y": 2}, "env": {"name": "n", "options": {"p": 1, "q": 2}}, "modes": [1, 2]}
    merged = merge(base, {"a": {"y": 3}, "env": {"options": {"p": 5}}, "modes": [3]})
    assert merged == {"a": {"x": 1, "y": 3}, "env": {"name": "n", "options": {"p": 5}}, "modes": [3]}
    assert base["a"]["y"] == 2


def test_every_section_of_the_schema_is_part_of_a_configuration():
    reached, waiting = set(), [Config, SegmentConfig, SweepConfig]
    while waiting:
        section = waiting.pop()
        reached.add(section)
        for info in section.model_fields.values():
            inner = getattr(info.annotation, "__args__", [info.annotation])
            waiting += [item for item in inner if isinstance(item, type) and issubclass(item, Section)]
    assert reached == set(sections())
