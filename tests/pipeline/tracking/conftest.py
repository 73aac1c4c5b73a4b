"""What tests of tracking share."""

from pathlib import Path

import pytest


@pytest.fixture(params=["database", "server"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A project whose runs go to a database of its own, or to a real server."""
    if request.param == "database":
        return request.getfixturevalue("root")
    request.getfixturevalue("server")
    return tmp_path
