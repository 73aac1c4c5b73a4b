"""Checks every shape annotation of the method while its tests run, keeps torch to one thread, and the surroundings out of the tests."""

import signal
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

from tests import tiers

CHECKED = (
    "types",
    "batches",
    "nets",
    "world_model",
    "actor_critic",
    "imagination",
    "acting",
    "learner",
    "replay",
    "mirror",
    "readings",
    "collector",
    "evaluation",
    "policy",
    "program",
)
# The rest of matwm has no shapes. An int is a float to people and to type checkers, hence the tower.
TYPECHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"

install_import_hook([f"matwm.{name}" for name in CHECKED], TYPECHECKER)
torch.set_num_threads(1)
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a slow one is no mistake
settings.load_profile("any machine")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Check shapes in the tests of the method, which takes half of their time; all others train by the functions that these check."""
    jaxtyping.config.update("jaxtyping_disable", Path(__file__).with_name("matwm") not in item.path.parents)


@pytest.fixture(autouse=True)
def _subnormal_floats() -> Iterator[None]:
    """Training flushes them to zero, for the whole thread: the next test must not notice."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(autouse=True)
def _heeded_signals() -> Iterator[None]:
    """A job that a shell started in the background ignores SIGINT, and so would these tests in it and what they start."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if before[number] is signal.SIG_IGN:
            signal.signal(number, usual)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="leave out what tests/tiers.py lists")
    parser.addoption("--record-golden", action="store_true", help="record the golden numbers anew (tests/matwm/test_golden.py)")
    parser.addoption("--record-golden-checkpoint", action="store_true", help="… and checkpoint (tests/matwm/test_golden_checkpoint.py)")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--quick"):
        config.pluginmanager.register(tiers.Quick())


def pytest_sessionstart(session: pytest.Session) -> None:
    if session.config.getoption("--record-golden"):
        from tests.matwm import test_golden

        test_golden.record()
    if session.config.getoption("--record-golden-checkpoint"):
        from tests.matwm import test_golden_checkpoint

        test_golden_checkpoint.record()
