"""What somebody else's code prints goes aside, and stdout is as it was afterwards."""

import os
import sys

import pytest

from matwm.envs.output import stdout_aside


def print_everywhere():
    print("python")
    os.write(1, b"descriptor\n")
    os.system("echo process")


@pytest.mark.parametrize(("is_silent", "aside"), [(False, ["descriptor", "process", "python"]), (True, [])])
def test_all_that_is_printed_goes_aside_also_where_it_is_within_another(capfd, is_silent, aside):
    print("before")
    with stdout_aside(), stdout_aside(is_silent=is_silent):
        print_everywhere()
    print_everywhere()
    out, err = capfd.readouterr()
    assert (sorted(out.splitlines()), sorted(err.splitlines())) == (["before", "descriptor", "process", "python"], aside)


def test_whoever_replaces_stdout_or_fails_leaves_it_to_us(capfd, monkeypatch):
    monkeypatch.setattr("sys.stdout", ours := os.fdopen(1, "w", closefd=False))  # Pytest's is not on the descriptor.
    with pytest.raises(ZeroDivisionError), stdout_aside():
        ours.write("known before")
        sys.stdout = None
        raise ZeroDivisionError
    assert sys.stdout is ours
    print("after", flush=True)
    assert capfd.readouterr() == ("after\n", "known before")


def test_where_stdout_is_closed_nothing_fails(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    with stdout_aside():
        print("nobody hears it")
