"""A process that trains keeps its freed memory, and says so if it cannot."""

import ctypes
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline import memory
from pipeline import train as stage

FAULTS = """
import resource, sys
from pipeline.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = b"x" * 2**26
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_a_large_block_is_not_given_back_to_the_kernel() -> None:
    """Of 64 MiB: beyond what glibc would adapt to by itself. Pages may be huge, of 2 MiB."""
    faults = {
        name: int(subprocess.run([sys.executable, "-c", FAULTS, name], check=True, stdout=subprocess.PIPE, text=True).stdout)
        for name in ("kept", "given back")
    }
    assert faults["kept"] < 16
    assert faults["given back"] >= 32


@pytest.mark.parametrize("accepted", [(), (memory.M_MMAP_THRESHOLD,), (memory.M_MMAP_THRESHOLD, memory.M_TRIM_THRESHOLD)])
def test_a_refusal_is_told_and_nothing_is_set_by_half(
    accepted: tuple[int, ...], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[int] = []

    def mallopt(option: int, _: int) -> int:
        asked.append(option)
        return int(option in accepted)

    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    memory.keep_freed_memory()
    assert ("refuses to keep freed memory" in caplog.text) == (len(accepted) < 2)
    assert asked == [memory.M_MMAP_THRESHOLD, memory.M_TRIM_THRESHOLD][: len(accepted) + 1]


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    memory.keep_freed_memory()
    assert caplog.text == ""


def test_the_stage_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(stage, "keep_freed_memory", lambda: calls.append("asked"))
    monkeypatch.chdir(tmp_path)
    assert stage.main(["s00"]) == 1, "there is no project here"
    assert calls == ["asked"]
