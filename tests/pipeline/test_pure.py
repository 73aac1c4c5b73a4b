"""What resolving and validating params.yaml reads: each file once, and nothing over a network."""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from matwm.params_yaml import parse_config
from matwm.step_names import step_name
from matwm.version import NUMERICS
from pipeline import cli, dvc_config, dvc_files, validate
from pipeline.params import imports
from pipeline.params.segments import resolve_all
from tests.pipeline.lineages import Matwm
from tests.pipeline.projects import SOURCE, Project, tiny_params

TRAINED = 200


class Seen:
    """The files that this process opens, and the addresses that it connects to or looks up, as the interpreter reports them."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.connected: list[Any] = []
        self.is_watching = False
        sys.addaudithook(self._note)  # Such a hook cannot be removed.

    @contextmanager
    def watching(self) -> Iterator["Seen"]:
        self.opened, self.connected, self.is_watching = [], [], True
        try:
            yield self
        finally:
            self.is_watching = False

    def _note(self, event: str, details: tuple[Any, ...]) -> None:
        if self.is_watching and event == "open":
            self.opened.append(str(details[0]))
        elif self.is_watching and event in ("socket.connect", "socket.getaddrinfo"):
            self.connected.append(details)


@pytest.fixture(scope="module")
def seen() -> Seen:
    """What this process opens and connects to."""
    return Seen()


@pytest.fixture
def lineage(root: Path) -> Path:
    """A chain of segments that dvc.lock has as trained, and one more; the first lies in DVC's cache only, the others are published."""
    entries: dict[str, Any] = {"s0": {"from": "checkpoints/root", "until": 80}}
    for number in range(1, TRAINED + 1):
        entries[f"s{number}"] = {"from": f"checkpoints/s{number - 1}/{step_name(80 * number)}", "until": 80 * (number + 1)}
    params = tiny_params(segments=entries)
    (root / "params.yaml").write_text(yaml.dump(params, Dumper=yaml.CSafeDumper, sort_keys=False), encoding="utf-8")
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_bytes((SOURCE / ".dvc/config").read_bytes())
    stages: dict[str, Any] = {}
    for number in range(TRAINED):
        name, step = f"s{number}", 80 * (number + 1)
        tree = json.dumps([{"md5": "0" * 32, "relpath": f"{step_name(step)}/manifest.json"}]).encode()
        md5 = hashlib.md5(tree, usedforsecurity=False).hexdigest()
        recorded = {key: params[key] for key in ("seed", "env", "world_model", "actor_critic", "retention")}
        recorded[f"segments.{name}"] = entries[name]
        stages[f"train@{name}"] = {
            "params": {"params.yaml": recorded, "matwm/version.py": {"NUMERICS": NUMERICS}},
            "outs": [{"path": f"checkpoints/{name}", "md5": f"{md5}.dir"}],
        }
        cached = root / f".dvc/cache/files/md5/{md5[:2]}/{md5[2:]}.dir"
        kept = cached if number == 0 else root / f"checkpoints/{name}/{step_name(step)}/manifest.json"
        kept.parent.mkdir(parents=True)
        kept.write_bytes(tree if number == 0 else b"{}")
    (root / "dvc.lock").write_text(yaml.dump({"schema": "2.0", "stages": stages}, Dumper=yaml.CSafeDumper), encoding="utf-8")
    return root


@pytest.mark.parametrize("command", ["validate", "repro"])
def test_a_command_parses_the_lock_and_dvcs_configuration_once(
    lineage: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    called: list[tuple[str, str]] = []

    def call(command: list[str], environment: Mapping[str, str]) -> int:
        called.append((Path(command[0]).name, environment[validate.VALIDATED]))
        return 1

    monkeypatch.chdir(lineage)
    monkeypatch.setattr("pipeline.commands.repro.run_to_the_end", call)
    monkeypatch.setattr("os.dup2", lambda *_: None)
    dvc_files._parsed_lock.cache_clear()
    dvc_config._parsed.cache_clear()
    with seen.watching():
        assert cli.main([command, *["--retrain"] * (command == "repro")]) == (command == "repro")
    assert [seen.opened.count(str(lineage / name)) for name in ("dvc.lock", ".dvc/config")] == [1, 1]
    assert not seen.connected
    if command == "validate":
        last = capsys.readouterr().out.splitlines()
        assert [line.endswith(": trained") for line in last] == [True] * TRAINED + [False]
    else:
        [(program, digest)] = called
        assert program == "dvc"
        for found, parsed in ((digest, 0), ("of another params.yaml", 1)):  # The stage that DVC calls need not validate again.
            monkeypatch.setenv(validate.VALIDATED, found)
            dvc_files._parsed_lock.cache_clear()
            with seen.watching():
                assert validate.main() == 0
            assert seen.opened.count(str(lineage / "dvc.lock")) == parsed


@pytest.mark.parametrize(
    "command",
    ["runs", "tree", "show s01", "diff s00 s01", "prune", "push", "import", "continue s01 --until 80", "verify s01", "doctor"],
)
def test_no_command_parses_them_twice(copied: Project, tmp_path: Path, seen: Seen, matwm_in: Matwm, command: str) -> None:
    copied.dvc("remote", "add", "-q", "--default", "store", str(tmp_path / "remote"))
    dvc_files._parsed_lock.cache_clear()
    dvc_config._parsed.cache_clear()
    with seen.watching():
        code, _, errors = matwm_in(copied, *command.split())
    assert code == 0 or command == "doctor", errors
    parsed = [seen.opened.count(str(copied.path / name)) for name in ("dvc.lock", ".dvc/config")]
    assert max(parsed) <= 1
    assert parsed == [1, 1] or command not in ("verify s01", "doctor")


def test_validation_connects_to_nothing_and_leaves_files_alone(lineage: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    def files() -> dict[str, bytes]:
        found = (path for path in lineage.rglob("*") if path.is_file())
        return {str(path): path.read_bytes() for path in found if not path.is_relative_to(lineage / ".matwm")}

    remote = "[core]\n    remote = far\n['remote \"far\"']\n    url = s3://bucket/path\n    endpointurl = http://127.0.0.1:9\n"
    (lineage / ".dvc/config").write_text(remote, encoding="utf-8")
    monkeypatch.chdir(lineage)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    before = files()
    with seen.watching():
        assert cli.main(["validate"]) == 0
    assert (files(), seen.connected) == (before, [])


def test_what_the_lock_says_is_read_again_when_it_changes(lineage: Path) -> None:
    assert len(dvc_files.lock(lineage)) == TRAINED
    (lineage / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n", encoding="utf-8")
    assert not dvc_files.lock(lineage)
    assert not dvc_files.has_remote(lineage)
    (lineage / ".dvc/config.local").write_text("[core]\n    remote = there\n['remote \"there\"']\n    url = /nowhere\n", encoding="utf-8")
    assert dvc_files.has_remote(lineage)


def test_resolving_reads_what_git_has_of_an_import_and_nothing_else(lineage: Path, seen: Seen) -> None:
    folder = f"imports/abc123/{step_name(40)}"
    record = imports.record(lineage, folder)
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"step": 40, "config": parse_config(tiny_params()).shaping()}), encoding="utf-8")
    params = yaml.safe_load((lineage / "params.yaml").read_text(encoding="utf-8"))
    params["segments"]["again"] = {"from": folder, "until": 80}
    with seen.watching():
        assert len(resolve_all(params, lineage)) == TRAINED + 2
    assert (seen.opened, seen.connected) == ([str(record)], [])
