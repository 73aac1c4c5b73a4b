"""Checkpoints that somebody made to hurt, everything sealed anew: one sentence each, nothing run or written."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from matwm.checkpoint import CheckpointError, open_checkpoint
from matwm.config import ConfigError
from matwm.params_yaml import read_params
from matwm.policy import load_policies, load_policy
from tests.pipeline.lineages import forge, replace

GOLDEN = Path(__file__).parent / "golden_checkpoint/step_000000030"


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN, tmp_path / GOLDEN.name))


def refusal(do: Callable[[], object]) -> str:
    with pytest.raises(CheckpointError) as caught:
        do()
    return str(caught.value)


@pytest.mark.parametrize(
    "data",
    [nested(900), nested(100_000), b"[]", b"{}", b'{"env_step": ' + b"9" * 5000 + b"}", b"\xff{}", b""],
    ids=["900 deep", "100,000 deep", "a list", "empty", "5,000 digits", "no UTF-8", "nothing"],
)
def test_a_progress_file_of_another_kind_is_refused(folder: Path, data: bytes) -> None:
    facts = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    replace(folder / "progress.json", data)
    forge(folder, lambda manifest: manifest["files"].update({"progress.json": facts}))
    assert str(folder) in refusal(lambda: open_checkpoint(folder).load())


@pytest.mark.parametrize("data", [nested(100_000), b"[]", b'{"format":' + b"9" * 5000 + b"}", b"\xff\xfe{}"], ids=range(4))
def test_a_manifest_that_is_none_is_refused(folder: Path, data: bytes) -> None:
    replace(folder / "manifest.json", data)
    assert "manifest.json is damaged" in refusal(lambda: load_policy(folder, "agent_0"))


CONFIG: list[tuple[str, Any]] = [
    ("schedule.acting_context", "x"),
    ("world_model.latents", -4),
    ("world_model.hidden_size", 10**15),
    ("world_model", {}),
    ("actor_critic.imagination.regimes", 7),
    ("env.name", ["x"]),
    ("env", json.loads(nested(300))),
]
SPEC: list[tuple[str, Any]] = [
    ("obs_sizes", [-1, 3, 4]),
    ("obs_sizes", "abc"),
    ("obs_sizes", [1.5, 1, 1]),
    ("obs_sizes", [10**18] * 3),
    ("num_actions", [0, 5, 5]),
    ("num_actions", [True, 5, 5]),
    ("num_actions", [5]),
    ("image_shape", [-3, 64, 64]),
    ("image_shape", "x"),
    ("agents", "xyz"),
    ("agents", None),
    ("name", json.loads(nested(300))),
    ("resume", 7),
]


@pytest.mark.parametrize(
    ("path", "value"),
    [("config", {}), *((f"config.{path}", value) for path, value in CONFIG), *((f"spec.{path}", value) for path, value in SPEC)],
)
def test_a_manifest_with_values_that_mean_nothing_is_refused(folder: Path, path: str, value: Any) -> None:
    def change(manifest: dict[str, Any]) -> None:
        *above, last = path.split(".")
        node = manifest
        for key in above:
            node = node[key]
        node[last] = value

    agent = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["spec"]["agents"][0]
    forge(folder, change)
    for load in (lambda: load_policy(folder, agent), lambda: load_policies(folder)):
        assert str(folder) in refusal(load)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"seed: 1\nnote: \xff\n", "is no UTF-8 text: line 2 has the byte 0xff"),
        (b"seed: " + b"9" * 5000 + b"\n", "is not valid YAML: "),
        (b"seed: " + b"[" * 3000 + b"\n", "is not valid YAML: "),
    ],
    ids=["no UTF-8", "5,000 digits", "3,000 deep"],
)
def test_parameters_that_are_no_text_or_too_much_are_one_sentence(tmp_path: Path, text: bytes, sentence: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        read_params(path)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith(f"{path} {sentence}")
