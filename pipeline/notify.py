"""Tells a command of the user's (`tracking.notify`) how a training or a sweep ended: JSON on its standard input."""

import json
import logging
import subprocess
from collections.abc import Mapping
from typing import Any, Literal

from pipeline.masking import masked

Event = Literal["finished", "failed", "diverged"]
PATIENCE_SECONDS = 30.0

logger = logging.getLogger(__name__)


def notify(command: str | None, event: Event, facts: Mapping[str, Any]) -> None:
    """Run the command, if there is one; what goes wrong with it is a warning, never the training's failure.

    It gets `{"event": ..., **facts}`, with users, passwords and tokens of addresses left out.
    """
    if not command:
        return
    shown = {key: masked(value) if isinstance(value, str) else value for key, value in facts.items()}
    text = json.dumps({"event": event, **shown}, ensure_ascii=False)
    try:
        done = subprocess.run(command, shell=True, input=text, text=True, capture_output=True, timeout=PATIENCE_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning(
            "tracking.notify: %s", error if isinstance(error, OSError) else f"no end after {PATIENCE_SECONDS:g} s: it is left alone"
        )
        return
    if done.returncode:
        said = (done.stderr or done.stdout).strip().split("\n")[-1][:200]
        logger.warning("tracking.notify: the command exited with %d%s", done.returncode, f": {said}" if said else "")
