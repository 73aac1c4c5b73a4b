import pytest
import yaml

from matwm.yaml_text import overlaid, read_yaml


@pytest.mark.parametrize("number", [2e-5, 1e-8, 1.5e-7, 1e22, -3e-10, 0.001, 5e-324, 123456.0])
def test_a_number_that_python_or_dvc_wrote_is_read_as_it_was(number):
    assert read_yaml(f"x: {number!r}") == {"x": number}


def test_what_people_write_and_other_readers_take_for_text_stays_text():
    assert read_yaml("[3e-5, '2e-05', 1e5, 12e-05, 2e-05x]") == ["3e-5", "2e-05", "1e5", "12e-05", "2e-05x"]


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
