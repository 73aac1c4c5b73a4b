"""Chooses the newcomer's run: `make test` passes `--quick`, `make test-all` runs everything.

A path names a file, a folder or one test; what begins with it runs in `make test-all` alone.
"""

import pytest

ONLY_IN_TEST_ALL: tuple[str, ...] = ()
IN_BOTH: tuple[str, ...] = ()
"""Exceptions: tests of those files that a newcomer's run should have."""


def is_quick(node_id: str) -> bool:
    """Return whether the newcomer's run has a test."""
    return node_id.startswith(IN_BOTH) or not node_id.startswith(ONLY_IN_TEST_ALL)


class Quick:
    """The plugin behind `--quick`: deselects the other tests, and says after pytest's closing line how many there are."""

    def __init__(self) -> None:
        self.left_out = 0

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if is_quick(item.nodeid)]
        left_out = [item for item in items if not is_quick(item.nodeid)]
        self.left_out = len(left_out)
        config.hook.pytest_deselected(items=left_out)
        items[:] = chosen

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):  # a worker of xdist collects and reports to the process that started it
            session.config.workeroutput["left_out"] = self.left_out

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        self.left_out = getattr(node, "workeroutput", {}).get("left_out", self.left_out)

    def pytest_unconfigure(self, config: pytest.Config) -> None:
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and not hasattr(config, "workeroutput"):
            reporter.write_line(f"make test-all runs {self.left_out:,} more")
