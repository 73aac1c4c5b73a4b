"""Runs a command on a terminal of its own and returns what a person would see."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def on_terminal(command: list[str], folder: Path, environment: dict[str, str], columns: int = 80) -> tuple[int, str]:
    """Return exit code and output, errors included, with what colours it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    clean = {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")}
    clean |= {"TERM": "xterm-256color"}
    process = subprocess.Popen(command, cwd=folder, env=clean, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    seen = b""
    while True:
        try:
            read = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not read:
            break
        seen += read
    os.close(ours)
    return process.wait(), seen.decode().replace("\r\n", "\n")


def plain(text: str) -> str:
    """Return a text without what colours it."""
    return ESCAPE.sub("", text)
