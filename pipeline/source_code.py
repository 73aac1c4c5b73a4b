"""Says which code a project has, and which this process runs."""

import hashlib
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
CODE = (".py", ".yaml")


def git_facts(project: Path) -> dict[str, Any]:
    """Return the commit and whether the code differs from it; nulls outside a repository.

    Only the code: parameters are recorded beside it, and DVC has always just deleted the metrics that it runs for.
    """
    commit = git(project, "rev-parse", "HEAD")
    changed = git(project, "status", "--porcelain", "--", "matwm", "pipeline")
    return {"commit": commit, "dirty": None if changed is None else bool(changed)}


@dataclass(frozen=True)
class NoCommit:
    """Why a project's commit cannot be told, and what to do about it."""

    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.why}: {self.remedy}"


def no_commit(project: Path) -> NoCommit | None:
    """Return why git does not tell a project's commit, None if it does."""
    try:
        done = _run_git(project, "rev-parse", "--verify", "HEAD")
    except FileNotFoundError:
        return NoCommit("git is not installed", "install it")
    said = done.stderr.decode(errors="replace")
    if done.returncode == 0:
        return None
    if "not a git repository" in said:
        return NoCommit(f"{project} is no git repository, which DVC needs", 'run "git init && git add -A && git commit -m begin"')
    if "safe.directory" in said:  # It belongs to somebody else, as in a container.
        return NoCommit(f"git says of {project}: {said.splitlines()[0]}", f'run "git config --global --add safe.directory {project}"')
    if "single revision" in said:
        return NoCommit(f"{project} has no commit yet", 'run "git add -A && git commit -m begin"')
    return NoCommit(f"git says of {project}: {' '.join(said.split())}", "see to that")


def code_digest() -> str:
    """Return a digest of the Python files and presets that this process runs."""
    top = Path(__file__).parents[1]
    files = (path for package in ("matwm", "pipeline") for path in (top / package).rglob("*") if path.is_file())
    return digest_of_code({path.relative_to(top): path.read_bytes() for path in files if path.suffix in CODE})


def digest_of_code(files: Mapping[Path, bytes]) -> str:
    """Return the digest of code by relative path; other files in it do not count."""
    digest = hashlib.sha256()
    for path in sorted(path for path in files if path.suffix in CODE):
        digest.update(path.as_posix().encode() + b"\0" + files[path] + b"\0")
    return digest.hexdigest()


def git(project: Path, *arguments: str) -> str | None:
    """Return the text that a git command prints, None if it fails or there is no git."""
    output = git_output(project, *arguments)
    return None if output is None else output.decode(errors="replace").strip()


def git_output(project: Path, *arguments: str) -> bytes | None:
    """Return the bytes that a git command prints, None if it fails or there is no git."""
    try:
        done = _run_git(project, *arguments)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def _run_git(project: Path, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a git command that answers in English."""
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(["git", *arguments], cwd=project, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
