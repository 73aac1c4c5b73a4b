"""Credentials are hidden wherever they can stand in a text."""

import pytest

from pipeline.masking import masked, secrets_in


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:secret@host:5000/path", "http://***@host:5000/path"),
        ("http://token@host", "http://***@host"),
        ("no route to ssh://me:p%40ss@host:22/a, nor to https://x:y@z", "no route to ssh://***@host:22/a, nor to https://***@z"),
        ("http://me:p@ss@host/a", "http://***@host/a"),
        ("http://me:se/cr?et#@host:5000/path", "http://***@host:5000/path"),
        ("postgresql+psycopg2://me:pa/ss@host/db", "postgresql+psycopg2://***@host/db"),
        ("http://[::1]:5000/path", "http://[::1]:5000/path"),
        ("http://host:5000/path", "http://host:5000/path"),
        ("http://host/a@b", "http://host/a@b"),
        ("s3://bucket/path", "s3://bucket/path"),
        ("mail me@host", "mail me@host"),
    ],
)
def test_what_stands_before_a_host_is_hidden(text: str, shown: str) -> None:
    assert masked(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://host/a?token=hidden&page=2", "https://host/a?token=***&page=2"),
        ("postgresql://host/db?sslmode=require&password=hidden", "postgresql://host/db?sslmode=require&password=***"),
        ("https://host/a?X-Amz-Signature=hidden#part", "https://host/a?X-Amz-Signature=***#part"),
        (
            "Max retries exceeded with url: /api/x?access%5Ftoken=hidden (refused)",
            "Max retries exceeded with url: /api/x?access%5Ftoken=*** (refused)",
        ),
        ("/api/metrics?metric_key=loss", "/api/metrics?metric_key=loss"),
        ("sqlite:///a.db?timeout=60", "sqlite:///a.db?timeout=60"),
    ],
)
def test_tokens_in_queries_are_hidden(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_the_secrets_of_an_address_are_taken_apart() -> None:
    assert {*secrets_in("http://me:a%2Fb@host/?token=c&page=2")} == {"a%2Fb", "a/b", "c"}
    assert secrets_in("http://me:se/cret@host") == ["se/cret"]
    assert secrets_in("http://host:5000/path") == secrets_in("mlflow.db") == []


def test_named_secrets_are_hidden_the_longest_first() -> None:
    assert masked("key abcdef, key abc", ["abc", "abcdef", ""]) == "key ***, key ***"
