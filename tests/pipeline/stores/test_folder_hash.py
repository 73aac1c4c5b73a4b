"""Hashes of folders: those that DVC makes, and no byte read oftener than it must be."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable

import pytest

from matwm import durable
from matwm.checkpoint import Checkpoint
from pipeline.stores.folder_hash import hashed_files, md5s_of


def test_what_checkpoints_share_is_hashed_once(save: Callable[..., Checkpoint], monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [save(step).path for step in (100, 200, 300)]
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    for path in paths:
        os.utime(path, ns=(10**18, 10**18))
    inodes = {path.stat().st_ino for path in paths}
    assert len(inodes) < len(paths), "they share chunks of the replay"
    reads: Counter[int] = Counter()
    md5 = durable.md5
    monkeypatch.setattr(durable, "_digests", {})
    monkeypatch.setattr(durable, "md5", lambda path: reads.update([path.stat().st_ino]) or md5(path))
    for folder in folders:
        expected = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        assert md5s_of(folder) == hashed_files(folder)
        assert md5s_of(folder) == {name: hashlib.md5(path.read_bytes()).hexdigest() for name, path in expected.items()}
    assert reads == dict.fromkeys(inodes, 1)
