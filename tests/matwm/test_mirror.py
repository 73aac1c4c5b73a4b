import numpy as np
import pytest
import torch

from matwm.mirror import Mirror
from matwm.rng import generator_for
from matwm.stateful import State
from tests.matwm.test_replay import SPEC, equal, fill, make_replay
from tests.matwm.tiny import DEVICES


def mirrored(device, **changes):
    """Return a replay whose batches come from a mirror, also on the CPU."""
    replay = make_replay(**changes)
    replay._mirror = Mirror(replay._rows["obs"], torch.device(device), stretch=5)
    return replay


def batches(replay, draw):
    windows, _ = replay.sample_windows(generator_for(0, "windows", draw), per_agent=3, length=6)
    return windows, replay.sample_contexts(generator_for(0, "contexts", draw), per_agent=7, length=4)


def same_batches(replay, original):
    for draw in range(3):
        for found, expected in zip(batches(replay, draw), batches(original, draw), strict=True):
            on_cpu = type(found)(**{name: value.cpu() for name, value in vars(found).items()})
            if not equal(on_cpu, expected):
                return False
    return True


def other_rows(count) -> State:
    """Return the state of a replay that has seen something else."""
    replay = fill(make_replay(capacity=40, chunk_rows=8), count)
    replay._rows["obs"] += 0.5
    return replay.state_dict()


@pytest.mark.parametrize("device", DEVICES)
def test_batches_from_a_mirror_are_those_from_memory(device):
    """A ring of 48 rows: looked at while it fills, when it has wrapped, after a cut and after more than a whole turn."""
    replay, original = mirrored(device, capacity=40, chunk_rows=8), make_replay(capacity=40, chunk_rows=8)
    for rows in (9, 1, 1, 30, 13, 120, 3):
        for one in (replay, original):
            fill(one, rows, ending=[True, False, False])
        assert same_batches(replay, original)
    for one in (replay, original):
        one.cut()
    assert same_batches(replay, original)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rows", [11, 29, 90])
def test_a_mirror_forgets_what_was_there_before_a_load(device, rows):
    replay, original = mirrored(device, capacity=40, chunk_rows=8), make_replay(capacity=40, chunk_rows=8)
    fill(replay, 30)
    batches(replay, 0)
    for one in (replay, original):
        one.load_state_dict(other_rows(rows))
    assert same_batches(replay, original)
    for one in (replay, original):
        fill(one, 17)
    assert same_batches(replay, original)


@pytest.mark.parametrize("device", DEVICES)
def test_images_stay_bytes(device):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, SPEC.num_agents, 3, 4, 4), np.uint8)
    mirror = Mirror(images, torch.device(device), stretch=5)
    rows, agent, counts = rng.integers(8, 20, (6, 5)), rng.integers(0, SPEC.num_agents, 6), rng.random((6, 5)) < 0.7
    found = mirror.gather(rows, agent, counts, total_rows=20).cpu()
    assert found.dtype == torch.uint8
    assert np.array_equal(found.numpy(), images[rows % 12, agent[:, None]] * counts[..., None, None, None])
