"""`matwm init`: the wheel makes a project, which trains to the same bits as a checkout."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from matwm.checkpoint import read_manifest
from matwm.errors import UserError
from matwm.version import NUMERICS
from pipeline import cli
from pipeline.commands import init
from pipeline.validate import stale_numerics
from tests.pipeline.projects import IDENTITY, SETTINGS, SOURCE, Project, tiny_params

OWN = {"numerics.yaml", "python_env.yaml", "params.yaml", ".gitignore"}
"""Files of a project that a checkout has otherwise."""


def make(folder: Path, *arguments: str) -> int:
    return cli.main(["init", str(folder), *arguments])


def test_its_files_are_those_of_a_checkout(tmp_path: Path) -> None:
    assert make(tmp_path / "new") == 0
    files = {path.relative_to(tmp_path / "new").as_posix() for path in (tmp_path / "new").rglob("*") if path.is_file()}
    files = {name for name in files if not name.startswith(".git/")}
    for name in files - OWN:
        theirs = (SOURCE / name).read_text(encoding="utf-8").replace("matwm/version.py", "numerics.yaml")
        assert (tmp_path / "new" / name).read_text(encoding="utf-8") == theirs, name
    needed = {"dvc.yaml", "MLproject", "bin/python", ".dvcignore", ".dvc/config", "checkpoints/root/manifest.json", *OWN}
    assert needed <= files
    assert os.access(tmp_path / "new/bin/python", os.X_OK)
    ignored = (tmp_path / "new/.gitignore").read_text(encoding="utf-8").splitlines()
    assert {*ignored} <= {*(SOURCE / ".gitignore").read_text(encoding="utf-8").splitlines()}
    assert yaml.safe_load((tmp_path / "new/numerics.yaml").read_text(encoding="utf-8")) == {"NUMERICS": NUMERICS}


def test_a_scenario_and_a_preset_are_chosen(tmp_path: Path) -> None:
    assert make(tmp_path / "new", "--preset", "ci-tiny", "--env", "simple_spread_v3") == 0
    assert yaml.safe_load((tmp_path / "new/params.yaml").read_text(encoding="utf-8"))["env"]["name"] == "simple_spread_v3"


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "params.yaml").write_text("mine", encoding="utf-8")
    assert make(tmp_path) == 1
    assert "params.yaml" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
    assert (tmp_path / "params.yaml").read_text(encoding="utf-8") == "mine"


def test_a_wrong_preset_or_scenario_makes_no_project(tmp_path: Path) -> None:
    assert make(tmp_path / "new", "--preset", "none") == 1
    assert make(tmp_path / "new", "--env", "none") == 1
    assert not (tmp_path / "new").exists()


def test_without_git_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="git"):
        init._init_git(tmp_path)


@pytest.mark.parametrize("text", [f"NUMERICS: {NUMERICS + 1}\n".encode(), b"NUMERICS", b"", b"NUMERICS: \xff\n", None])
def test_a_project_of_other_numerics_is_refused(tmp_path: Path, text: bytes | None) -> None:
    make(tmp_path / "new")
    assert stale_numerics(tmp_path / "new") == []
    file = tmp_path / "new/numerics.yaml"
    if text is None:
        file.unlink()
        stages = tmp_path / "new/dvc.yaml"
        stages.write_bytes(stages.read_bytes() + b"# \xff\n")
    else:
        file.write_bytes(text)
    (sentence,) = stale_numerics(tmp_path / "new")
    assert f"NUMERICS: {NUMERICS}" in sentence


def test_what_the_method_imports_is_in_no_extra() -> None:
    """The rest of the package is in `matwm[pipeline]`."""
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = {requirement.split(">")[0].lower() for requirement in project["optional-dependencies"]["pipeline"]}
    code = (
        "import sys\nimport matwm, matwm.policy, matwm.program, matwm.export\n\n"
        "matwm.train(matwm.preset_path('ci-tiny'), until=30)\n"
        "print(*sorted({name.split('.')[0].lower() for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SOURCE, capture_output=True, text=True, check=True, env={**os.environ, **SETTINGS}
    )
    assert not {*done.stdout.splitlines()[-1].split()} & (extra - {"pillow"})


def test_a_wheel_makes_a_project_that_trains_to_the_bits_of_a_checkout(tmp_path: Path, store_template: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    source = tmp_path / "source"
    copied = ["matwm", "pipeline", "pyproject.toml", "README.md", "LICENSE"]
    source.mkdir()
    subprocess.run(["cp", "-r", *copied, str(source)], cwd=SOURCE, check=True)
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("matwm-*.whl")
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)], check=True, capture_output=True)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_", "MATWM_", "GIT_"))}
    path = f"{site / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}"
    environment = {**clean, **IDENTITY, **SETTINGS, "PATH": path, "PYTHONPATH": str(site), "MATWM_PYTHON": sys.executable}

    def matwm(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(["matwm", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)

    assert matwm(tmp_path, "init", "new").returncode == 0
    project = Project(tmp_path / "new")
    project.write(tiny_params())
    project.git("add", "-A")
    project.git("commit", "-q", "-m", "begin")
    done = matwm(project.path, "repro")
    assert done.returncode == 0, done.stderr
    reference = Project.create(tmp_path / "checkout", tiny_params(), store_template)
    reference.dvc("repro", "train@s00")
    ours, theirs = (read_manifest(each.path / "checkpoints/s00/step_000000080") for each in (project, reference))
    assert ours.fingerprint == theirs.fingerprint
    verified = matwm(project.path, "verify", "s00@final")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert matwm(project.path, "doctor").returncode == 0
