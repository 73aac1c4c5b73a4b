"""Checks every shape annotation of the method while tests run, and keeps torch to one thread."""

from collections.abc import Iterator

import pytest
import torch
from jaxtyping import install_import_hook

CHECKED = (
    "types",
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
)
# The rest of matwm has no shapes. An int is a float to people and to type checkers, hence the tower.
TYPECHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"

install_import_hook([f"matwm.{name}" for name in CHECKED], TYPECHECKER)
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _subnormal_floats() -> Iterator[None]:
    """Training flushes them to zero, for the whole thread: the next test must not notice."""
    yield
    torch.set_flush_denormal(False)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-golden", action="store_true", help="record the golden numbers anew (tests/matwm/test_golden.py)")
    parser.addoption("--record-golden-checkpoint", action="store_true", help="… and checkpoint (tests/matwm/test_golden_checkpoint.py)")


def pytest_sessionstart(session: pytest.Session) -> None:
    if session.config.getoption("--record-golden"):
        from tests.matwm import test_golden

        test_golden.record()
    if session.config.getoption("--record-golden-checkpoint"):
        from tests.matwm import test_golden_checkpoint

        test_golden_checkpoint.record()
