"""A program ends in one sentence for what a person or a disk is to blame for, and in a traceback for what the program is."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from matwm.config import ConfigError
from matwm.envs.base import EnvError
from matwm.errors import UserError, run_program
from matwm.manifest import CheckpointError
from matwm.readings import NonFiniteLossError

SOURCE = Path(__file__).parents[2]
KINDS = [ConfigError(["seed is -1"]), EnvError("no module mine"), CheckpointError("a is damaged"), NonFiniteLossError("the loss", 7)]


def raising(error: BaseException) -> Callable[[], int]:
    def main() -> int:
        raise error

    return main


@pytest.mark.parametrize("error", KINDS, ids=lambda error: type(error).__name__)
def test_a_mistake_of_a_person_is_its_sentence_and_1(error: UserError, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(raising(error)) == 1
    assert capsys.readouterr() == ("", f"{error}\n")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_refuses_is_named_with_what_to_do(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(raising(OSError(number, os.strerror(number), "/data/params.yaml"))) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"/data/params.yaml cannot be used ({os.strerror(number)}): ")
    assert line.endswith(" and give the same command again")


@pytest.mark.parametrize("error", [KeyError("x"), FileNotFoundError(errno.ENOENT, "no such file", "x"), ValueError("x")])
def test_a_fault_of_the_program_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        run_program(raising(error))


def test_notes_follow_the_sentence_and_somebody_elses_code_shows_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        try:
            _ = {}["somebody's key"]
        except KeyError as cause:
            error = EnvError("the environment failed")
            error.add_note("at step 3")
            raise error from cause

    assert run_program(main) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback") and 'KeyError: "somebody\'s key"' in lines
    assert lines[-2:] == ["the environment failed", "at step 3"]


@pytest.mark.parametrize(("main", "code"), [(raising(KeyboardInterrupt()), 130), (lambda: None, 0), (lambda: 3, 3)])
def test_other_ends_are_exit_codes(main: Callable[[], int | None], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(main) == code
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_has_enough_ends_the_program_without_a_word() -> None:
    """As `head -1` does, with more lines than a pipe holds, and with fewer."""
    for lines in (100_000, 10):
        code = f"import sys, time\nfrom matwm.errors import run_program\nsys.stdin.read()\ndef main():\n    for _ in range({lines}):\n"
        code += "        print('line')\nsys.exit(run_program(main))"
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=SOURCE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdin and process.stdout and process.stderr
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == ""
        assert process.wait() == 128 + signal.SIGPIPE
