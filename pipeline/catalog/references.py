"""Reads what people type for a run and a step."""

import re
from collections.abc import Sequence

from matwm import step_names
from pipeline import project as places
from pipeline.project import ProjectError
from pipeline.run import NUMBER

REFERENCE = "RUN|SEGMENT[@STEP]"
FOLDER = re.compile(rf"(?:\./)?(?:checkpoints|imports)/([^/@]+)(?:/({step_names.PATTERN}))?/*")
REFERENCE_HELP = "beginning of a run's ID, or a segment; STEP is a number, latest (default) or final"


def split_reference(text: str) -> tuple[str, str]:
    """Return run and step of `RUN@STEP`; without a step it is the latest. A checkpoint's folder, here or not, stands for both.

    Raises:
        ProjectError: there is an @ and no step.
    """
    if found := FOLDER.fullmatch(text):
        return found[1], str(places.step_of(found[2])) if found[2] else "latest"
    run, at, step = text.partition("@")
    if at and not step:
        raise ProjectError(f"{text} has no step behind the @: write a number, latest or final, or {run or 'RUN'} alone for the latest")
    return run, step or "latest"


def whole_run(text: str) -> str:
    """Return a reference to a run as a whole; `checkpoints/SEGMENT/` is one.

    Raises:
        ProjectError: it names a step.
    """
    if (found := FOLDER.fullmatch(text)) and not found[2]:
        return found[1]
    run, at, _ = text.partition("@")
    if at or found:
        raise ProjectError(f"{text!r} names a step, and this takes a run without one: write {found[1] if found else run or 'RUN'}")
    return run


def chosen_step(wanted: str, steps: Sequence[int], who: str, state: str) -> int:
    """Return the step that a word stands for: a number, the name of its folder, `latest`, or `final` for the end of a finished run.

    `who` has checkpoints of these steps, ascending, and is in `state`.

    Raises:
        ProjectError: there is no such step; the message names those there are.
    """
    has = f"it has {places.named(steps) or 'no checkpoint'}"
    if wanted == "final" and state != "FINISHED":
        raise ProjectError(f"{who} is {state}, so it has no final step; {has}")
    if wanted in ("latest", "final"):
        if not steps:
            raise ProjectError(f"{who} has no checkpoint: it is {state}")
        return steps[-1]
    if (named := places.step_of(wanted.rstrip("/"))) is not None:
        wanted = str(named)
    if not NUMBER.fullmatch(wanted):
        raise ProjectError(f"{wanted!r} is no step: use a number, latest or final; {who}: {has}")
    if int(wanted) not in steps:
        raise ProjectError(f"{who} has no checkpoint of step {int(wanted)}; {has}")
    return int(wanted)
