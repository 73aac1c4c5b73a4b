"""Where imagination starts for agents that are hardly ever there: at any row that is left to them, however long the replay is."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matwm import replay as module
from matwm.rng import generator_for
from tests.matwm.test_replay import N, counter_step, make_replay, reload, row_numbers


@pytest.fixture(autouse=True, scope="module")
def unlucky():
    """A start that is refused once is searched for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_REJECTIONS", 0)
        yield


def seldom(replay, rows, there, length=9):
    """Add rows of episodes of `length` actions: agent 1 is at rows `there` only and ends truly with its episode, agent 2 is nowhere."""
    for row in range(replay.total_rows, replay.total_rows + rows):
        place = row % (length + 1)
        ends = [False, place >= length - 1, False]
        gone = [2] if row in there else [1, 2]
        replay.add(counter_step(row, is_first=place == 0, is_last=place == length, terminated=ends, gone=gone))
    return replay


def scanned(replay, rng, agents, there):
    """Return the starts that a look at every row finds."""
    rows = range(replay.total_rows - len(replay), replay.total_rows)
    possible = [list(rows), [row for row in rows if row in there and row % 10 != 9], []]
    starts = rng.integers(rows.start, rows.stop, agents.shape)
    for place, agent in enumerate(agents):
        if starts[place] not in possible[agent] and possible[agent]:
            starts[place] = rng.choice(possible[agent])
    return starts


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 90),
    more=st.integers(0, 60),
    capacity=st.integers(2, 40),
    changed=st.integers(2, 60),
    chunk_rows=st.integers(1, 25),
    there=st.sets(st.integers(0, 149)),
)
def test_starts_are_those_that_a_look_at_every_row_finds_also_after_a_restart(rows, more, capacity, changed, chunk_rows, there):
    replay = seldom(make_replay(capacity=capacity, chunk_rows=chunk_rows), rows, there)
    resumed = [reload(replay, capacity=rows_kept, chunk_rows=chunk_rows) for rows_kept in (capacity, changed)]
    used = seldom(make_replay(capacity=capacity, chunk_rows=chunk_rows), more + 20, set(range(80)))
    used.load_state_dict(replay.state_dict())
    for one in (replay, *resumed, used):
        seldom(one, more, there)
        agents = np.repeat(np.arange(N), 12)
        starts = one._draw_starts(generator_for(0, "t", more), agents[:, None])
        assert starts.tolist() == scanned(one, generator_for(0, "t", more), agents, there).tolist()


def test_contexts_of_an_agent_that_is_seldom_there_start_uniformly_and_one_that_never_is_has_none():
    there = {3, 40, 112, 113, 119, 125, 131, 140, 149}  # the oldest row is 110, and at 119 and 149 its episode has ended
    replay = seldom(make_replay(capacity=40, chunk_rows=7), 150, there)
    contexts = replay.sample_contexts(generator_for(0, "t", 0), per_agent=500, length=2)
    starts = row_numbers(contexts)[500:1000, -1].tolist()
    assert contexts.is_valid[:1000, -1].all()
    assert set(starts) == {112, 113, 125, 131, 140}
    assert max(abs(starts.count(row) - 100) for row in set(starts)) < 40  # four and a half standard deviations
    assert not contexts.is_valid[1000:].any()
    assert not contexts.obs[1000:].any()


def test_an_agent_starts_at_the_row_at_which_its_episode_was_cut():
    replay = seldom(make_replay(), 11, {10}, length=11)  # what would have been its last action
    replay.cut()
    for one in (replay, reload(replay)):
        contexts = one.sample_contexts(generator_for(0, "t", 0), per_agent=5, length=1)
        assert row_numbers(contexts)[5:10, -1].tolist() == [10] * 5


class Counted(np.ndarray):
    """Counts the entries that are looked up."""

    looks = 0

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        Counted.looks += np.size(found)
        return found


@pytest.mark.parametrize("rows", [64, 2048])
def test_a_search_looks_at_few_rows(rows, monkeypatch):
    replay = seldom(make_replay(capacity=rows), rows, {0})
    for name in ("alive", "terminated"):
        replay._rows[name] = replay._rows[name].view(Counted)
    replay._starts_before = replay._starts_before.view(Counted)
    monkeypatch.setattr(Counted, "looks", 0)
    agents = np.repeat(np.arange(N), 4)
    starts = replay._draw_starts(generator_for(0, "t", 0), agents[:, None])
    assert starts[4:8].tolist() == [0] * 4
    searches = 4 * (2 + rows.bit_length()) + 4 * 2  # of the seldom agent, and of the one that is nowhere
    assert 0 < Counted.looks <= 2 * len(agents) + searches
