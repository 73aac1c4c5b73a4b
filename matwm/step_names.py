"""Names the folder of a step's checkpoint, `step_000005000`, and reads such names: no other module knows what they look like."""

import re
from pathlib import Path

PATTERN = r"step_(?:\d{9}|[1-9]\d{9,})"
GLOB = "step_*"
"""Matches all such names, and others: `step_of` tells."""


def step_name(step: int) -> str:
    """Return the folder name of a step's checkpoint."""
    return f"step_{step:09d}"


def step_of(folder: str | Path) -> int | None:
    """Return the step that a checkpoint's folder is named after, None if it is no such name."""
    name = Path(folder).name
    return int(name.removeprefix("step_")) if re.fullmatch(PATTERN, name) else None


def steps_in(folder: Path, holding: str) -> list[int]:
    """Return the steps whose folders lie in a folder and hold a file of this name, ascending."""
    if not folder.is_dir():
        return []
    return sorted(step for child in folder.iterdir() if (step := step_of(child)) is not None and (child / holding).is_file())
