import pytest

from matwm.history import Episode, History, Point
from matwm.stateful import fingerprint, join, split


def test_points_are_means_over_their_interval():
    history = History()
    history.add({"a": 1.0, "b": 10.0})
    history.add({"a": 2.0})
    assert history.close_interval(20) == [Point("a", 20, 1.5), Point("b", 20, 10.0)]
    history.add({"a": 7.0})
    assert history.close_interval(40) == [Point("a", 40, 7.0)]
    assert history.metrics == {"a": [(20, 1.5), (40, 7.0)], "b": [(20, 10.0)]}
    assert history.close_interval(60) == []


def test_a_restored_history_goes_on_within_an_interval():
    """Names may hold slashes; an unfinished mean is state too."""
    histories = [History(), History()]
    histories[0].add({"agents/wolf_0/actor_loss": 0.1, "x": 1 / 3})
    histories[0].close_interval(5)
    histories[0].add({"agents/wolf_0/actor_loss": 0.3})
    histories[0].episodes.append(Episode(5, 3, (0.1, -1 / 3)))
    histories[1].load_state_dict(join(*split(histories[0].state_dict()), open_chunk=pytest.fail))
    for history in histories:
        history.add({"agents/wolf_0/actor_loss": 0.5})
        history.close_interval(10)
        history.episodes.append(Episode(10, 5, (2.0, 3.0)))
    assert histories[0] == histories[1]
    assert histories[1].metrics["agents/wolf_0/actor_loss"][1] == (10, pytest.approx(0.4))
    assert fingerprint({"h": histories[0].state_dict()}) == fingerprint({"h": histories[1].state_dict()})


def test_an_empty_history_is_restored_over_a_full_one():
    history = History()
    history.add({"a": 1.0})
    history.close_interval(1)
    history.add({"a": 1.0})
    history.episodes.append(Episode(1, 1, (0.0,)))
    history.load_state_dict(History().state_dict())
    assert history == History()


def test_a_saved_history_does_not_grow_afterwards():
    history = History()
    history.episodes.append(Episode(1, 1, (0.0,)))
    saved = history.state_dict()
    before = fingerprint({"h": saved})
    history.episodes.append(Episode(2, 1, (0.0,)))
    history.add({"a": 1.0})
    assert fingerprint({"h": saved}) == before


def test_saving_a_long_history_copies_nothing_of_it():
    history = History()
    for step in range(100):
        history.add({"a": step / 3})
        history.close_interval(step)
        history.episodes.append(Episode(step, 1, (step / 7, 0.0)))
    curve, returns = history.state_dict()["metrics/a"], history.state_dict()["episodes/returns"]
    assert curve.data_ptr() == history.metrics["a"].view().ctypes.data
    assert returns.data_ptr() == history.episodes.columns()["returns"].ctypes.data
    assert curve.tolist() == [[float(step), step / 3] for step in range(100)]


def test_curves_and_episodes_are_sequences():
    history = History()
    assert (list(history.episodes), history.episodes.columns()) == ([], {})
    for step in (3, 6, 9):
        history.add({"a": float(step)})
        history.close_interval(step)
        history.episodes.append(Episode(step, 3, (0.5, -0.5)))
    assert history.metrics["a"] == [(3, 3.0), (6, 6.0), (9, 9.0)]
    assert (history.metrics["a"][-1], history.metrics["a"][1:]) == ((9, 9.0), [(6, 6.0), (9, 9.0)])
    assert (history.episodes[-1], history.episodes[-2:]) == (Episode(9, 3, (0.5, -0.5)), [Episode(s, 3, (0.5, -0.5)) for s in (6, 9)])
    for sequence in (history.metrics["a"], history.episodes):
        with pytest.raises(IndexError):
            _ = sequence[3]
