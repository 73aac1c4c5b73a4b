"""Chooses the newcomer's run: `make test` passes `--quick`, `make test-all` runs everything.

A path names a file, a folder or one test; what begins with it runs in `make test-all` alone.
"""

import pytest

ONLY_IN_TEST_ALL = (
    "tests/benchmarks/",
    "tests/matwm/envs/test_base.py",
    "tests/matwm/envs/test_butterfly.py",
    "tests/matwm/envs/test_guest.py",
    "tests/matwm/envs/test_meltingpot.py",
    "tests/matwm/envs/test_pettingzoo.py",
    "tests/matwm/envs/test_smac.py",
    "tests/matwm/envs/test_smax",
    "tests/matwm/test_config.py",
    "tests/matwm/test_cross_play.py",
    "tests/matwm/test_evaluation.py",
    "tests/matwm/test_graphs.py",
    "tests/matwm/test_learning.py",
    "tests/matwm/test_open_loop.py",
    "tests/matwm/test_program.py",
    "tests/matwm/test_trainer.py",
    "tests/pipeline/catalog/test_catalog.py",
    "tests/pipeline/catalog/test_compare.py",
    "tests/pipeline/catalog/test_pruning.py",
    "tests/pipeline/commands/",
    "tests/pipeline/metrics/test_mismatches.py",
    "tests/pipeline/params/test_estimate.py",
    "tests/pipeline/params/test_retention.py",
    "tests/pipeline/stores/test_contract.py",
    "tests/pipeline/test_cli.py",
    "tests/pipeline/test_database.py",
    "tests/pipeline/test_dvc.py",
    "tests/pipeline/test_evaluate.py",
    "tests/pipeline/test_faults.py",
    "tests/pipeline/test_imports.py",
    "tests/pipeline/test_keep.py",
    "tests/pipeline/test_kill.py",
    "tests/pipeline/test_machines.py",
    "tests/pipeline/test_mid_episode.py",
    "tests/pipeline/test_notebook.py",
    "tests/pipeline/test_patience.py",
    "tests/pipeline/test_population.py",
    "tests/pipeline/test_pure.py::test_no_command_parses_them_twice",
    "tests/pipeline/test_search.py",
    "tests/pipeline/test_stopping.py",
    "tests/pipeline/test_sweep.py",
    "tests/pipeline/test_numerics.py",
    "tests/pipeline/test_train.py",
    "tests/pipeline/test_validate.py",
    "tests/pipeline/test_words.py",
    "tests/pipeline/training/test_inheritance.py",
    "tests/pipeline/tracking/test_tracker.py",
    "tests/pipeline/training/test_saving.py",
    "tests/test_demo.py",
)
IN_BOTH = ("tests/pipeline/test_dvc.py::test_a_killed_training_goes_on_in_the_same_run_and_ends_the_same",)
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
