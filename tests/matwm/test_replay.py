import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from matwm import replay as module
from matwm.batches import Windows
from matwm.config import ReplayConfig
from matwm.replay import Replay
from matwm.rng import generator_for
from matwm.stateful import Chunk, encode_chunk, fingerprint
from matwm.types import NO_ACTION, EnvSpec, Step

N = 3
SPEC = EnvSpec(name="counter", agents=("a_0", "a_1", "b_0"), obs_sizes=(2, 2, 1), num_actions=(4, 4, 3))


def config(capacity=200, decay=0.99, chunk_rows=16):
    return ReplayConfig(capacity=capacity, recency_decay=decay, chunk_rows=chunk_rows)


def make_replay(spec=SPEC, **changes):
    return Replay(spec, config(**changes))


def counter_step(row, *, is_first=False, is_last=False, terminated=None, gone=(), spec=SPEC):
    """Row r of agent i shows r + 1000 i; its action is (r + i) modulo its actions, its reward 10 r + action."""
    n = spec.num_agents
    agents = np.arange(n)
    obs = np.zeros((n, spec.obs_size), np.float32)
    obs[:, 0] = row + 1000 * agents
    action = np.full(n, NO_ACTION) if is_last else (row + agents) % np.array(spec.num_actions)
    return Step(
        obs=obs,
        action_mask=spec.action_exists.copy(),
        action=action,
        reward=np.zeros(n, np.float32) if is_last else (10 * row + action).astype(np.float32),
        terminated=np.zeros(n, bool) if terminated is None else np.array(terminated),
        alive=~np.isin(agents, gone),
        is_first=is_first,
        is_last=is_last,
    )


def fill(replay, rows, *, length=25, ending=None, spec=SPEC):
    """Add rows of episodes of `length` actions (length + 1 rows); `ending`: who truly terminates with the last action."""
    for row in range(replay.total_rows, replay.total_rows + rows):
        place = row % (length + 1)
        ends = ending if place >= length - 1 else None
        replay.add(counter_step(row, is_first=place == 0, is_last=place == length, terminated=ends, spec=spec))
    return replay


def row_numbers(windows: Windows):
    return (windows.obs[..., 0] - 1000 * windows.agent[:, None]).long()


def equal(left: Windows, right: Windows):
    return all(torch.equal(getattr(left, name), getattr(right, name)) for name in vars(left))


# ---- rows


def test_an_episode_that_cannot_go_on_is_cut_like_one_that_ran_out_of_time():
    """The newest row keeps its observation; what its action led to is nobody's to learn, in memory and in what is saved."""
    for rows in (15, 16):  # the chunk that holds the row is partial, or full and perhaps named already
        replay = fill(make_replay(), rows)
        before = replay.state_dict()
        encode_chunk(before["chunks"][-1])
        replay.cut()
        fingerprints = [fingerprint({"replay": one.state_dict()}) for one in (replay, reload(replay))]
        assert fingerprints[0] == fingerprints[1] != fingerprint({"replay": before})
        replay.cut()
        replay.add(counter_step(rows, is_first=True))
        windows, _ = replay.sample_windows(generator_for(0, "t", 0), per_agent=1, length=rows + 1)
        assert row_numbers(windows)[0].tolist() == list(range(rows + 1))
        assert windows.action[:, rows - 1].eq(NO_ACTION).all()
        assert windows.action[:, rows - 2].ne(NO_ACTION).all()
        assert not windows.reward[:, rows - 1].any()
        assert windows.continues.eq(1).all()
    empty = make_replay()
    empty.cut()
    assert len(empty) == 0


def test_images_are_kept_as_bytes():
    spec = EnvSpec("pictures", ("a_0", "b_0"), (12, 12), (2, 2), image_shape=(3, 2, 2))
    replay = Replay(spec, config())
    for row in range(20):
        obs = np.full((2, 3, 2, 2), row, np.uint8)
        ones = np.ones(2, bool)
        replay.add(
            Step(obs, spec.action_exists, np.zeros(2, np.int64), np.zeros(2, np.float32), ~ones, ones, is_first=row == 0, is_last=False)
        )
    other = Replay(spec, config())
    other.load_state_dict(replay.state_dict())
    assert other.recent(1)[0].dtype == np.uint8
    assert replay.recent(2)[0][:, 1, 2, 1, 1].tolist() == other.recent(2)[0][:, 1, 2, 1, 1].tolist() == [18, 19]


def test_observation_action_and_reward_of_a_row_stay_together_for_every_focal_agent():
    replay = fill(make_replay(), 150)
    windows, described = replay.sample_windows(generator_for(0, "t", 0), per_agent=2, length=30)
    assert described["overlaps"] == 0
    assert windows.agent.tolist() == [0, 0, 1, 1, 2, 2]
    assert windows.is_valid.all()
    rows = row_numbers(windows)
    assert torch.equal(rows, rows[:, :1] + torch.arange(30))
    is_last = rows % 26 == 25
    assert torch.equal(windows.is_first, rows % 26 == 0)
    for line, agent in enumerate(windows.agent.tolist()):
        words = [(rows[line] + other) % SPEC.num_actions[other] for other in range(N)]
        expected = [torch.where(is_last[line], NO_ACTION, word) for word in words]
        assert torch.equal(windows.action[line], expected[agent])
        assert torch.equal(windows.reward[line], torch.where(is_last[line], 0, 10 * rows[line] + expected[agent]).float())
        for slot, mate in enumerate(SPEC.mates(agent)):
            assert torch.equal(windows.mate_actions[line, :, slot], expected[mate])
        assert torch.equal(windows.action_mask[line], torch.from_numpy(SPEC.action_exists[agent]).expand(30, -1))
    assert windows.continues.eq(1).all()


def test_a_time_limit_continues_and_a_true_termination_does_not():
    replay = fill(make_replay(), 104, ending=[True, False, True])
    windows, _ = replay.sample_windows(generator_for(0, "t", 0), per_agent=3, length=26)
    ends = row_numbers(windows) % 26 == 24
    ends &= torch.tensor([0] * 3 + [1] * 3 + [0] * 3)[:, None].eq(0)
    assert ends.any()
    assert torch.equal((windows.continues == 0) & windows.is_valid, ends)


def test_a_single_agent_has_no_mates():
    spec = EnvSpec(name="alone", agents=("a_0",), obs_sizes=(3,), num_actions=(5,))
    replay = fill(make_replay(spec), 60, spec=spec)
    windows, _ = replay.sample_windows(generator_for(0, "t", 0), per_agent=2, length=8)
    assert windows.mate_actions.shape == (2, 8, 0)
    assert replay.sample_contexts(generator_for(0, "t", 0), per_agent=5, length=4).mate_actions.shape == (5, 4, 0)


def test_what_is_added_is_copied():
    replay, step = make_replay(), counter_step(0, is_first=True)
    replay.add(step)
    step.obs[:] = 77
    windows, _ = replay.sample_windows(generator_for(0, "t", 0), per_agent=1, length=1)
    assert row_numbers(windows).tolist() == [[0], [0], [0]]


# ---- windows


@pytest.mark.parametrize("decay", [0.97, 1.0])
def test_windows_start_with_the_probability_decay_to_the_age(decay):
    """Chi-square over all starts, one window a draw, since rejecting overlaps bends the distribution."""
    replay = fill(make_replay(decay=decay, capacity=120), 300)
    draws, length = 6000, 11
    rng = generator_for(1, "t", 0)
    counts = np.zeros(110)
    for _ in range(draws // N):
        windows, _ = replay.sample_windows(rng, per_agent=1, length=length)
        np.add.at(counts, 300 - length - row_numbers(windows)[:, 0].numpy(), 1)
    expected = decay ** np.arange(110)
    expected *= draws / expected.sum()
    groups = np.minimum(np.cumsum(expected) // 60, (draws - 60) // 60).astype(int)  # at least about 60 expected in each
    observed, wanted = np.bincount(groups, counts), np.bincount(groups, expected)
    chi_square = ((observed - wanted)[wanted > 0] ** 2 / wanted[wanted > 0]).sum()
    degrees = (wanted > 0).sum() - 1
    assert counts.sum() == draws
    assert chi_square < degrees + 4 * math.sqrt(2 * degrees)


@settings(deadline=None, max_examples=40)
@given(
    capacity=st.integers(40, 90),
    chunk_rows=st.integers(1, 100),
    rows=st.integers(40, 300),
    length=st.integers(1, 40),
    per_agent=st.integers(1, 4),
    decay=st.sampled_from([1e-9, 0.5, 0.9998, 1.0]),
)
def test_windows_hold_consecutive_valid_rows_and_overlap_only_if_counted(capacity, chunk_rows, rows, length, per_agent, decay):
    replay = fill(make_replay(capacity=capacity, chunk_rows=chunk_rows, decay=decay), rows)
    windows, described = replay.sample_windows(generator_for(rows, "t", 0), per_agent=per_agent, length=length)
    found = row_numbers(windows)
    assert torch.equal(found, found[:, :1] + torch.arange(length))
    assert found.min() >= max(0, rows - capacity)
    assert found.max() < rows
    starts = found[:, 0].reshape(N, per_agent)
    late = sum(
        bool((starts[agent, number] - starts[agent, :number]).abs().lt(length).any()) for agent in range(N) for number in range(per_agent)
    )
    assert late == described["overlaps"]
    assert described["age"] == pytest.approx(rows - 1 - found.double().mean().item())


def test_windows_for_which_there_is_no_room_are_counted_and_not_waited_for():
    replay = fill(make_replay(), 40)
    windows, described = replay.sample_windows(generator_for(0, "t", 0), per_agent=4, length=30)
    assert windows.agent.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert described["overlaps"] == 9  # two windows of 30 cannot lie in 40 rows: three of four overlap, for each agent


def test_a_replay_knows_when_a_window_fits():
    replay = make_replay()
    assert not replay.can_sample_windows(1)
    fill(replay, 9)
    assert replay.can_sample_windows(9)
    assert not replay.can_sample_windows(10)


def test_a_draw_depends_on_nothing_but_the_generator_and_the_rows():
    replay = fill(make_replay(), 150)
    first, _ = replay.sample_windows(generator_for(3, "t", 5), per_agent=2, length=10)
    replay.sample_contexts(generator_for(9, "t", 0), per_agent=4, length=3)
    second, _ = replay.sample_windows(generator_for(3, "t", 5), per_agent=2, length=10)
    other, _ = replay.sample_windows(generator_for(3, "t", 6), per_agent=2, length=10)
    assert equal(first, second)
    assert not equal(first, other)


# ---- contexts


def test_contexts_are_left_padded_and_stay_in_the_episode_of_their_last_row():
    replay = fill(make_replay(), 150)
    windows = replay.sample_contexts(generator_for(0, "t", 0), per_agent=400, length=8)
    assert windows.agent.tolist() == [0] * 400 + [1] * 400 + [2] * 400
    assert windows.is_valid[:, -1].all()
    starts = row_numbers(windows)[:, -1]
    rows = starts[:, None] + torch.arange(-7, 1)
    assert torch.equal(windows.is_valid, rows >= (starts - starts % 26)[:, None])
    assert torch.equal(row_numbers(windows)[windows.is_valid], rows[windows.is_valid])
    assert torch.equal(windows.is_first, (rows % 26 == 0) & windows.is_valid)
    padding = ~windows.is_valid
    assert padding.any()
    assert windows.action[padding].eq(NO_ACTION).all()
    assert windows.mate_actions[padding].eq(NO_ACTION).all()
    for name in ("obs", "action_mask", "reward", "continues"):
        assert getattr(windows, name)[padding].eq(0).all(), name


def test_contexts_start_uniformly_at_every_row_also_the_first_and_last_of_truncated_episodes():
    replay = fill(make_replay(capacity=52, chunk_rows=10), 26 * 5)
    windows = replay.sample_contexts(generator_for(0, "t", 0), per_agent=2000, length=3)
    counts = torch.bincount(row_numbers(windows)[:, -1] - 78, minlength=52).numpy()
    assert len(counts) == 52
    expected = 6000 / 52
    assert ((counts - expected) ** 2 / expected).sum() < 51 + 4 * math.sqrt(2 * 51)


def test_no_context_starts_after_the_true_termination_of_its_agent():
    replay = fill(make_replay(), 130, length=9, ending=[True, False, True])
    windows = replay.sample_contexts(generator_for(0, "t", 0), per_agent=600, length=4)
    at_end = row_numbers(windows)[:, -1].reshape(N, 600) % 10 == 9
    assert not at_end[0].any()
    assert at_end[1].any()
    assert not at_end[2].any()
    before_end = row_numbers(windows)[:, -1].reshape(N, 600) % 10 == 8
    assert before_end[0].any()


@pytest.mark.parametrize("ending", [None, [True, True, True], [True, False, True]])
def test_every_transition_also_the_last_one_of_an_ending_is_a_target(ending):
    replay = fill(make_replay(), 104, ending=ending)
    windows, _ = replay.sample_windows(generator_for(0, "t", 0), per_agent=1, length=104)
    assert windows.is_valid.all()
    assert torch.equal(windows.action == NO_ACTION, row_numbers(windows) % 26 == 25)
    assert torch.equal(row_numbers(windows), torch.arange(104).expand(N, -1))


def test_where_an_episode_ended_nothing_ends_again_and_nobody_says_what_is_legal():
    replay = make_replay()
    replay.add(counter_step(0, is_first=True))
    replay.add(counter_step(1, is_last=True, terminated=[True, False, True], gone=[2]))
    starts = row_numbers(replay.sample_contexts(generator_for(0, "t", 0), per_agent=50, length=1)).reshape(N, 50)
    assert starts[0].eq(0).all()
    assert set(starts[1].tolist()) == {0, 1}
    assert starts[2].eq(0).all()
    for one in (replay, reload(replay)):
        windows, _ = one.sample_windows(generator_for(0, "t", 0), per_agent=1, length=2)
        assert windows.continues[windows.is_valid].eq(1).all()  # the row has no action that could have ended anything
        assert windows.is_valid.tolist() == [[True, True], [True, True], [True, False]]
        assert windows.action_mask.any(-1).tolist() == [[True, False], [True, True], [True, False]]


def test_the_newest_rows_can_be_asked_for():
    replay = fill(make_replay(capacity=20, chunk_rows=8), 45, length=100)
    obs, action = replay.recent(3)
    assert obs[:, 1, 0].tolist() == [1042, 1043, 1044]
    assert action[:, 2].tolist() == [(row + 2) % 3 for row in (42, 43, 44)]
    obs, _ = reload(replay, capacity=4, chunk_rows=8).recent(6)
    assert obs[:, 1, 0].tolist() == [1040, 1041, 1042, 1043, 1044], "as many as are here"


def test_an_agent_that_left_early_starts_no_context_until_the_next_episode():
    replay = make_replay()
    for row in range(60):
        place = row % 20
        gone = [1] if place > 4 else []
        replay.add(counter_step(row, is_first=place == 0, is_last=place == 19, terminated=[False, place >= 4, False], gone=gone))
    places = row_numbers(replay.sample_contexts(generator_for(0, "t", 0), per_agent=500, length=2))[:, -1].reshape(N, 500) % 20
    assert set(places[0].tolist()) == set(range(20))
    counts = torch.bincount(places[1], minlength=20)
    assert counts[5:].sum() == 0
    assert (counts[:5] - 100).abs().max() < 40  # four and a half standard deviations


def early_leaver(junk=0):
    """Agent 1 dies by its action at place 4 of episodes of 19 actions; what is stored of it afterwards is anything."""
    replay = make_replay()
    for row in range(100):
        place = row % 20
        gone = [1] if place > 4 else []
        step = counter_step(row, is_first=place == 0, is_last=place == 19, terminated=[False, place >= 4, False], gone=gone)
        if gone:
            step.obs[1], step.reward[1], step.action_mask[1] = junk, junk, bool(junk)
            step.action[1] = junk if place < 19 else NO_ACTION
        replay.add(step)
    return replay


def test_rows_of_the_dead_are_padding_and_a_dead_mate_has_no_action():
    windows, _ = early_leaver().sample_windows(generator_for(0, "t", 0), per_agent=1, length=60)
    assert windows.is_valid[[0, 2]].all()
    assert windows.is_valid[1].sum() == 60 * 5 / 20
    place = row_numbers(windows)[1][windows.is_valid[1]] % 20
    assert place.max() == 4
    assert torch.equal(windows.continues[1][windows.is_valid[1]] == 0, place == 4)
    assert windows.continues[[0, 2]].eq(1).all()
    for line in (0, 2):
        slot = SPEC.mates(line).index(1)
        assert torch.equal(windows.mate_actions[line, :, slot] == NO_ACTION, row_numbers(windows)[line] % 20 > 4)
        others = windows.mate_actions[line, :, 1 - slot]
        assert torch.equal(others == NO_ACTION, row_numbers(windows)[line] % 20 == 19)


def test_what_is_stored_of_the_dead_comes_out_nowhere():
    plain, junk = early_leaver(), early_leaver(junk=2)
    assert fingerprint({"replay": plain.state_dict()}) != fingerprint({"replay": junk.state_dict()})
    windows = [one.sample_windows(generator_for(0, "t", 0), per_agent=2, length=24)[0] for one in (plain, junk)]
    contexts = [one.sample_contexts(generator_for(0, "t", 0), per_agent=40, length=4) for one in (plain, junk)]
    assert equal(*windows)
    assert equal(*contexts)
    assert not windows[0].is_valid.all()
    assert contexts[0].is_valid[:, -1].all()


def test_the_one_row_left_to_an_agent_is_found_and_without_any_its_contexts_are_padding():
    replay = make_replay(capacity=500)
    for row in range(500):
        replay.add(counter_step(row, is_first=row == 0, terminated=[False, row == 0, False], gone=[1] if row else []))
    windows = replay.sample_contexts(generator_for(0, "t", 0), per_agent=3, length=2)
    assert row_numbers(windows)[3:6, -1].tolist() == [0, 0, 0]
    replay.add(counter_step(500, gone=[1]))
    windows = replay.sample_contexts(generator_for(0, "t", 0), per_agent=3, length=2)
    assert windows.is_valid[:, -1].tolist() == [True] * 3 + [False] * 3 + [True] * 3
    assert not windows.is_valid[3:6].any()
    for name in ("obs", "reward", "continues", "action_mask"):
        assert not getattr(windows, name)[3:6].any(), name


def test_the_row_at_which_an_agent_has_ended_starts_nothing_if_it_is_all_that_is_left():
    replay = make_replay(capacity=3)
    for row in range(5):
        replay.add(counter_step(row, is_first=row == 0, is_last=row == 4, terminated=[row == 4] + [False] * 2, gone=[0] if row < 4 else []))
    windows = replay.sample_contexts(generator_for(0, "t", 0), per_agent=2, length=2)
    assert windows.is_valid[:, -1].tolist() == [False] * 2 + [True] * 4
    assert not windows.is_valid[:2].any()


def test_a_context_never_reaches_beyond_the_oldest_valid_row():
    replay = fill(make_replay(capacity=20, chunk_rows=7), 110, length=1000)
    windows = replay.sample_contexts(generator_for(0, "t", 0), per_agent=300, length=8)
    starts = row_numbers(windows)[:, -1]
    assert starts.min() == 90
    assert torch.equal(windows.is_valid.sum(1), torch.clamp(starts - 89, max=8))


def test_an_episode_cut_off_by_a_restart_separates_from_the_next():
    replay = make_replay()
    for row in range(12):
        replay.add(counter_step(row, is_first=row in (0, 6)))
    windows = replay.sample_contexts(generator_for(0, "t", 0), per_agent=200, length=12)
    starts = row_numbers(windows)[:, -1]
    assert torch.equal(windows.is_valid.sum(1), starts % 6 + 1)


def test_an_episode_that_begins_in_the_middle_is_a_bug():
    replay = make_replay()
    with pytest.raises(AssertionError):
        replay.add(counter_step(0))
    replay.add(counter_step(0, is_first=True))
    replay.add(counter_step(1, is_last=True))
    with pytest.raises(AssertionError):
        replay.add(counter_step(2))


# ---- state


def reload(replay, **changes):
    other = make_replay(**changes)
    other.load_state_dict(replay.state_dict())
    return other


def same_future(left, right, rows=37):
    """Both give the same draws and the same state, now and after more rows, whose episodes go on where they were."""
    for _ in range(2):
        draws = [
            (
                replay.sample_windows(generator_for(1, "t", 0), per_agent=2, length=5)[0],
                replay.sample_contexts(generator_for(1, "t", 1), per_agent=50, length=6),
            )
            for replay in (left, right)
        ]
        assert all(equal(one, two) for one, two in zip(*draws, strict=True))
        assert fingerprint({"replay": left.state_dict()}) == fingerprint({"replay": right.state_dict()})
        assert len(left) == len(right)
        fill(left, rows, length=9, ending=[True, False, False])
        fill(right, rows, length=9, ending=[True, False, False])


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(6, 200), capacity=st.integers(6, 70), chunk_rows=st.integers(1, 80))
def test_a_restored_replay_has_the_same_future(rows, capacity, chunk_rows):
    shape = {"capacity": capacity, "chunk_rows": chunk_rows}
    replay = fill(make_replay(**shape), rows, length=9, ending=[True, False, False])
    same_future(replay, reload(replay, **shape))


def test_an_agent_whose_termination_has_left_the_replay_is_still_gone_after_a_restart():
    replay = make_replay(capacity=20, chunk_rows=4)
    for row in range(100):
        replay.add(counter_step(row, is_first=row in (0, 95), terminated=[False, row == 3, False], gone=[1] if 3 < row < 95 else []))
    restored = reload(replay, capacity=20, chunk_rows=4)
    for one in (replay, restored):
        starts = row_numbers(one.sample_contexts(generator_for(0, "t", 0), per_agent=50, length=1)).reshape(N, 50)
        assert set(starts[1].tolist()) == set(range(95, 100))


def test_chunks_have_fixed_borders_and_the_oldest_is_whole():
    replay = fill(make_replay(capacity=20, chunk_rows=8), 45)
    state = replay.state_dict()
    assert state["total_rows"] == 45
    assert [len(chunk.arrays["reward"]) for chunk in state["chunks"]] == [8, 8, 5]  # valid rows are 25 to 44
    assert [int(chunk.arrays["obs"][0, 0, 0]) for chunk in state["chunks"]] == [24, 32, 40]


def test_full_chunks_are_the_same_objects_until_they_leave():
    replay = fill(make_replay(capacity=20, chunk_rows=8), 45)
    first = replay.state_dict()["chunks"]
    fill(replay, 3)
    second = replay.state_dict()["chunks"]
    assert second[0] is first[0]
    assert second[1] is first[1]
    assert second[2] is not first[2]
    fill(replay, 4)  # the oldest valid row is now 32
    assert replay.state_dict()["chunks"][0] is first[1]


def test_a_chunk_does_not_change_when_rows_are_added():
    replay = fill(make_replay(capacity=20, chunk_rows=8), 45)
    chunks = replay.state_dict()["chunks"]
    before = [encode_chunk(Chunk(chunk.arrays)) for chunk in chunks]
    fill(replay, 200)
    assert [encode_chunk(chunk) for chunk in chunks] == before


def test_rows_are_copied_when_they_are_about_to_be_overwritten_and_only_for_chunks_in_somebodys_hands(monkeypatch):
    copies, copy = [], module._copies
    monkeypatch.setattr(module, "_copies", lambda arrays: copies.append(int(arrays["obs"][0, 0, 0])) or copy(arrays))
    replay = fill(make_replay(capacity=20, chunk_rows=8), 45)
    chunks = replay.state_dict()["chunks"]
    fill(replay, 11)  # the storage has four chunks: rows 24 to 55 are all still there
    assert copies == []
    fill(replay, 1)
    assert copies == [24]
    del chunks[1]
    fill(replay, 24)
    assert copies == [24, 40]
    assert [chunk.arrays["obs"][0, 0, 0] for chunk in chunks] == [24, 40]
    assert chunks[0].arrays["obs"] is chunks[0].arrays["obs"], "what is kept is not copied again"


@settings(deadline=None, max_examples=30)
@given(
    rows=st.integers(1, 100), capacity=st.integers(6, 40), chunk_rows=st.integers(1, 50), pauses=st.lists(st.integers(0, 60), max_size=6)
)
def test_a_state_stays_the_same_whenever_it_is_read(rows, capacity, chunk_rows, pauses):
    """Each chunk is read at another time, also after the ring has gone round twice."""
    replay = fill(make_replay(capacity=capacity, chunk_rows=chunk_rows), rows, length=9, ending=[True, False, False])
    state = replay.state_dict()
    expected = [encode_chunk(Chunk(chunk.arrays)) for chunk in state["chunks"]]
    found = []
    for number, chunk in enumerate(state["chunks"]):
        fill(replay, pauses[number] if number < len(pauses) else 0, length=9, ending=[True, False, False])
        found.append(encode_chunk(chunk))
    assert found == expected


def test_a_state_survives_loading_another_into_the_same_replay():
    replay = fill(make_replay(capacity=20, chunk_rows=8), 45)
    state = replay.state_dict()
    before = [encode_chunk(Chunk(chunk.arrays)) for chunk in state["chunks"]]
    replay.load_state_dict(fill(make_replay(capacity=20, chunk_rows=8), 14).state_dict())
    assert [encode_chunk(chunk) for chunk in state["chunks"]] == before
    replay.load_state_dict(state)
    assert fingerprint({"replay": replay.state_dict()}) == fingerprint({"replay": state})


def test_a_larger_capacity_keeps_all_rows_and_a_smaller_one_the_newest():
    replay = fill(make_replay(capacity=30, chunk_rows=8), 101, length=9, ending=[True, False, False])
    larger = reload(replay, capacity=60, chunk_rows=8)
    assert larger.total_rows == 101
    assert len(larger) == 101 - 64  # the oldest chunk, which holds row 71, begins with row 64
    assert row_numbers(larger.sample_windows(generator_for(0, "t", 0), per_agent=1, length=37)[0])[0, 0] == 64
    smaller = reload(replay, capacity=10, chunk_rows=8)
    assert len(smaller) == 10
    assert row_numbers(smaller.sample_windows(generator_for(0, "t", 0), per_agent=1, length=10)[0])[0, 0] == 91
    same_future(larger, reload(larger, capacity=60, chunk_rows=8))
    same_future(smaller, reload(smaller, capacity=10, chunk_rows=8))


def test_an_empty_replay_can_be_saved_and_restored():
    replay = reload(make_replay())
    assert replay.state_dict() == {"total_rows": 0, "chunks": []}
    same_future(fill(replay, 10, length=9), fill(make_replay(), 10, length=9))


def test_another_chunk_size_is_refused():
    replay = fill(make_replay(chunk_rows=16), 50)
    for chunk_rows in (8, 15, 17, 32, 64):
        with pytest.raises(ValueError, match=r"chunk_rows"):
            reload(replay, chunk_rows=chunk_rows)


def test_the_rows_of_another_environment_are_refused():
    other = EnvSpec(name="other", agents=("a_0", "a_1", "b_0"), obs_sizes=(5, 2, 1), num_actions=(4, 4, 3))
    with pytest.raises(ValueError, match=r"obs of a chunk of the replay is float32 \[16, 3, 2\], expected float32 \[16, 3, 5\]"):
        make_replay(other).load_state_dict(fill(make_replay(), 50).state_dict())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: {"chunks": state["chunks"]},
        lambda state: {**state, "cursor": 1},
        lambda state: {**state, "total_rows": True},
        lambda state: {**state, "total_rows": -1},
        lambda state: {**state, "total_rows": 49},
        lambda state: {**state, "total_rows": 0},
        lambda state: {**state, "chunks": []},
        lambda state: {**state, "chunks": state["chunks"][::-1]},
        lambda state: {**state, "chunks": [None]},
        lambda state: {**state, "chunks": [Chunk({**chunk.arrays, "more": chunk.arrays["obs"]}) for chunk in state["chunks"]]},
        lambda state: {
            **state,
            "chunks": [Chunk({**chunk.arrays, "action": chunk.arrays["action"].astype(np.int32)}) for chunk in state["chunks"]],
        },
    ],
)
def test_a_state_of_another_shape_is_refused(spoil):
    state = fill(make_replay(), 50).state_dict()
    with pytest.raises(ValueError, match="replay"):
        make_replay().load_state_dict(spoil(state))
