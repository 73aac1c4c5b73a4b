"""`make demo`: in two minutes, what this project is for. Trains, is killed, resumes, branches, and compares fingerprints.

    .venv/bin/python examples/demo.py [FOLDER]

It works in two clones of the last commit in FOLDER (default: .matwm/demo), which stay there to be looked at.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
LAST = "checkpoints/s00/step_000000600"
ENVIRONMENT = {**os.environ, "MATWM_PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


def main() -> int:
    """Play the demo; return 0 if both trainings ended with the same fingerprint."""
    folder = Path(*sys.argv[1:2] or [REPOSITORY / ".matwm" / "demo"]).absolute()
    killed, undisturbed = folder / "killed", folder / "undisturbed"
    for project in (killed, undisturbed):
        shutil.rmtree(project, ignore_errors=True)
    started = time.monotonic()
    say("1  A project: a clone of this repository, with the smallest preset (600 steps of Simple Tag, a checkpoint every 200)")
    for project in (killed, undisturbed):
        subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(project)], check=True)
        matwm(project, "preset", "ci-tiny", "--force", is_shown=project == killed)

    say("2  Train, and after the first checkpoint: kill -9 for every process of it")
    kill_after_checkpoint(killed)

    say("3  The same command again: it resumes, evaluates, plots")
    matwm(killed, "repro")

    say("4  The same training in another folder, which nobody disturbs")
    matwm(undisturbed, "repro", "train@s00")

    say("5  The fingerprints of both last checkpoints: networks, optimizers, replay, episode, randomness, metric histories")
    found = [matwm(project, "fingerprint", LAST).split()[-1] for project in (killed, undisturbed)]

    say("6  Branch from step 400 with another learning rate, and train the branch")
    matwm(killed, "continue", "s00@400", "--until", "600", "--set", "actor_critic.learning_rate=1.0e-4")
    matwm(killed, "repro", "train@s01")

    say("7  The lineage")
    matwm(killed, "tree")

    is_equal = found[0] == found[1]
    say(f"Killed and undisturbed: {'the same' if is_equal else 'NOT the same'} to the last bit. {time.monotonic() - started:.0f} seconds.")
    place = os.path.relpath(killed)
    print(f"To look at: {place}/plots, or the runs in MLflow: cd {place} && {os.path.relpath(sys.prefix, killed)}/bin/mlflow ui")
    return 0 if is_equal else 1


def say(text: str) -> None:
    """Print a heading."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else f"\n{text}", flush=True)


def matwm(project: Path, *words: str, is_shown: bool = True) -> str:
    """Run a command of MATWM in a project, print it and what it prints, return that.

    Raises:
        SystemExit: it failed.
    """
    if is_shown:
        print(f"$ matwm {' '.join(words)}", flush=True)
    with subprocess.Popen(
        command(*words), cwd=project, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout
        lines = []
        for line in process.stdout:
            lines.append(line)
            if is_shown:
                print(f"  {line}", end="", flush=True)
    if process.returncode:
        raise SystemExit(f"matwm {words[0]} ended with {process.returncode}:\n{''.join(lines)}")
    return "".join(lines)


def kill_after_checkpoint(project: Path) -> None:
    """Start the training, and send SIGKILL to its whole process group soon after its first checkpoint."""
    print("$ matwm repro", flush=True)
    log = project / "killed.log"
    with log.open("w") as file:
        process = subprocess.Popen(command("repro"), cwd=project, env=ENVIRONMENT, stdout=file, stderr=file, start_new_session=True)
    while not list(project.glob(".matwm/work/s00-*/checkpoints/step_*")):
        if process.poll() is not None:
            raise SystemExit(f"the training ended before its first checkpoint:\n{log.read_text()}")
        time.sleep(0.1)
    time.sleep(2)  # Some steps more: those are lost, and computed again.
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    print("".join(f"  {line}\n" for line in log.read_text().splitlines()), end="")
    log.unlink()
    print("  Killed.", flush=True)


def command(*words: str) -> list[str]:
    """Return a command of MATWM, run by the code of the project that it is run in."""
    return [sys.executable, "-m", "pipeline.cli", *words]


if __name__ == "__main__":
    sys.exit(main())
