"""Temporary folders, one's own and dead processes'; and files known by their marks, read again whenever they may have changed."""

import errno
import hashlib
import os
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


def test_a_file_is_on_the_disk_before_it_gets_its_name_and_the_name_before_replace_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str]] = []
    fsync, rename = os.fsync, Path.replace

    def note(handle: int) -> None:
        calls.append(("fsync", Path(f"/proc/self/fd/{handle}").readlink().name))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(Path, "replace", lambda path, target: calls.append((f"{path.name} to", target.name)) or rename(path, target))
    durable.write(tmp_path / "new", b"data")
    assert calls == [("fsync", "new")]
    durable.replace(tmp_path / "file", b"data")
    (_, before), (renamed, name), (_, folder) = calls[1:]
    assert (renamed, name, folder) == (f"{before} to", "file", tmp_path.name)
    assert before not in ("file", tmp_path.name)


def test_the_folder_of_a_dead_process_goes_with_the_next_one(tmp_path: Path) -> None:
    script = "import os, sys; from pathlib import Path; from matwm import durable\n"
    script += "with durable.new_folder(Path(sys.argv[1])) as folder: (folder / 'file').touch(); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == 9
    (left,) = tmp_path.iterdir()
    with durable.new_folder(tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]
    assert not left.exists()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read, in order."""
    names: list[str] = []
    sha256 = durable.sha256
    monkeypatch.setattr(durable, "_digests", {})
    monkeypatch.setattr(durable, "sha256", lambda path: names.append(path.name) or sha256(path))
    return names


def write(path: Path, data: bytes, age_seconds: int) -> str:
    path.write_bytes(data)
    then = path.stat().st_mtime_ns - age_seconds * 10**9
    os.utime(path, ns=(then, then))
    return hashlib.sha256(data).hexdigest()


def test_a_file_is_read_once_under_all_its_names(tmp_path: Path, reads: list[str]) -> None:
    expected = write(tmp_path / "one", b"same", 60)
    os.link(tmp_path / "one", tmp_path / "two")
    assert [durable.sha256_once(tmp_path / name) for name in ("one", "two", "one")] == [expected] * 3
    assert reads == ["one"]


def test_a_file_that_is_written_to_is_read_again(tmp_path: Path, reads: list[str]) -> None:
    for data, age in [(b"same", 60), (b"size", 50), (b"longer", 50), (b"more", 0), (b"less", 0)]:
        expected = write(tmp_path / "one", data, age)
        assert durable.sha256_once(tmp_path / "one") == expected
    assert len(reads) == 5


def test_a_file_of_this_moment_is_read_every_time(tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two writes in a row can leave it with the same time."""
    write(tmp_path / "one", b"same", 0)
    monkeypatch.setattr(durable.time, "time_ns", lambda: (tmp_path / "one").stat().st_mtime_ns + durable.RECENT_NS)
    first = durable.sha256_once(tmp_path / "one")
    assert durable.sha256_once(tmp_path / "one") == first
    assert reads == ["one", "one"]


def test_both_digests_of_a_file_are_known(tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    expected, md5 = write(tmp_path / "one", b"same", 60), durable.md5
    monkeypatch.setattr(durable, "md5", lambda path: reads.append(f"md5 of {path.name}") or md5(path))
    for _ in range(2):
        assert (durable.md5_once(tmp_path / "one"), durable.sha256_once(tmp_path / "one")) == (hashlib.md5(b"same").hexdigest(), expected)
    assert reads == ["md5 of one", "one"]


def test_a_file_is_replaced_whole_and_keeps_link_and_permissions(tmp_path: Path) -> None:
    file, link = tmp_path / "kept" / "params.yaml", tmp_path / "params.yaml"
    file.parent.mkdir()
    file.write_text("seed: 0", encoding="utf-8")
    file.chmod(0o640)
    link.symlink_to(file)
    other = tmp_path / "other"
    other.hardlink_to(file)
    durable.replace(link, b"seed: 1")
    assert link.is_symlink() and file.read_text(encoding="utf-8") == "seed: 1"
    assert (file.stat().st_mode & 0o777, other.read_text(encoding="utf-8")) == (0o640, "seed: 0")
    assert [path.name for path in file.parent.iterdir()] == ["params.yaml"]


def test_a_replacement_that_fails_leaves_the_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "run.json"
    file.write_text("{}", encoding="utf-8")

    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space left") as refusal:
        durable.replace(file, b"x")
    assert refusal.value.filename == str(file)
    assert [(path.name, path.read_text(encoding="utf-8")) for path in tmp_path.iterdir()] == [("run.json", "{}")]


def test_a_folder_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    """A thread that still has something to write must not bring a removed work directory back."""
    with pytest.raises(FileNotFoundError):
        durable.replace(tmp_path / "gone" / "run.json", b"x")
    assert not (tmp_path / "gone").exists()
