"""Hides credentials in whatever is shown or kept."""

import re
from collections.abc import Iterable

USER = re.compile(r"(?<=://)[^/\s'\"]+@")
HIDDEN = "***"


def masked(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text with `***` for what stands before the @ in its URLs, and for each of the secrets."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return USER.sub(f"{HIDDEN}@", text)
