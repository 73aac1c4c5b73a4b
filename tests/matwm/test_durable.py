"""Temporary folders: one's own stays whatever others do beside it, a dead process's goes."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from matwm import durable


def test_folders_made_at_once_beside_each_other_all_stay(tmp_path: Path) -> None:
    lost: list[OSError] = []

    def write() -> None:
        for _ in range(300):
            try:
                with durable.new_folder(tmp_path) as folder:
                    durable.write(folder / "file", b"data")
            except OSError as error:
                lost.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lost == []
    assert not list(tmp_path.iterdir())


def test_a_folder_has_no_name_that_others_remove_before_it_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = durable.fcntl.flock, []

    def flock(handle: int, operation: int) -> None:
        monkeypatch.setattr(durable.fcntl, "flock", real)
        with durable.new_folder(tmp_path):  # another writer, at the worst moment
            seen.append(handle)
        real(handle, operation)

    monkeypatch.setattr(durable.fcntl, "flock", flock)
    with durable.new_folder(tmp_path) as folder:
        assert seen
        assert folder.is_dir()
    assert not list(tmp_path.iterdir())


def test_the_folder_of_a_dead_process_goes_with_the_next_one(tmp_path: Path) -> None:
    script = "import os, sys; from pathlib import Path; from matwm import durable\n"
    script += "with durable.new_folder(Path(sys.argv[1])) as folder: (folder / 'file').touch(); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == 9
    (left,) = tmp_path.iterdir()
    with durable.new_folder(tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]
    assert not left.exists()
