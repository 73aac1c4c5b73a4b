"""The cost of a step is asked for in words that mean something."""

import subprocess
import sys

import pytest

from benchmarks.learning import REPOSITORY


@pytest.mark.parametrize("script", ["step_cost.py", "compile.py"])
@pytest.mark.parametrize(
    ("words", "sentence"),
    [(["huge"], "there is no preset 'huge'"), (["ci-tiny", "--repetitions", "0"], "--repetitions 0: at least 1 is needed")],
)
def test_a_wrong_word_is_refused_in_one_sentence(script, words, sentence):
    done = subprocess.run([sys.executable, f"benchmarks/{script}", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(sentence) and done.stderr.count("\n") == 1
    assert not done.stdout
