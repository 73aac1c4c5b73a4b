"""What commands and stages may not import: torch, MLflow and matplotlib take seconds of every start."""

import subprocess
import sys

from pipeline import runs
from pipeline.commands import COMMANDS
from pipeline.tracking import upkeep
from tests.pipeline.lineages import Matwm
from tests.pipeline.projects import SOURCE, Project

HEAVY = ("torch", "mlflow", "matplotlib", "dvc", "pandas", "scipy", "gymnasium")
WITH_MLFLOW = {"mlflow", "pandas", "scipy"}
"""It imports the others itself."""
CALL = """
import runpy, sys
from pipeline import cli
def call(module, *arguments):
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(f"pipeline.{module}", run_name="__main__")
    except SystemExit as end:
        assert not end.code, f"{module} {arguments} ended with {end.code}"
"""


def imported(project: Project, calls: str) -> set[str]:
    """Return which heavy packages a process has imported that does this in a project."""
    code = f"{CALL}\n{calls}\nprint(*[name for name in {HEAVY} if name in sys.modules])"
    path = {"PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project.path, env=project.environment() | path, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_help_needs_nothing_heavy(made: Project) -> None:
    assert imported(made, f"for name in {[*COMMANDS]}: call('cli', name, '--help')") == set()


def test_what_computes_nothing_needs_no_torch(copied: Project, matwm_in: Matwm) -> None:
    runs.configure(copied.path)
    assert upkeep.settle(copied.path, timeout=600.0) == [], "what the killed run has still to send is sent, after a look at every byte"
    assert matwm_in(copied, "validate")[0] == 0, "sizes of networks are measured once, and known from then on"
    commands = [["tree"], ["runs"], ["show", "s00@40"], ["diff", "s00@40", "s01@60"], ["prune"]]
    found = imported(copied, "\n".join(f"call('cli', *{command})" for command in commands))
    assert found == WITH_MLFLOW
    validations = "call('validate'); call('cli', 'validate'); call('cli', 'repro', '--dry', 'validate')"
    assert imported(copied, validations) <= WITH_MLFLOW
    assert imported(copied, "call('plot')") == WITH_MLFLOW | {"matplotlib", "gymnasium"}


def test_training_and_evaluation_need_no_compiler(made: Project) -> None:
    """Torch imports it, for seconds, where an optimizer of its own is made."""
    code = "from matwm.params_yaml import load_config; from matwm.trainer import build_trainer; import os\n"
    code += "trainer = build_trainer(load_config(os.path.join(os.getcwd(), 'params.yaml')))\nfor _ in range(40): trainer.step()\n"
    code += "assert 'torch._dynamo' not in sys.modules and 'torch._inductor' not in sys.modules"
    assert imported(made, code) == {"torch", "gymnasium"}
