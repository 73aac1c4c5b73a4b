"""Folders of checkpoints are named after their steps, in one way."""

import ast
import re
from pathlib import Path

import pytest

from matwm.step_names import step_name, step_of, steps_in

SOURCE = Path(__file__).parents[2]
NAME = re.compile(r"(\S*/)?step_([^\sa-zA-Z]\S*)?")
"""A text that is such a folder's name or path, the beginning of one, or a pattern for it; a sentence has spaces, a metric more letters."""


@pytest.mark.parametrize("step", [0, 7, 5_000, 999_999_999, 10**9, 12_345_678_901])
def test_a_name_is_read_back_also_at_the_end_of_a_path(step: int) -> None:
    assert step_of(step_name(step)) == step_of(Path("checkpoints/s00") / step_name(step)) == step


@pytest.mark.parametrize(
    "name", ["step_5000", "step_0000005000", "step_-00005000", "step_000005000.dvc", "xstep_000005000", "step_00000500a", ""]
)
def test_other_names_are_none(name: str) -> None:
    assert step_of(name) is None


def test_steps_of_a_folder_ascend_and_hold_what_is_asked_for(tmp_path: Path) -> None:
    for name in (step_name(80), step_name(5), step_name(40), "notes"):
        (tmp_path / name).mkdir()
    for name in (step_name(80), step_name(5), "notes"):
        (tmp_path / name / "manifest.json").touch()
    assert steps_in(tmp_path, "manifest.json") == [5, 80]
    assert steps_in(tmp_path / "absent", "manifest.json") == []


@pytest.mark.parametrize("text", ["step_", "step_*", "*/checkpoints/step_*", "step_0000", r"step_(\d+)"])
def test_a_text_that_knows_the_names_is_recognised(text: str) -> None:
    assert NAME.fullmatch(text)
    assert not NAME.fullmatch(f"a folder {text} of a run")
    assert not NAME.fullmatch("step_time_ms")


def test_no_other_module_knows_what_they_look_like() -> None:
    files = [file for folder in ("matwm", "pipeline", "benchmarks") for file in sorted((SOURCE / folder).rglob("*.py"))]
    texts = [
        (file.relative_to(SOURCE).as_posix(), node.lineno, node.value)
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    found = [(file, line) for file, line, text in texts if NAME.fullmatch(text)]
    assert {file for file, _ in found} == {"matwm/step_names.py"}, found
