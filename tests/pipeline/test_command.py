"""The front of the `matwm` command: what it prints before any command is imported."""

import shlex
import subprocess
import sys
from importlib.metadata import version

import pytest

import matwm.__main__
from matwm.version import FORMAT, NUMERICS
from pipeline import cli
from pipeline.commands import COMMANDS, parser_of
from tests.pipeline.projects import SOURCE

HEAVY = {"torch", "numpy", "mlflow", "dvc", "pandas", "sqlalchemy", "pydantic", "matplotlib", "yaml", "rich", "requests", "safetensors"}
LIGHT = (["--help"], ["help"], [], ["--version"], ["rusn"])


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_nothing_heavy_is_imported_for(arguments: list[str]) -> None:
    code = f"import sys, pipeline.cli\npipeline.cli.main({arguments!r})\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=SOURCE, capture_output=True, text=True, check=True)
    imported = set(done.stdout.splitlines()[-1].split())
    assert "pipeline" in imported
    assert not imported & HEAVY


def test_help_lists_every_command_in_its_group_with_a_line_and_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == cli.main(["help"]) == cli.main(["--help"]) == 0
    alone, *others = capsys.readouterr().out.split("Train multi-agent")[1:]
    assert [alone, alone] == others
    lines = alone.splitlines()
    for name, command in COMMANDS.items():
        number = next(number for number, line in enumerate(lines) if line.split()[:1] == [name])
        assert lines[number].split(maxsplit=1)[1] == command.purpose
        assert lines[number + 1].strip() == f"$ {command.example}"
        group = next(line for line in reversed(lines[:number]) if line and not line.startswith(" "))
        assert group == command.group
    assert max(map(len, lines)) <= 82


def test_help_of_a_command_is_that_of_its_parser(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["help", "preset"], ["preset", "--help"], ["--help", "preset"]):
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        told = capsys.readouterr().out
        assert (end.value.code, told.split()[:3]) == (0, ["usage:", "matwm", "preset"])
        assert told.endswith(f"example: {COMMANDS['preset'].example}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_accepted(name: str) -> None:
    program, called, *rest = shlex.split(COMMANDS[name].example)
    assert (program, called) == ("matwm", name)
    parser_of(name).parse_known_args(rest)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("rusn", "there is no command 'rusn', did you mean runs?: \"matwm help\" lists the commands\n"),
        ("contine", "there is no command 'contine', did you mean continue?: \"matwm help\" lists the commands\n"),
        ("--verison", "there is no option '--verison', did you mean --version?: \"matwm help\" lists the commands\n"),
        ("zzz", "there is no command 'zzz': \"matwm help\" lists the commands\n"),
    ],
)
def test_a_misspelt_word_is_one_sentence(word: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([word]) == 1
    assert capsys.readouterr() == ("", sentence)


def test_the_version_names_what_checkpoints_depend_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"matwm {version('matwm')}, checkpoints of format {FORMAT}, numerics {NUMERICS}\n"


def test_a_shell_completes_commands_options_and_choices(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    typed = {"matwm sh": "show", "matwm diff --on": "--only", "matwm eval s00 --mode gr": "greedy", "matwm comp": "completion"}
    for line, completed in typed.items():
        words = line.split()
        ask = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _shtab_matwm matwm {words[-1]} {words[-2]}; echo ${{COMPREPLY[@]}}"
        done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True)
        assert done.stdout.split() == [completed]


def test_windows_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert matwm.__main__.main() == 1
    assert "WSL" in capsys.readouterr().err


def test_a_command_without_what_it_needs_names_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def needs(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(cli, "main", lambda: needs("mlflow"))
    with pytest.raises(ModuleNotFoundError):
        matwm.__main__.main()  # All is installed: it is a fault of the program.
    monkeypatch.setattr(matwm.__main__, "is_installed", lambda extra: extra != "pipeline")
    assert matwm.__main__.main() == 1
    told = capsys.readouterr().err
    assert "mlflow" in told
    assert '"matwm[pipeline]"' in told
