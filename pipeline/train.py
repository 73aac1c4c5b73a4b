"""Stage `train@<segment>`: trains a segment to the end, from wherever its last process left it, and publishes its checkpoints.

The live run is outside DVC's outputs, which DVC deletes before it calls a stage: `.matwm/work/<segment>-<key>/` holds checkpoints,
tail, records and the run's facts, and is found again by the key, which says what trains and not when or how far.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from matwm.errors import run_program
from pipeline.memory import keep_freed_memory
from pipeline.process import OWNED_NOTE, Interruption, exclusive, follow_parent, leave

if TYPE_CHECKING:  # Importing torch takes seconds, in which DVC could die unnoticed.
    from pipeline.training.session import Session


def train(project: Path, name: str, interruption: Interruption) -> int:
    """Train and publish a segment of the project; return the exit code.

    Raises:
        ConfigError, ProjectError, CheckpointError, TrackingError: one sentence that a person can act on.
    """
    from matwm.checkpoint import MANIFEST, read_manifest
    from matwm.config import ConfigError
    from matwm.params_yaml import read_params
    from pipeline import project as places
    from pipeline import tracking
    from pipeline.catalog import numerics
    from pipeline.job import Job, open_start
    from pipeline.params.segments import resolve_all
    from pipeline.tracking.run_facts import restore_run_facts
    from pipeline.training.session import Session
    from pipeline.validate import missing_devices, refused_pushes, stale_numerics, validate

    launcher = tracking.configure(project)
    places.make_importable(project)
    is_stage = "DVC_STAGE" in os.environ  # DVC has called the stage `validate` by then.
    graph = resolve_all(read_params(project / places.PARAMS), project) if is_stage else validate(project)
    if name not in graph:
        raise places.ProjectError(f"params.yaml has no segment {name!r}: it has {', '.join(graph)}")
    chosen = {name: graph[name]}
    problems = [*missing_devices(chosen), *refused_pushes(project, chosen), *stale_numerics(project)]
    if is_stage and numerics.RETRAINS not in os.environ:  # The stage `validate` has refused, unless somebody called this one alone.
        found = numerics.of_other_numerics(project, graph)
        problems += numerics.refusal({name: found[name]}) if name in found else []
    if problems:
        raise ConfigError(problems)
    origin = graph[name].origin
    if origin.segment and (project / origin.folder / MANIFEST).is_file():
        restore_run_facts(project, origin.segment, read_manifest(project / origin.folder))
    # What has stopped early may not do so by the rule of now: its evaluations are asked again.
    segment = graph[name].planned or graph[name]
    job = Job(project, segment, open_start(project, segment, graph), launcher)
    if places.run_record(project, name).get("key") not in (None, job.key):
        (places.metrics_folder(project, name) / "run.json").unlink()  # Of an earlier training, whose checkpoints DVC has removed.
    with exclusive(job.work / "lock", f"segment {name}"), interruption.deferred():
        return _run(Session(job), interruption)


def _run(session: "Session", interruption: Interruption) -> int:
    from matwm.readings import NonFiniteLossError
    from pipeline.notify import notify
    from pipeline.tracking.heartbeat import EXIT_CODE, OwnedError
    from pipeline.training.saving import UnsavedError

    try:
        with interruption.prompt():
            session.open()
        is_complete = session.train(interruption)
        if is_complete:
            session.publish()
    except OwnedError as error:
        session.leave()
        sys.stderr.write(f"segment {session.segment.name}: {error}; {session.last_good()}\n")
        if note := os.environ.get(OWNED_NOTE):
            Path(note).touch()
        return EXIT_CODE
    except (NonFiniteLossError, UnsavedError) as error:
        is_killed = isinstance(error, UnsavedError) and interruption.signal is not None
        session.close("KILLED" if is_killed else "FAILED", interruption)
        sentence = f"segment {session.segment.name}: {error}; {session.last_good()}"
        sys.stderr.write(f"{sentence}\n")
        if isinstance(error, NonFiniteLossError):
            session.note_divergence()
        if not is_killed:
            what = "diverged" if isinstance(error, NonFiniteLossError) else "failed"
            notify(session.config.tracking.notify, what, {**session.facts(), "sentence": sentence})
        return interruption.exit_code if is_killed else 1
    except SystemExit:  # a signal, while there was nothing to save
        session.close("KILLED", interruption)
        sys.stderr.write(f"segment {session.segment.name} is interrupted before it trained: the same command goes on\n")
        raise
    except BaseException as error:
        session.close("FAILED", interruption)
        sentence = str(error).strip().split("\n")[0] or type(error).__name__
        notify(session.config.tracking.notify, "failed", {**session.facts(), "sentence": sentence})
        raise
    if is_complete:
        session.close("FINISHED", interruption)
        _say(session.contradiction())
        notify(session.config.tracking.notify, "finished", {**session.facts(), "sentence": session.contradiction()})
        # Also after a signal: all is trained and published, but DVC records only a stage that exits with 0. What a signal cuts
        # short is the telling of MLflow, and the next command sends the rest.
        return 0
    session.close("KILLED", interruption)
    sys.stderr.write(f"segment {session.segment.name} is interrupted; {session.last_good()}: the same command goes on from there\n")
    _say(session.contradiction())
    return interruption.exit_code


def _say(sentence: str | None) -> None:
    if sentence:
        sys.stderr.write(f"{sentence}\n")


def main(arguments: list[str] | None = None) -> int:
    """Run the stage for the segment named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.train", description="Train one segment of params.yaml.")
    parser.add_argument("segment", help="its name, for example s00")
    name = parser.parse_args(arguments).segment
    follow_parent()
    keep_freed_memory()
    with Interruption() as interruption:
        from pipeline.project import root

        return run_program(lambda: train(root(), name, interruption))


if __name__ == "__main__":
    leave(main())
