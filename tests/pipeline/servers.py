"""A real `mlflow server` that tests and benchmarks can kill and start again."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.pipeline.projects import until


class Server:
    """A `mlflow server` of our own on one port of this machine, which can be killed and started again."""

    def __init__(self, folder: Path, template: Path) -> None:
        folder.mkdir()
        shutil.copy(template, folder / "server.db")
        self._port = reserved_port()
        self.port = self._port.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it if it is down; return when it answers."""
        if self._process is None:
            command = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
            command += ["--uvicorn-opts", "--timeout-keep-alive 3600"]  # else it may hang up in the moment of a request
            command += ["--backend-store-uri", "sqlite:///server.db", "--artifacts-destination", str(self.folder / "artifacts")]
            environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
            environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "OMP_NUM_THREADS": "1"}
            with (self.folder / "log.txt").open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, *command], cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True,
                )  # fmt: skip
        until(lambda: self._answers() or self._process.poll() is not None)
        assert self._process.poll() is None, (self.folder / "log.txt").read_text(encoding="utf-8")

    def stop(self) -> None:
        """Kill it with everything it started."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.uri}/health", timeout=5).status == 200
        except OSError:
            return False


def reserved_port() -> socket.socket:
    """Hold a port that nobody gets but a server told of it, as servers share an address that does not listen: whoever keeps this has it."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


def empty_store(path: Path) -> Path:
    """Make an empty MLflow database: it takes seconds, to copy it none."""
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{path}")
    return path


@contextmanager
def silent_server() -> Iterator[str]:
    """A server that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
