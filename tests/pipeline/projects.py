"""Makes small MATWM projects in temporary folders: a git repository with this checkout's code, DVC and a training of seconds."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from configobj import ConfigObj
from ruamel.yaml import YAML

from matwm.checkpoint import open_checkpoint
from matwm.config import merge
from matwm.params_yaml import PRESETS
from matwm.stateful import fingerprint
from matwm.step_names import step_name
from matwm.trainer import Trainer
from pipeline.process import Interruption

SOURCE = Path(__file__).parents[2]
HOLDING = Path(__file__).with_name("holding.py")
COPIED = ["dvc.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore", "bin", "matwm", "pipeline"]
COPIED += ["MLproject", "python_env.yaml", "checkpoints/root", "checkpoints/.gitignore", "plots/.gitignore"]
IDENTITY = {f"GIT_{role}_{what}": f"{role}@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
SETTINGS = {
    **{"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "LC_ALL": "C.UTF-8"},
    **{"DVC_GLOBAL_CONFIG_DIR": "/nowhere", "DVC_SYSTEM_CONFIG_DIR": "/nowhere", "DVC_NO_ANALYTICS": "true"},
    **{"MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
}
"""What somebody has set for git and DVC elsewhere, or the language, is no concern of a project's commands."""

TINY = yaml.safe_load("""
env:
  options: {num_good: 1, num_adversaries: 2, num_obstacles: 1, max_cycles: 12}
world_model:
  latents: 4
  classes: 4
  hidden_size: 16
  layers: 1
  heads: 2
  max_positions: 32
  encoder_layers: 1
  encoder_width: 16
  head_width: 16
  bins: {count: 11}
  teammates: {hidden_size: 8, heads: 2}
  windows: 4
  window_length: 8
actor_critic:
  layers: 1
  width: 16
  bins: {count: 11}
  imagination:
    context_length: 2
    regimes: [{max_agents: null, starts: 8, horizon: 2}]
replay: {capacity: 500, chunk_rows: 20}
schedule: {warmup_steps: 20, acting_context: 4}
run: {save_interval: 40, metrics_interval: 10}
evaluation: {episodes: 2, gif: false, modes: [sampled]}
tracking: {upload_seconds: 0.2}
""")


def tiny_params(changes: Mapping[str, Any] | None = None, segments: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the ci-tiny preset shrunk further: some 5 ms a training step."""
    preset = yaml.safe_load((PRESETS / "ci-tiny.yaml").read_text(encoding="utf-8"))
    params = merge(merge(preset, TINY), changes or {})
    params["segments"] = dict(segments or {"s00": {"from": "checkpoints/root", "until": 80}})
    return params


def fingerprint_of(trainer: Trainer) -> str:
    """Return the fingerprint that a checkpoint of this moment would have."""
    return fingerprint({name: state for name, state in trainer.parts().items() if name != "history"})


class Project:
    """A project in a folder, and the commands that a person would type in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, params: Mapping[str, Any], store: Path) -> "Project":
        """Make a project with one commit and an empty MLflow store."""
        path.mkdir(exist_ok=True)
        for name in COPIED:
            source, target = SOURCE / name, path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy2(source, target)
        project = cls(path)
        project.write(params)
        project.git("init", "-q", "-b", "main")
        project.commit("begin")
        shutil.copy(store, path / "mlflow.db")
        return project

    @classmethod
    def empty(cls, path: Path) -> "Project":
        """Make a repository of git and DVC without a file."""
        project = cls(path)
        (path / ".dvc").mkdir(parents=True)
        project.git("init", "-q")
        (path / ".dvc/config").touch()  # All that `dvc init` makes and that matters, without its two seconds.
        return project

    def add_remote(self, url: Path | str, **options: str) -> None:
        """Do what `dvc remote add --default store URL` does, without its two seconds."""
        config = ConfigObj(str(self.path / ".dvc/config"), encoding="utf-8")
        config.setdefault("core", {})["remote"] = "store"
        config['remote "store"'] = {"url": str(url), **options}
        config.write()

    def clone(self, path: Path, store: Path) -> "Project":
        """Return a fresh `git clone` with an MLflow store of its own."""
        subprocess.run(["git", "clone", "-q", str(self.path), str(path)], check=True, env=self.environment(), stdin=subprocess.DEVNULL)
        shutil.copy(store, path / "mlflow.db")
        return Project(path)

    def write(self, params: Mapping[str, Any]) -> None:
        """Write params.yaml, one segment a line."""
        lists = ("sweeps", "segments")
        text = yaml.safe_dump({key: value for key, value in params.items() if key not in lists}, sort_keys=False)
        for section in lists:
            entries = params.get(section) or {}
            text += f"{section}:{'' if entries else ' {}'}  # append only\n"
            for name, entry in entries.items():
                text += f"  {name}: {json.dumps(entry)}\n"
        (self.path / "params.yaml").write_text(text, encoding="utf-8")

    def params(self) -> dict[str, Any]:
        """Read params.yaml."""
        return yaml.safe_load((self.path / "params.yaml").read_text(encoding="utf-8"))

    def edit(self, path: str, value: Any) -> None:
        """Change one value of params.yaml as an editor would."""
        round_trip = YAML()
        file = self.path / "params.yaml"
        data = round_trip.load(file.read_text(encoding="utf-8"))
        node = data
        *above, name = path.split(".")
        for key in above:
            node = node[key]
        node[name] = value
        with file.open("w", encoding="utf-8") as stream:
            round_trip.dump(data, stream)

    def environment(self) -> dict[str, str]:
        """Return what a shell with the environment activated would have."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_", "MATWM_", "GIT_"))}
        binaries = str(Path(sys.executable).parent)
        path = f"{binaries}{os.pathsep}{clean['PATH']}"
        return {**clean, **IDENTITY, **SETTINGS, "PATH": path, "MATWM_PYTHON": sys.executable}

    def start(self, *command: str, **environment: str) -> "subprocess.Popen[str]":
        """Start a command in its own session, output together."""
        return subprocess.Popen(
            command, cwd=self.path, env={**self.environment(), **environment}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def hold(self, step: int) -> dict[str, str]:
        """Return what a command needs in its environment for its training to wait after a step until `let_go`."""
        self._sign.touch()
        return {"MATWM_PYTHON": str(HOLDING), "HOLD_AT": str(step), "HOLD_WHILE": str(self._sign)}

    def hold_in(self, part: str, number: int) -> dict[str, str]:
        """Return what it needs for the number-th file of a checkpoint under a path with this part never to be written."""
        return {"MATWM_PYTHON": str(HOLDING), "HOLD_IN": part, "HOLD_FILE": str(number)}

    def let_go(self) -> None:
        """Let a training that waits go on."""
        self._sign.unlink(missing_ok=True)

    @property
    def _sign(self) -> Path:
        return self.path.with_name(f"{self.path.name} is held")

    def run(self, *command: str, code: int = 0, **environment: str) -> str:
        """Run a command, demand its exit status, and return what it printed."""
        done = subprocess.run(
            command, cwd=self.path, env={**self.environment(), **environment}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False, timeout=1800,
        )  # fmt: skip
        assert done.returncode == code, f"{' '.join(command)} exited {done.returncode}, not {code}:\n{done.stdout}"
        return done.stdout

    def git(self, *arguments: str) -> str:
        """Run git."""
        return self.run("git", *arguments)

    def commit(self, message: str) -> None:
        """Commit everything that git sees."""
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    def dvc(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """Run DVC."""
        return self.run("dvc", *arguments, code=code, **environment)

    def matwm(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """Run the `matwm` command of this folder's code."""
        return self.run(sys.executable, "-m", "pipeline.cli", *arguments, code=code, **environment)

    def files(self) -> set[str]:
        """Return every file but git's, DVC's temporary ones and compiled code."""
        skipped = {".git", "__pycache__", "tmp"}
        relative = (path.relative_to(self.path) for path in self.path.rglob("*") if path.is_file())
        return {str(path) for path in relative if not skipped & set(path.parts)}

    def trainer_pid(self) -> int:
        """Return the process that trains, or did last, in a project of one segment."""
        (lock,) = (self.path / ".matwm/work").glob("*/lock")
        return int(lock.read_text(encoding="ascii"))

    def has_saved(self, step: int) -> bool:
        """Return whether a training has the checkpoint of a step, published or not."""
        return any((self.path / ".matwm/work").glob(f"*/checkpoints/{step_name(step)}/manifest.json"))

    def fingerprint_at(self, step: int, name: str = "s00") -> str:
        """Return the fingerprint of a published checkpoint."""
        return open_checkpoint(self.path / "checkpoints" / name / step_name(step)).fingerprint

    def json(self, path: str) -> dict[str, Any]:
        """Read a JSON file."""
        return json.loads((self.path / path).read_text(encoding="utf-8"))


class StopAfter(Interruption):
    """A signal that comes when the loop has looked for it a number of times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    @property
    def signal(self) -> int | None:
        self.looks -= 1
        return signal.SIGTERM if self.looks < 0 else None

    @signal.setter
    def signal(self, value: int | None) -> None:
        pass


def processes_in(folder: Path) -> list[int]:
    """Return every process whose current folder it is."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("cwd").readlink() == folder and is_alive(int(process.name)):
                found.append(int(process.name))
        except OSError:  # it is gone, or not ours
            continue
    return found


def until(condition: Callable[[], object], seconds: float = 300.0) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Return whether a process runs (a dead one that nobody has waited for does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
