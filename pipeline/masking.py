"""Hides credentials in whatever is shown or kept."""

import re
from collections.abc import Iterable
from urllib.parse import unquote

HIDDEN = "***"
SECRET_NAMES = ("pass", "pwd", "secret", "token", "api_key", "apikey", "access_key", "accesskey", "customer_key", "account_key")
SECRET_NAMES += ("connection_string", "signature", "credential", "authorization")
"""Parts of the names of parameters and options whose values are nobody's business."""
SECRET_WHOLE_NAMES = ("key", "sig", "sas", "auth")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"`<>]+")
_PARAMETER = re.compile(r"(?<=[?&;])([^\s'\"`<>&=?;]+)=([^\s'\"`<>&#;]+)")


def masked(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text with `***` for user and password in its URLs, for tokens in their queries, and for each of the secrets."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _URL.sub(lambda found: _without_user(found[0]), text)
    return _PARAMETER.sub(lambda found: f"{found[1]}={HIDDEN}" if is_secret(found[1]) else found[0], text)


def secrets_in(url: str) -> list[str]:
    """Return the password and the tokens of a URL, as they stand there and decoded: an error may quote either, without the URL."""
    _, separator, rest = url.partition("://")
    if not separator:
        return []
    found = [_user(rest).partition(":")[2]]
    found += [match[2] for match in _PARAMETER.finditer(url) if is_secret(match[1])]
    return [secret for raw in found if raw for secret in {raw, unquote(raw)}]


def is_secret(name: str) -> bool:
    """Return whether the value of a query's parameter, or of a remote's option, is nobody's business."""
    name = unquote(name).lower()
    return name in SECRET_WHOLE_NAMES or any(part in name for part in SECRET_NAMES)


def _without_user(url: str) -> str:
    scheme, _, rest = url.partition("://")
    user = _user(rest)
    return f"{scheme}://{HIDDEN}{rest[len(user) :]}" if user else url


def _user(rest: str) -> str:
    """Return what stands before a URL's host. A slash, ? or # in a password that is not encoded ends the host too early for `urlsplit`."""
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    return rest.rpartition("@")[0] if "@" in host or (":" in host and not host.startswith("[")) else ""
