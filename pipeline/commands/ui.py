"""`matwm ui`: starts MLflow's UI on the project's store, and prints the address that shows its runs."""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from matwm.config import ConfigError
from matwm.errors import UserError
from matwm.params_yaml import load_config
from pipeline import project as places
from pipeline import runs
from pipeline.addresses import SERVERS, VARIABLE
from pipeline.process import PATIENCE_SECONDS, Interruption

HOST, PORT, TRIED_PORTS = "127.0.0.1", 5000, 20
SETTINGS = {**runs.SETTINGS, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # Jobs are of no use here, and three quarters of the start.
START_SECONDS = 120.0


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--port", type=int, metavar="N", help=f"of this machine alone (default: {PORT}, or the next that is free)")


def run(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C; of a server that runs elsewhere, only the address is printed.

    Raises:
        UserError: the port is taken, or MLflow does not start.
        TrackingError: MLFLOW_TRACKING_URI names a store that cannot be used.
    """
    project = places.root()
    runs.configure(project)
    uri = runs.configured_uri()
    if uri.partition("://")[0] in SERVERS:
        runs.ping(uri)
        sys.stdout.write(f"{runs.shown(uri).rstrip('/')}{_view(project, uri)}\n")
        return 0
    view, port = _view(project, uri), _free_port(options.port)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--uvicorn-opts", "--log-level warning"]
    to_stderr = 2  # stdout has the address alone
    environment = (
        {name: value for name, value in places.environment().items() if name != VARIABLE} | SETTINGS | {"PYTHONWARNINGS": "ignore"}
    )
    with Interruption() as interruption, interruption.deferred():
        # In a group of its own: MLflow starts the server as a child, which ends with nobody.
        process = subprocess.Popen(
            command, cwd=places.home(project), env=environment, stdin=subprocess.DEVNULL, stdout=to_stderr, start_new_session=True
        )
        try:
            _serve(process, f"http://{HOST}:{port}", view, interruption)
        finally:
            _end(process)
    return 0 if interruption.signal == signal.SIGINT else interruption.exit_code


def _serve(process: "subprocess.Popen[bytes]", address: str, view: str, interruption: Interruption) -> None:
    """Print the address when it answers, and wait for a signal."""
    end, is_up = time.monotonic() + START_SECONDS, False
    while interruption.signal is None:
        if process.poll() is not None:
            raise UserError(f"MLflow's UI has ended by itself, with exit code {process.returncode}: what it said stands above")
        if not is_up and _answers(address):
            is_up = True
            sys.stdout.write(f"{address}{view}\nCtrl-C ends it\n")
            sys.stdout.flush()
        if not is_up and time.monotonic() > end:
            raise UserError(
                f"MLflow's UI does not answer at {address} after {START_SECONDS:.0f} s: another --port, or look at what it said"
            )
        time.sleep(0.1)


def _answers(address: str) -> bool:
    try:
        runs.ping(address, seconds=2.0)
    except runs.TrackingError:
        return False
    return True


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the server and what it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_SECONDS)


def _view(project: Path, uri: str) -> str:
    """Return the part of an address that shows the project's experiment; nothing while it has none."""
    try:
        name = load_config(project / places.PARAMS).tracking.experiment
    except ConfigError as error:
        sys.stderr.write(f"{error.problems[0]}: all experiments are shown\n")
        return "/"
    with runs.explained(uri):
        found = runs.client(uri).get_experiment_by_name(name)
    return f"/#/experiments/{found.experiment_id}" if found is not None and found.lifecycle_stage == "active" else "/"


def _free_port(wanted: int | None) -> int:
    for port in [wanted] if wanted else range(PORT, PORT + TRIED_PORTS):
        with socket.socket() as asked:
            asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                asked.bind((HOST, port))
            except (OSError, OverflowError):
                continue
            return port
    which = f"port {wanted} is" if wanted else f"ports {PORT} to {PORT + TRIED_PORTS - 1} are"
    raise UserError(f"{which} taken or not to be had on {HOST}: choose another --port")
