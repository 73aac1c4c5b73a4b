"""The program that is exported chooses what policies choose in training and evaluation: in every episode of a batch, at any moment."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from matwm.acting import EpisodeContext, legal_on
from matwm.checkpoint import Checkpoint
from matwm.envs import make_env
from matwm.errors import UserError
from matwm.export import OUTPUTS, export
from matwm.manifest import ROOT
from matwm.policy import Networks, load_networks, load_policies
from matwm.program import ActingProgram, Memory
from matwm.rng import seed_for, seed_torch
from matwm.store import LocalStore
from matwm.trainer import build_trainer
from tests.matwm.tiny import LEVELS, TOGETHER, run, tiny_config
from tests.readme import example

torch.set_num_threads(1)

ARENA = {"env.family": "pettingzoo", "env.name": "tests.matwm.arena:parallel_env"}
"""Unequal roles and masks, and agents that die."""
ALONE = {"enabled": False, "hidden_size": 8, "layers": 1, "heads": 2}
CASES: dict[str, dict[str, Any]] = {
    "one-hots": {**ARENA, "env.options": {"max_cycles": 9}},
    "images": {
        **ARENA,
        **LEVELS,
        "env.options": {"max_cycles": 6, "see": "image"},
        "world_model.agent_identity": False,
        "world_model.teammates": ALONE,
    },
    "no context": {"schedule.acting_context": 1},
}
MEMORY = ("memory_probs", "memory_action", "memory_rows")
EPISODES = 3


@pytest.fixture(scope="module", params=CASES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return made(CASES[request.param], tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[Checkpoint, bytes]]:
    """A function that returns the checkpoint of a case and its file of a format, made once: to export takes seconds."""

    @cache
    def make(name: str, form: str) -> tuple[Checkpoint, bytes]:
        saved = made(CASES[name], tmp_path_factory.mktemp("exported"))
        return saved, export(saved, form)[0]

    return make


Exported = Callable[[str, str], tuple[Checkpoint, bytes]]


def made(changes: dict[str, Any], folder: Path) -> Checkpoint:
    trainer = build_trainer(tiny_config(changes))
    with torch.no_grad():  # policies that are far from uniform and from each other
        trainer.learner.actors.net.output_weight.normal_(std=1.0)
    return trainer.save(LocalStore(folder), ROOT)


class Reference:
    """What `choose_actions` computes for one episode, and the uniform numbers by which it drew latents."""

    def __init__(self, networks: Networks, episode: int) -> None:
        self.networks, self.episode = networks, episode
        self.context = EpisodeContext(range(networks.spec.num_agents), networks.acting_context)
        self.calls = 0

    @torch.no_grad()
    def act(self, obs: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
        networks = self.networks
        self.context.see(obs[None])
        windows = self.context.windows()
        latents, seen = networks.world_model.config.latents, windows.obs.shape[1]
        seed_torch(self.episode, "latents", self.calls)
        drawn = torch.rand(len(windows.agent), seen, latents, 1)
        uniform = torch.full((networks.spec.num_agents, networks.acting_context, latents), 0.5)
        uniform[:, -seen:] = drawn.squeeze(-1)
        seed_torch(self.episode, "latents", self.calls)
        features = networks.world_model.features(networks.world_model.observe(windows, horizon=0), networks.spec.num_agents)
        log_probs = networks.actors.log_probs(features, legal_on(torch.device("cpu"), mask[None]))[:, 0]
        action = log_probs.argmax(-1).numpy()
        self.context.did(action[None])
        self.calls += 1
        return action, log_probs, uniform


class Sitting:
    """Episodes of an environment side by side; one that is over begins anew with another seed, whatever the others do."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self.envs = [make_env(networks.env) for _ in range(EPISODES)]
        self.seeds, self.lengths = list(range(EPISODES)), [0] * EPISODES
        self.ticks = [env.reset(10 + 3 * number) for number, env in enumerate(self.envs)]
        self.first = np.ones(EPISODES, bool)
        self.references = [Reference(networks, number) for number in range(EPISODES)]

    def __enter__(self) -> "Sitting":
        return self

    def __exit__(self, *_: object) -> None:
        for env in self.envs:
            env.close()

    def expected(self) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
        told = [one.act(tick.obs, tick.action_mask) for one, tick in zip(self.references, self.ticks, strict=True)]
        return (
            np.stack([action for action, _, _ in told]),
            torch.stack([probs for _, probs, _ in told]),
            torch.stack([u for _, _, u in told]),
        )

    def step(self, actions: np.ndarray) -> None:
        for number, env in enumerate(self.envs):
            self.ticks[number] = env.step(actions[number])
            self.lengths[number] += 1
            self.first[number] = self.ticks[number].is_over or self.lengths[number] > 3 + number
            if self.first[number]:
                self.lengths[number] = 0
                self.seeds[number] += EPISODES
                self.ticks[number] = env.reset(10 + self.seeds[number])
                self.references[number].context.clear()


def stacked(sitting: Sitting, name: str) -> np.ndarray:
    return np.stack([getattr(tick, name) for tick in sitting.ticks])


def play(networks: Networks, program: Any, steps: int = 24) -> set[str]:
    """Hold a program against the reference for whole episodes; return what happened in them."""
    own, happened = ActingProgram(networks.world_model, networks.actors, range(networks.spec.num_agents), networks.acting_context), set()
    kept = own.inputs(networks.spec, EPISODES)
    with Sitting(networks) as sitting:
        for step in range(steps):
            expected, log_probs, uniform = sitting.expected()
            if step and sitting.first.any() and not sitting.first.all():
                happened.add("a reset amid the batch")
            if not all(tick.alive.all() for tick in sitting.ticks):
                happened.add("a death")
            if int(kept["memory_rows"].max()) == networks.acting_context - 1:
                happened.add("a full context")
            kept |= {
                "observation": torch.from_numpy(stacked(sitting, "obs")),
                "action_mask": torch.from_numpy(stacked(sitting, "action_mask")),
                "is_first": torch.from_numpy(sitting.first.copy()),
                "uniform": uniform,
            }
            found = dict(zip(OUTPUTS, program(kept), strict=True))
            assert np.array_equal(np.asarray(found["action"]), expected)
            np.testing.assert_allclose(np.asarray(found["log_probs"]), log_probs.numpy(), atol=1e-5, rtol=0)
            kept |= {"previous_action": torch.from_numpy(expected)}
            kept |= {name: torch.as_tensor(found[new]) for name, new in zip(MEMORY, OUTPUTS[2:], strict=True)}
            sitting.step(expected)
    return happened


def test_a_program_acts_as_policies_do_in_evaluation(checkpoint: Checkpoint) -> None:
    networks = load_networks(checkpoint)
    own = ActingProgram(networks.world_model, networks.actors, range(networks.spec.num_agents), networks.acting_context)
    happened = play(networks, lambda kept: own(**kept))
    assert happened >= {"a full context", "a reset amid the batch"} | ({"a death"} if checkpoint.spec.has_action_masks else set())


@pytest.mark.parametrize("name", CASES)
def test_with_torch_alone_an_exported_program_does_the_same(name: str, exported: Exported) -> None:
    saved, data = exported(name, "pt2")
    program = torch.export.load(io.BytesIO(data)).module()
    play(load_networks(saved), lambda kept: program(**kept))


@pytest.mark.parametrize("name", ["one-hots", "images"])
def test_with_onnx_runtime_alone_an_exported_program_does_the_same(name: str, exported: Exported) -> None:
    runtime = pytest.importorskip("onnxruntime")
    saved, data = exported(name, "onnx")
    session = runtime.InferenceSession(data)
    play(load_networks(saved), lambda kept: session.run(None, {name: tensor.numpy() for name, tensor in kept.items()}))


def test_some_agents_alone_do_what_they_do_among_all(tmp_path: Path) -> None:
    saved, numbers = made(CASES["one-hots"], tmp_path), [2, 0]
    networks, of_some = load_networks(saved), load_networks(saved, ["scout_0", "knight_0"])
    every = ActingProgram(networks.world_model, networks.actors, range(3), networks.acting_context)
    two = ActingProgram(of_some.world_model, of_some.actors, numbers, of_some.acting_context)
    kept = every.inputs(networks.spec, 4)
    kept["observation"] = torch.rand(kept["observation"].shape)
    by_agent = set(kept) - {"is_first", "memory_rows"}
    given = {name: tensor[:, numbers] if name in by_agent else tensor for name, tensor in kept.items()}
    for found, wanted in zip(two(**given)[:4], every(**kept)[:4], strict=True):
        torch.testing.assert_close(found, wanted[:, numbers])


def test_what_is_no_agent_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no agent 'prey': it has adversary_0, adversary_1, adversary_2, agent_0"):
        export(made({}, tmp_path), "pt2", agents=["prey"])


# ---- the examples of docs/recipes/policy.md, where there is nothing of MATWM

FORBIDDEN = {
    "pt2": ["matwm", "pipeline", "mlflow", "dvc", "jaxtyping", "pydantic", "safetensors", "onnx", "onnxruntime"],
    "onnx": ["matwm", "pipeline", "mlflow", "dvc", "jaxtyping", "pydantic", "safetensors", "onnx", "torch"],
}


@pytest.mark.parametrize("form", FORBIDDEN)
def test_the_example_of_a_file_runs_where_matwm_is_not(form: str, exported: Exported, tmp_path: Path) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    saved, data = exported("one-hots", form)
    (tmp_path / f"policies.{form}").write_bytes(data)
    seen = np.random.default_rng(0).normal(size=(7, 3, 5)).astype(np.float32)
    np.save(tmp_path / "seen.npy", seen)
    code = f"import sys\nsys.modules |= dict.fromkeys({FORBIDDEN[form]})\n{example(form)}"
    code += "seen = np.load('seen.npy')\n" if form == "onnx" else "import numpy as np\nseen = torch.from_numpy(np.load('seen.npy'))\n"
    code += "print(json.dumps([[decide(rows, is_first=step in (0, 4)) for step, rows in enumerate(seen)], about]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    networks = load_networks(saved)
    own = ActingProgram(networks.world_model, networks.actors, range(3), networks.acting_context)
    kept, expected = own.inputs(networks.spec, 1), []
    draws, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    for step, rows in enumerate(seen):
        shape = kept["uniform"].shape
        kept["uniform"] = (
            torch.from_numpy(draws.random(tuple(shape), np.float32)) if form == "onnx" else torch.rand(shape, generator=generator)
        )
        kept["observation"][0, :, :5], kept["is_first"][0] = torch.from_numpy(rows), step in (0, 4)
        action, _, *memory = own(**kept)
        kept |= dict(zip(("previous_action", *MEMORY), (action, *memory), strict=True))
        expected.append(action[0].tolist())
    actions, about = json.loads(done.stdout)
    assert actions == expected
    assert about | {"run_id": None, "step": 0, "digest": saved.digest} == about
    assert [(agent["name"], agent["observation"], agent["num_actions"]) for agent in about["agents"]] == [
        *(("knight_0", [5], 6), ("knight_1", [5], 6)),
        ("scout_0", [9], 5),
    ]
    assert about["inputs"]["memory_probs"] == {"shape": ["batch", 3, 4, 4, 4], "dtype": "float32", "first": 0}


# ---- all agents for other code


def as_given(sitting: Sitting, spec: Any) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return observations, masks and who lives, without padding."""
    obs, mask, alive = (stacked(sitting, name) for name in ("obs", "action_mask", "alive"))
    sizes, counts = spec.obs_sizes, spec.num_actions
    return (
        {name: obs[:, n] if spec.image_shape else obs[:, n, : sizes[n]] for n, name in enumerate(spec.agents)},
        {name: mask[:, n, : counts[n]] for n, name in enumerate(spec.agents)},
        {name: alive[:, n] for n, name in enumerate(spec.agents)},
    )


@pytest.mark.parametrize("changes", [{}, TOGETHER, {**TOGETHER, "world_model.latent_code": "ordinal"}])
def test_policies_give_the_logits_and_values_of_the_networks(changes: dict[str, Any], tmp_path: Path) -> None:
    trainer = run(build_trainer(tiny_config({**ARENA, "env.options": {"max_cycles": 9}, **changes})), 20)
    trained = trainer.learner
    with torch.no_grad():
        trained.actors.net.output_weight.normal_(std=1.0)
        trained.critics.net.output_weight.normal_(std=0.1)
    policies, networks = (
        load_policies(trainer.save(LocalStore(tmp_path), ROOT).path, seed=4),
        load_networks(trainer.save(LocalStore(tmp_path / "x"), ROOT)),
    )
    own = ActingProgram(networks.world_model, networks.actors, range(3), networks.acting_context)
    kept = own.inputs(networks.spec, EPISODES)
    with Sitting(networks) as sitting:
        for step in range(12):
            seen, masks, alive = as_given(sitting, networks.spec)
            draws = np.random.Generator(np.random.PCG64(seed_for(4, "policies", step)))
            uniform = torch.from_numpy(draws.random(tuple(kept["uniform"].shape), np.float32))
            told = policies.act(seen, masks, alive=alive, is_first=sitting.first)
            kept |= {"observation": torch.from_numpy(stacked(sitting, "obs")), "uniform": uniform}
            kept |= {"action_mask": torch.from_numpy(stacked(sitting, "action_mask")), "is_first": torch.from_numpy(sitting.first.copy())}
            memory = Memory(*(kept[name] for name in MEMORY))
            features, _ = own.read(kept["observation"], kept["is_first"], kept["previous_action"], uniform, memory)
            lives = torch.from_numpy(stacked(sitting, "alive")).T
            states = trained.as_critics_read(features, lives)
            values = trained.critics.bins.mean(trained.critics(states))
            _, log_probs, *after = own(**kept)
            for number, name in enumerate(networks.spec.agents):
                assert np.array_equal(told.logits[name], log_probs[:, number, : networks.spec.num_actions[number]].numpy())
                assert np.array_equal(told.values[name][alive[name]], values[number].detach().numpy()[alive[name]])
            actions = np.stack([told.actions[name] for name in networks.spec.agents], 1)
            assert all(masks[name][episode, action] for name, row in told.actions.items() for episode, action in enumerate(row))
            kept |= {"previous_action": torch.from_numpy(actions)} | dict(zip(MEMORY, after, strict=True))
            sitting.step(actions)


def test_who_is_left_out_is_gone(tmp_path: Path) -> None:
    saved = made({**ARENA, "env.options": {"max_cycles": 9}}, tmp_path)
    seen = {"knight_0": np.ones((2, 5)), "knight_1": np.ones((2, 5)), "scout_0": np.ones((2, 9))}
    masks = {name: np.ones((2, 5 + (name != "scout_0"))) for name in seen}
    gone = {name: rows for name, rows in seen.items() if name != "scout_0"}
    told = load_policies(saved).act(gone, {name: masks[name] for name in gone})
    same = load_policies(saved).act(seen, masks, alive={"scout_0": np.zeros(2, bool)})
    assert told.actions["scout_0"].tolist() == [0, 0]
    assert all(np.array_equal(told.logits[name], same.logits[name]) for name in seen)


def test_equal_seeds_draw_equal_actions_and_a_new_episode_forgets(tmp_path: Path) -> None:
    saved, before = made({}, tmp_path), torch.get_rng_state()
    seen = {name: np.ones((5, size)) for name, size in zip(saved.spec.agents, saved.spec.obs_sizes, strict=True)}

    def actions(seed: int, **given: Any) -> list[list[int]]:
        policies = load_policies(saved, seed=seed)
        policies.act(seen)
        return [row.tolist() for row in policies.act(seen, **given).actions.values()]

    assert actions(1) == actions(1) != actions(2)
    fresh = load_policies(saved, seed=1)
    fresh._num_calls = 1
    assert actions(1, is_first=np.ones(5, bool)) == [row.tolist() for row in fresh.act(seen).actions.values()]
    assert torch.equal(torch.get_rng_state(), before)


def test_what_policies_are_given_wrongly_is_said_in_one_sentence(tmp_path: Path) -> None:
    policies = load_policies(made({}, tmp_path))
    seen = {name: np.ones((2, size)) for name, size in zip(policies.agents, policies.spec.obs_sizes, strict=True)}
    for wrong, sentence in (
        ({**seen, "prey": np.ones((2, 3))}, "there is no agent 'prey': there are adversary_0, adversary_1, adversary_2, agent_0"),
        ({**seen, "agent_0": np.ones((3, 14))}, "agents have 2 and 3 episodes"),
        ({**seen, "agent_0": np.ones((2, 16))}, r"has the shape \(16,\), but agent_0 sees \(14,\)"),
        ({}, "there are no observations"),
    ):
        with pytest.raises(ValueError, match=sentence):
            policies.act(wrong)
    policies.act(seen)
    with pytest.raises(ValueError, match="there are 1 episodes, but 2 are under way: call reset first"):
        policies.act({name: rows[:1] for name, rows in seen.items()})
    with pytest.raises(ValueError, match=r"is_first is int64 \(3,\), expected a bool for each of the 2 episodes"):
        policies.act(seen, is_first=[0, 1, 2])


def test_neither_mlflow_nor_dvc_is_imported(tmp_path: Path) -> None:
    saved = made({}, tmp_path)
    code = "import sys, matwm, numpy as np\npolicies = matwm.load_policies(sys.argv[1])\n"
    code += "policies.act({name: np.zeros((2, size)) for name, size in zip(policies.agents, policies.spec.obs_sizes)})\n"
    code += "print(sorted({'mlflow', 'dvc', 'pipeline', 'pettingzoo', 'mpe2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code, str(saved.path)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
