"""What people type in the place of a reference, and what lies in the command's way."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from matwm.step_names import step_name
from tests.pipeline.lineages import Matwm
from tests.pipeline.projects import SOURCE, Project


def test_a_checkpoints_folder_stands_for_its_run_and_step(made: Project, matwm_in: Matwm, tmp_path: Path) -> None:
    run_id = made.json("metrics/s00/run.json")["run_id"][:12]
    folder = f"checkpoints/s00/{step_name(20)}"
    for typed in (folder, f"{folder}/", f"./{folder}", str(made.path / folder), f"s00@{step_name(20)}", f"s00@{step_name(20)}/"):
        code, output, _ = matwm_in(made, "continue", typed, "--until", "90", "--dry-run")
        assert (code, output.splitlines()[0]) == (0, f"segment s04 goes on from run {run_id} (s00) at step 20 and trains to step 90")
    code, output, _ = matwm_in(made, "continue", "checkpoints/s00/", "--until", "90", "--dry-run")
    assert "(s00) at step 40 " in output, "the latest"
    (work,) = (made.path / ".matwm/work").glob(f"s03-*/checkpoints/{step_name(70)}")
    assert "(s03) at step 70 " in matwm_in(made, "continue", str(work), "--until", "90", "--dry-run")[1]
    assert matwm_in(made, "tree", "checkpoints/s02/")[1] == matwm_in(made, "tree", "s02")[1]
    stranger = Path(shutil.copytree(made.path / folder, tmp_path / "stranger"))
    assert "(s00) at step 20 " in matwm_in(made, "continue", str(stranger), "--until", "90", "--dry-run")[1], "its manifest says whose"


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["continue", f"checkpoints/s00/{step_name(30)}", "--until", "90"], "has no checkpoint of step 30; it has 20, 40\n"),
        (["continue", f"checkpoints/s0/{step_name(20)}", "--until", "90"], "no run begins with 's0', did you mean s0"),
        (["pin", f"checkpoints/s00/{step_name(30)}/"], "has no checkpoint of step 30; it has 20, 40\n"),
        (["tree", f"checkpoints/s00/{step_name(20)}"], "names a step, and this takes a run without one: write s00\n"),
    ],
)
def test_a_folder_that_is_not_there_is_one_sentence(made: Project, matwm_in: Matwm, command: list[str], sentence: str) -> None:
    code, output, errors = matwm_in(made, *command)
    assert (code, output, len(errors.splitlines())) == (1, "", 1)
    assert sentence in errors


def test_a_linked_params_yaml_is_written_through(copied: Project, matwm_in: Matwm) -> None:
    linked, shared = copied.path / "params.yaml", copied.path.with_name("shared.yaml")
    linked.rename(shared)
    linked.symlink_to(f"../{shared.name}")
    before = shared.read_text(encoding="utf-8")
    assert matwm_in(copied, "continue", "s00@final", "--until", "90")[0] == 0
    assert linked.is_symlink()
    assert shared.read_text(encoding="utf-8") == f"{before}  s04: {{from: checkpoints/s00/{step_name(40)}, until: 90}}\n"
    assert matwm_in(copied, "preset", "ci-tiny", "--force")[0] == 0
    assert linked.is_symlink()
    assert shared.read_bytes() == (SOURCE / "matwm/presets/ci-tiny.yaml").read_bytes()


@pytest.mark.parametrize("name", ["1", "no", "null", "1e3", "0x1f", "1_0", "y", "on", "~", "true", "1:30"])
def test_a_segment_may_be_called_what_yaml_takes_for_something_else(made: Project, matwm_in: Matwm, name: str) -> None:
    code, output, errors = matwm_in(made, "continue", "s00@final", "--until", "90", "--name", name, "--dry-run")
    if name in ("~", "1:30"):  # no name of a folder
        assert (code, f"segments.{name}: a segment's name is made of letters" in errors) == (1, True)
    else:
        assert (code, f"\n  '{name}': {{from: " in output) == (0, True)


def test_a_pipeline_of_somebody_elses_is_named(tmp_path: Path, made: Project, matwm_in: Matwm) -> None:
    mine = tmp_path / "pipeline.py"
    mine.write_text("steps = []\n", encoding="utf-8")
    sentence = f"{mine} is imported in the place of MATWM's package pipeline: rename it, or take its folder from PYTHONPATH\n"
    program = [sys.executable, "-P", "-c", "import sys, matwm.__main__; sys.exit(matwm.__main__.main())", "--version"]
    environment = {**made.environment(), "PYTHONPATH": f"{tmp_path}:{SOURCE}"}
    done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", sentence)
    environment["PYTHONPATH"] = str(SOURCE)
    assert subprocess.run(program, cwd=tmp_path, env=environment, check=False).returncode == 0
    module = [sys.executable, "-m", "matwm", "--version"]  # from the folder that has it
    done = subprocess.run(module, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", sentence)


def test_a_pipe_that_is_closed_ends_the_command_quietly(made: Project) -> None:
    for command in ("runs", "tree", "diff s01 s02", "envs mpe", "help"):
        line = f"{sys.executable} -m pipeline.cli {command} | head -c 1; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", line], cwd=made.path, env=made.environment(), capture_output=True, text=True, check=True)
        assert done.stdout[1:].strip() in ("141", "0"), "0 where all of it fits into the pipe"
        assert done.stderr == ""
