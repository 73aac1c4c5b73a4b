"""Environments that do to their process what simulators do; `NOTES` in the environment names a file in which each instance notes itself."""

import contextlib
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from tests.matwm.envs.mistakes import Plain

QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def note(what):
    with Path(os.environ["NOTES"]).open("a", encoding="utf-8") as file:
        file.write(f"{what}\n")


def alive(path):
    """Return the processes in the notes that run, children of ours that nobody waited for not counted."""
    found = []
    for pid in map(int, path.read_text(encoding="utf-8").split()):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
            found += [pid] if state != "Z" else []
    return found


class OwnsProcess(Plain):
    """From its beginning to close()."""

    quiet = QUIET

    def __init__(self):
        super().__init__()
        self._process = subprocess.Popen(["sleep", "600"], **self.quiet)
        note(self._process.pid)

    def close(self):
        self._process.kill()
        self._process.wait()


class SharesOutput(OwnsProcess):
    quiet = {}


class Leaves(OwnsProcess):
    """Never ends what it has started, which holds all that it was given."""

    quiet = {}

    def close(self):
        pass


class FailsToReset(OwnsProcess):
    def reset(self, seed=None, options=None):
        raise RuntimeError("no licence")


class FailsToStep(OwnsProcess):
    def step(self, actions):
        raise RuntimeError("no licence")


class FailsToClose(Plain):
    def close(self):
        raise RuntimeError("it was closed before")


class ExitsAtClose(Plain):
    def close(self):
        raise SystemExit(0)


class OwnsThread(Plain):
    """Which ends at close() alone."""

    def __init__(self):
        super().__init__()
        self._end = threading.Event()
        threading.Thread(target=self._end.wait).start()

    def close(self):
        self._end.set()


class LeavesThread(OwnsThread):
    def close(self):
        pass


class Single(Plain):
    """Two at a time are one too many, in whatever processes."""

    metadata = {"name": "single", "one_at_a_time": True}

    def __init__(self):
        super().__init__()
        os.mkdir(self._lock)  # noqa: PTH102

    @property
    def _lock(self):
        return f"{os.environ['NOTES']}.lock"

    def close(self):
        os.rmdir(self._lock)  # noqa: PTH106


class SingleAndSilent(Single):
    metadata = {"name": "single"}


class Hangs(Plain):
    """In the call that it is told."""

    def __init__(self, call="step", swallows=False):
        super().__init__()
        self._call, self._swallows = call, swallows
        self._hang("making")

    def reset(self, seed=None, options=None):
        self._hang("reset")
        return super().reset(seed)

    def step(self, actions):
        self._hang("step")
        return super().step(actions)

    def render(self):
        self._hang("render")
        return np.zeros((8, 8, 3), np.uint8)

    def close(self):
        self._hang("close")

    def _hang(self, call):
        while call == self._call:
            try:
                time.sleep(600)
            except BaseException:
                if not self._swallows:
                    raise


class SeedsAll(Plain):
    """Seeds the global generators in reset, and draws from them, as many do."""

    def reset(self, seed=None, options=None):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        return super().reset(seed)

    def _observation(self, agent):
        return np.array([random.random() + float(torch.rand(())), np.random.randn()], np.float32)


class SeedsNothing(SeedsAll):
    """Draws without seeding, in its making as well."""

    def __init__(self):
        super().__init__()
        self._first = random.random() + np.random.rand()

    def reset(self, seed=None, options=None):
        return Plain.reset(self, seed)

    def _observation(self, agent):
        return super()._observation(agent) + np.float32(self._first)


class Rearranges(Plain):
    """Works in a folder of its own, reads a file there by its bare name, and sets what belongs to everybody."""

    def __init__(self):
        super().__init__()
        os.chdir(tempfile.mkdtemp())
        Path("level.txt").write_text("3", encoding="utf-8")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.set_grad_enabled(False)
        np.seterr(all="raise")

    def _observation(self, agent):
        assert torch.zeros(()).dtype == torch.float64
        return np.array([self._time, int(Path("level.txt").read_text(encoding="utf-8"))], np.float32)


class DeletesItsFolder(Plain):
    def reset(self, seed=None, options=None):
        folder = tempfile.mkdtemp()
        os.chdir(folder)
        os.rmdir(folder)  # noqa: PTH106
        return super().reset(seed)


class HangsBesideAProcess(OwnsProcess):
    def step(self, actions):
        time.sleep(600)


class HangsOnce(Plain):
    """At the 60th step of a process, where `NOTES` says so."""

    steps = 0

    def step(self, actions):
        HangsOnce.steps += 1
        if HangsOnce.steps == 60 and Path(os.environ["NOTES"]).read_text(encoding="utf-8") == "hang":
            time.sleep(600)
        return super().step(actions)
