"""Starts what DVC remotes can be besides a folder: an S3 server and an SSH server on this machine, and says how DVC is told of them."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.pipeline.projects import until
from tests.pipeline.servers import reserved_port

SECRET = "hidden-from-everyone"
ASYNCSSH = """
import asyncio, sys
import asyncssh
folder, port = sys.argv[1], int(sys.argv[2])
async def serve():
    keys = {"server_host_keys": [f"{folder}/host"], "authorized_client_keys": f"{folder}/authorized_keys"}
    server = await asyncssh.listen("127.0.0.1", port, sftp_factory=True, **keys)
    await server.wait_closed()
asyncio.run(serve())
"""
"""A server for machines without sshd; it does not read the configuration."""


@contextmanager
def s3() -> Iterator[tuple[str, list[str]]]:
    """Yield URL and settings of a bucket in memory."""
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("s3fs") is None:
        pytest.skip("no S3 server to test with: install the extras dev and s3")
    reserved = reserved_port()
    port = reserved.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with reserved, _running(command, port, environment):
        import boto3

        endpoint = f"http://127.0.0.1:{port}"
        keys = {"aws_access_key_id": "somebody", "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
        boto3.client("s3", endpoint_url=endpoint, **keys).create_bucket(Bucket="bucket")
        settings = [f"endpointurl = {endpoint}", "access_key_id = somebody", f"secret_access_key = {SECRET}", "region = us-east-1"]
        yield "s3://bucket/some/where", settings


@contextmanager
def ssh(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield URL and settings of a folder that an SSH server of our own serves."""
    server = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
    if importlib.util.find_spec("sshfs") is None or shutil.which("ssh-keygen") is None:
        pytest.skip("nothing to reach an SSH server with: install openssh-client and the extra ssh")
    reserved = reserved_port()
    port = reserved.getsockname()[1]
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True, stdin=subprocess.DEVNULL)
    shutil.copy(folder / "user.pub", folder / "authorized_keys")
    lines = [f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {folder / 'host'}", f"AuthorizedKeysFile {folder / 'authorized_keys'}"]
    lines += ["StrictModes no", "UsePAM no", "PasswordAuthentication no", "PidFile none", "Subsystem sftp internal-sftp"]
    lines += ["PermitRootLogin prohibit-password"] if os.getuid() == 0 else []
    (folder / "config").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if server and os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    command = [server, "-D", "-e", "-f", str(folder / "config")] if server else [sys.executable, "-c", ASYNCSSH, str(folder), str(port)]
    with reserved, _running(command, port, dict(os.environ)):
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        yield f"ssh://{user}@127.0.0.1:{port}{folder / 'remote'}", [f"keyfile = {folder / 'user'}", "allow_agent = false"]


@contextmanager
def _running(command: list[str], port: int, environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: _answers(port) or process.poll() is not None)
        assert process.poll() is None, f"{command[0]} does not start"
        yield
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
