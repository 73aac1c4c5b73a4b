"""`matwm ui`: MLflow's UI on the project's store, with the project's settings, gone when it is ended."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml

from pipeline import cli
from tests.pipeline.projects import SOURCE, Project, until
from tests.pipeline.servers import Server, reserved_port


def members(group: int) -> list[Path]:
    """Return the processes of a group."""
    found: list[Path] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(process)
    return found


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_it_shows_the_experiment_and_leaves_no_process(made: Project, number: int, code: int) -> None:
    with reserved_port() as held:
        port = held.getsockname()[1]
        command = [sys.executable, "-m", "pipeline.cli", "ui", "--port", str(port)]
        environment = {name: value for name, value in made.environment().items() if not name.startswith("MLFLOW_")}
        ui = subprocess.Popen(command, cwd=made.path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert ui.stdout is not None
            address = ui.stdout.readline().strip()
            assert address == f"http://127.0.0.1:{port}/#/experiments/1"
            assert urllib.request.urlopen(address.partition("#")[0], timeout=60).status == 200
            (server,) = [int(child) for child in Path(f"/proc/{ui.pid}/task/{ui.pid}/children").read_text(encoding="ascii").split()]
            started = members(server)
            assert len(started) >= 2
            for process in started:
                given = (process / "environ").read_bytes().split(b"\0")
                assert {b"MLFLOW_DISABLE_TELEMETRY=true", b"MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false"} <= set(given)
            os.kill(ui.pid, number)
            assert ui.wait(120) == code
            until(lambda: not members(server), 60)
            ui.stdout.close()
        finally:
            if ui.poll() is None:
                ui.terminate()
                ui.wait()


def test_of_a_server_only_the_address_is_printed(
    server: Server, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    (root / "params.yaml").write_bytes((SOURCE / "params.yaml").read_bytes())
    assert cli.main(["ui"]) == 0
    assert capsys.readouterr().out.startswith(f"{server.uri}/")


def test_a_port_that_is_taken_is_one_sentence(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(root)
    (root / "params.yaml").write_bytes((SOURCE / "params.yaml").read_bytes())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["ui", "--port", str(port)]) == 1
    assert capsys.readouterr() == ("", f"port {port} is taken or not to be had on 127.0.0.1: choose another --port\n")


def test_entry_points_of_mlflow_projects_switch_telemetry_off() -> None:
    entries = yaml.safe_load((SOURCE / "MLproject").read_text(encoding="utf-8"))["entry_points"]
    for name, entry in entries.items():
        assert entry["command"].startswith("MLFLOW_DISABLE_TELEMETRY=true bin/python "), name
