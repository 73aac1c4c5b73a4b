"""The list of runs: what it says, and that it can be read on narrow terminals."""

from datetime import UTC, datetime
from typing import Any

from pipeline.catalog import overview
from pipeline.commands.runs import shown

NOW = datetime(2026, 1, 3, 12, tzinfo=UTC)


def entry(run_id: str, **other: Any) -> dict[str, Any]:
    empty = {"segment": "s00", "status": "FINISHED", "step": 25000, "parent_run_id": None, "parent_step": None, "best": []}
    empty |= {"changed": {}, "not_reproduced": None, "last_sign": "2026-01-01T12:00:00+00:00"}
    return {"run_id": run_id, **empty, **other}


def test_a_table_says_what_there_is() -> None:
    first, second = "0123456789abcdef" * 2, "fedcba9876543210" * 2
    changed = {"actor_critic.learning_rate": "0.0003 -> 0.0001", "world_model.loss_weights.reward": "10.0 -> 1.0"}
    broken = {"points": 3, "first": "loss at step 7 was 1.0 and is 2.0 when computed again"}
    child = entry(
        second, segment="s01", status="KILLED", parent_run_id=first, parent_step=20000, changed=changed, not_reproduced=broken,
        best=[{"step": 24000, "mode": "sampled", "mean": -12.345, "objective": "self_play/agent"}], last_sign="2026-01-03T11:57:00+00:00",
    )  # fmt: skip
    lines = shown([child, entry(first)], NOW).splitlines()
    assert lines[0].split() == ["run", "segment", "state", "step", "parent", "best", "age", "changed"]
    assert lines[2].split() == ["01234567", "s00", "FINISHED", "25000", "-", "-", "2", "d", "-"]
    assert lines[1].endswith("learning_rate=0.0001, reward=1.0"), "all of it"
    assert "s01      KILLED !  25000  01234567@20000  -12.35 at 24000  3 min  learning" in lines[1]
    assert lines[3] == "! fedcba98 is not reproduced: loss at step 7 was 1.0 and is 2.0 when computed again"


def test_ids_are_shown_as_long_as_it_takes_to_tell_them_apart() -> None:
    lines = shown([entry("0" * 12 + "a" * 20), entry("0" * 12 + "b" * 20)], NOW).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["0" * 12 + "a", "0" * 12 + "b"]


def test_an_age_is_told_in_its_largest_unit() -> None:
    moments = ["2026-01-03T11:59:58+00:00", "2026-01-03T11:00:01+00:00", "2026-01-03T10:00:00+00:00", "2025-12-24T12:00:00+00:00", None]
    assert [overview.age(moment, NOW) for moment in moments] == ["2 s", "59 min", "2 h", "10 d", "-"]


def test_what_was_not_reproduced_is_known_to_mlflow_or_to_git() -> None:
    tags = {"matwm.not_reproduced": "x", "matwm.not_reproduced_points": "2"}
    assert overview.not_reproduced(tags, {}) == {"points": 2, "first": "x"}
    assert overview.not_reproduced({}, {"not_reproduced": {"points": 2, "first": "x"}}) == {"points": 2, "first": "x"}
    assert overview.not_reproduced({}, {"not_reproduced": {"points": 0, "first": None}}) is None
