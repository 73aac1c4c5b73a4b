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
