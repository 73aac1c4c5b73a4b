"""Credentials are hidden wherever they can stand in a text."""

import pytest

from pipeline.masking import masked


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:secret@host:5000/path", "http://***@host:5000/path"),
        ("http://token@host", "http://***@host"),
        ("no route to ssh://me:p%40ss@host:22/a, nor to https://x:y@z", "no route to ssh://***@host:22/a, nor to https://***@z"),
        ("http://me:p@ss@host/a", "http://***@host/a"),
        ("http://host/a@b", "http://host/a@b"),
        ("s3://bucket/path", "s3://bucket/path"),
        ("mail me@host", "mail me@host"),
    ],
)
def test_what_stands_before_a_host_is_hidden(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_named_secrets_are_hidden_the_longest_first() -> None:
    assert masked("key abcdef, key abc", ["abc", "abcdef", ""]) == "key ***, key ***"
