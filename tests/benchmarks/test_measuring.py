"""What a benchmark cannot do is said in one sentence, before anything is measured."""

import importlib
import sys

import pytest

from benchmarks import learning
from benchmarks.measuring import in_a_process, known_presets
from matwm.errors import UserError, run_program

REPETITIONS = ["ci-tiny", "--repetitions", "0"]
REFUSED = [
    ("step_cost", ["huge"], "there is no preset 'huge'"),
    ("step_cost", REPETITIONS, "--repetitions 0: at least 1 is needed"),
    ("compile", ["huge"], "there is no preset 'huge'"),
    ("compile", REPETITIONS, "--repetitions 0: at least 1 is needed"),
    ("scaling", ["--out", "FILE"], "--out FILE: nothing can be written there (File exists): name another folder"),
    ("storage", ["--folder", "FILE/in"], "--folder FILE/in: nothing can be written there (Not a directory): name another folder"),
    ("storage", ["--image-gigabytes", "nan"], "--image-gigabytes nan: at least 0.13 is needed"),
    ("storage", ["--image-gigabytes", "inf"], "--image-gigabytes inf: a finite number is needed"),
    ("kill_test", ["--kills", "0"], "--kills 0: at least 1 is needed"),
    ("kill_test", ["--seed", "-1"], "--seed -1: at least 0 is needed"),
    ("kill_test", ["--folder", "FILE"], "--folder FILE: nothing can be written there (File exists)"),
    ("kill_test", ["--json", "."], "--json . is a folder: name a file"),
    ("soak", ["--csv", "."], "--csv . is a folder: name a file"),
    ("soak", ["--csv", "FILE/x.csv"], "--csv FILE: nothing can be written there (File exists)"),
    ("fixed_play", ["simple_tag_v3", "--updates", "0"], "--updates 0: at least 1 is needed"),
    ("fixed_play", ["simple_tag_v3", "--preset", "ci-tiny", "--rows", "3"], "--rows 3: at least 16 is needed"),
    ("fixed_play", ["simple_tag_v3", "--play", "FILE"], "FILE"),
    ("fixed_play", ["simple_tag_v3", "--preset", "ci-tiny", "--set", "run.device=tpu"], "--set run.device"),
]


@pytest.mark.parametrize(("script", "words", "sentence"), REFUSED)
def test_a_wrong_word_is_refused_in_one_sentence(monkeypatch, tmp_path, capsys, script, words, sentence):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.syspath_prepend(str(learning.REPOSITORY / "benchmarks"))
    main = importlib.import_module(script).main
    monkeypatch.setattr(sys, "argv", [script, *(word.replace("FILE", str(file)) for word in words)])
    code = run_program(main)
    out, error = capsys.readouterr()
    assert (code, out, error.count("\n")) == (1, "", 1)
    assert error.startswith(sentence.replace("FILE", str(file)))


def test_compiling_without_a_compiler_is_refused(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(learning.REPOSITORY / "benchmarks"))
    main = importlib.import_module("compile").main
    monkeypatch.setattr(sys, "argv", ["compile", "ci-tiny"])
    monkeypatch.setenv("CXX", "none-such++")
    with pytest.raises(UserError, match=r"torch\.compile needs a C\+\+ compiler, and none-such\+\+ is not here"):
        main()


def test_every_script_ends_at_the_shared_boundary():
    scripts = [file for file in (learning.REPOSITORY / "benchmarks").glob("*.py") if "__main__" in file.read_text(encoding="utf-8")]
    others = [file.stem for file in scripts if "run_program(" not in file.read_text(encoding="utf-8")]
    assert len(scripts) > 9 and not others


@pytest.mark.parametrize("option", ["--work", "--results"])
def test_a_learning_job_does_not_begin_that_could_not_write(tmp_path, capsys, option):
    file = tmp_path / "file"
    file.touch()
    folders = {"--work": str(tmp_path), "--results": str(tmp_path), option: str(file)}
    assert learning.main(["train", "--scenario", "simple_spread_v3", *(word for pair in folders.items() for word in pair)]) == 1
    assert capsys.readouterr().err.startswith(f"{option} {file}: nothing can be written there")


def test_a_preset_whose_environment_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr("matwm.envs.is_there", lambda module: not module.startswith("jaxmarl"))
    known_presets(["ci-tiny"])
    with pytest.raises(UserError, match=r"^smax-easy is of the family smax, but jaxmarl.* is not installed: [^\n]*$"):
        known_presets(["ci-tiny", "smax-easy"])


@pytest.mark.parametrize(
    ("ending", "code", "said"),
    [("raise SystemExit(3)", 3, ""), ("os.kill(os.getpid(), signal.SIGKILL)", 137, "case.py one two was ended by SIGKILL\n")],
)
def test_a_case_that_fails_ends_the_benchmark_without_more_words_than_needed(tmp_path, capsys, ending, code, said):
    script = tmp_path / "case.py"
    script.write_text(f"import os, signal\n{ending}\n", encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        in_a_process(str(script), "one", "two")
    assert (ended.value.code, capsys.readouterr().err) == (code, said)


def test_a_case_is_given_its_words_and_tells_its_figures(tmp_path):
    script = tmp_path / "case.py"
    script.write_text("import json, sys\nprint(json.dumps(sys.argv[1:]))\n", encoding="utf-8")
    assert in_a_process(str(script), "one", "two") == ["--child", "one", "two"]
