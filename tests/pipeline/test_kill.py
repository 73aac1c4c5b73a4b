"""The kill harness, in short: what `benchmarks/kill_test.py` does a hundred times."""

import signal
from pathlib import Path

import numpy as np

from benchmarks.kill_test import run, summary
from tests.pipeline.kill_checks import Outcome, differences
from tests.pipeline.kill_harness import STOPS, plan
from tests.pipeline.killing import HALVES


def test_a_training_killed_anywhere_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    kills = [("saving", "trainer"), ("uploading", "both"), ("training", "dvc"), ("publishing", "both"), ("recording", "dvc")]
    result = run(tmp_path, kills, STOPS, until=700, is_held=True)
    text = summary({**result, "seconds": 0.0, "seed": 0})
    assert result["wrong"] == [], text
    assert [stop["exit_code"] for stop in result["stops"]] == [128 + signal.SIGTERM, 128 + signal.SIGINT], text
    left_half = {kill["aimed"]: kill["halves"] for kill in result["kills"]}
    assert all(instant in left_half[instant] for instant in HALVES), text


def test_the_harness_notices_what_would_be_wrong() -> None:
    reference = Outcome("f", "h", {("loss", 1): 0.5, ("time/rate", 1): 9.0, ("checkpoint/seconds", 2): 1.0}, ["FINISHED"], 0)
    same = Outcome("f", "h", {("loss", 1): 0.5, ("time/rate", 1): 7.0}, ["FINISHED"], 0)
    assert differences(same, reference) == []
    other = Outcome("g", "i", {("loss", 1): 0.6, ("loss", 2): 0.5}, ["FINISHED", "RUNNING"], 3)
    assert len(differences(other, reference)) == 7


def test_a_plan_has_every_instant_and_as_many_kills_as_asked_for() -> None:
    for kills in (1, 7, 20, 100):
        assert len(plan(kills, np.random.default_rng(0))) == kills
    names = [instant for instant, _ in plan(100, np.random.default_rng(0))]
    assert {name: names.count(name) for name in set(names)} == {
        "warm-up": 4, "start-up": 15, "training": 33, "saving": 22, "uploading": 16, "publishing": 8, "recording": 2
    }  # fmt: skip
