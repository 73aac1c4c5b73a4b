"""YAML says the same to every reader, or is refused, and one file is laid over another."""

import io

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from matwm.yaml_text import TwofoldError, overlaid, read_dvc_yaml, read_yaml, to_yaml


@pytest.mark.parametrize("number", [2e-5, 1e-8, 1.5e-7, 1e22, -3e-10, 0.001, 5e-324, 123456.0])
def test_a_number_that_python_or_dvc_wrote_is_read_as_it_was(number):
    assert read_yaml(f"x: {number!r}") == {"x": number}


TWOFOLD = [
    ("010", "8 to some readers of YAML and 10 to others: put it in quotes, or write 8 or 10"),
    ("0o17", "the text '0o17' to some readers of YAML and 15 to others: put it in quotes, or write 15"),
    ("0b11", "3 to some readers of YAML and the text '0b11' to others: put it in quotes, or write 3"),
    ("1_000", "1000 to some readers of YAML and the text '1_000' to others: put it in quotes, or write 1000"),
    ("1:30", "90 to some readers of YAML and the text '1:30' to others: put it in quotes, or write 90"),
    ("no", "false to some readers of YAML and the text 'no' to others: put it in quotes, or write false"),
    ("On", "true to some readers of YAML and the text 'On' to others: put it in quotes, or write true"),
    ("1e3", "the text '1e3' to some readers of YAML and 1000.0 to others: put it in quotes, or write 1000.0"),
    ("3e-5", "the text '3e-5' to some readers of YAML and 3.0e-05 to others: put it in quotes, or write 3.0e-05"),
    ("-.5", "the text '-.5' to some readers of YAML and -0.5 to others: put it in quotes, or write -0.5"),
    ("2020-01-31", "a date to some readers of YAML and the text '2020-01-31' to others: put it in quotes"),
]


@pytest.mark.parametrize(("word", "sentence"), TWOFOLD)
def test_a_word_that_readers_take_for_different_things_is_refused(word, sentence):
    for text, what in ((f"a: {{b: {word}}}", "a.b is"), (f"a: [0, {word}]", "a.1 is"), (f"a:\n  {word}: 1", "a: the key")):
        with pytest.raises(TwofoldError) as caught:
            read_yaml(text)
        assert caught.value.problems == [f"{what} {word}, which is {sentence if 'key' not in what else sentence.partition(', or')[0]}"]
    for quoted in (f"'{word}'", f'"{word}"'):
        assert read_yaml(f"a: {quoted}") == {"a": word}
    assert read_yaml("a_b: dead_beef") == {"a_b": "dead_beef"}
    assert read_yaml(f"{word}x: {word}x") == {f"{word}x": f"{word}x"}


ODD = ["no", "Yes", "on", "OFF", "y", "N", "true", "NULL", "~", ".inf", ".NaN", "=", "<<", "-", "?", "0x1F"]
WORDS = st.one_of(st.text("0123456789eE+-._:xobn", max_size=8), st.sampled_from(ODD))


@given(WORDS)
def test_what_is_read_is_what_dvc_reads(word):
    try:
        read = read_yaml(f"- {word}\n- {{k{word}: 1}}\n")
    except (yaml.YAMLError, ValueError):
        return
    assert repr(read) == repr(YAML(typ="safe").load(f"- {word}\n- {{k{word}: 1}}\n"))


@given(WORDS, WORDS)
def test_what_is_written_is_a_text_to_every_reader(key, value):
    data = {key: value, "more": [value]}
    for text in (to_yaml(data), to_yaml(data, default_flow_style=True)):
        assert data == read_yaml(text) == read_dvc_yaml(text) == yaml.safe_load(text) == YAML(typ="safe").load(text)


def test_what_dvc_writes_is_read_as_it_was():
    data = {word: [word, 1e-05, 10, True, None, "a b"] for word, _ in TWOFOLD}
    file = io.StringIO()
    YAML(typ="safe").dump(data, file)
    assert read_dvc_yaml(file.getvalue()) == data


def test_yaml_elsewhere_is_read_as_ever():
    assert yaml.safe_load("2e-05") == "2e-05"


@pytest.mark.parametrize("text", ["a: 1\na: 2", "{a: {b: 1, b: 2}}", "? [a]\n: 1"])
def test_a_key_that_stands_twice_or_is_no_name_is_refused(text):
    with pytest.raises(yaml.YAMLError):
        read_yaml(text)


BELOW = """# below

a:
  x: 1            # one
  deep:           # of two
    p: 1
    q: 2
  options:
    old: 1

list:             # of numbers
  - {n: 1}
  - {n: 2}

z: 0
"""
CHANGES = """# above

a:
  deep:
    q: 3          # more
  options:
    new: 1

list:             # of one
  - {n: 3}
y: 1
"""
TOGETHER = """# above

a:
  x: 1            # one
  deep:           # of two
    p: 1
    q: 3          # more
  options:
    new: 1

list:             # of one
  - {n: 3}

z: 0
y: 1
"""


def test_a_file_laid_over_another_puts_its_entries_and_comments_in_their_place():
    assert overlaid(BELOW, CHANGES) == TOGETHER
    assert overlaid(BELOW, "") == BELOW
    assert overlaid(BELOW, BELOW) == BELOW
