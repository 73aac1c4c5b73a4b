"""`make demo` plays to its end."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def test_the_demo_is_killed_resumes_and_ends_with_the_same_fingerprint(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "examples/demo.py", str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Killed and undisturbed: the same to the last bit." in done.stdout
    assert "goes on from its own checkpoint of step" in done.stdout
    assert "s01" in done.stdout.rpartition("$ matwm tree")[2]
