#!/usr/bin/env python3
"""A Python for the stages that holds their training where the environment says, so that whoever kills it there need not be quick.

HOLD_AT: the environment step after which training waits while the file HOLD_WHILE is there; its other threads go on.
HOLD_IN: a part of a path; the thread that writes or links the HOLD_FILE-th file below such a folder waits for ever.
"""

import os
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def hold_at(step: int, sign: Path) -> None:
    """Have training wait after a step as long as there is a sign."""
    from matwm.trainer import Trainer

    take_step = Trainer.step

    def stepping(self: Trainer) -> None:
        while self.env_step == step and sign.exists():
            time.sleep(0.01)
        take_step(self)

    Trainer.step = stepping


def hold_in(part: str, number: int) -> None:
    """Have a file of a checkpoint never written: the number-th under a path with this part."""
    from matwm import durable

    seen: list[Path] = []

    def held(make: Callable[..., Any], place: int) -> Callable[..., Any]:
        def making(*arguments: Any) -> Any:
            if part in str(arguments[place]):
                seen.append(arguments[place])
                while len(seen) >= number:
                    time.sleep(1.0)
            return make(*arguments)

        return making

    durable.write, durable.link = held(durable.write, 0), held(durable.link, 1)


if __name__ == "__main__":
    _, _, module, *words = sys.argv  # as in `python -m module word word`
    sys.path[0], sys.argv = str(Path.cwd()), [module, *words]
    if module == "pipeline.train":
        if "HOLD_AT" in os.environ:
            hold_at(int(os.environ["HOLD_AT"]), Path(os.environ["HOLD_WHILE"]))
        if "HOLD_IN" in os.environ:
            hold_in(os.environ["HOLD_IN"], int(os.environ["HOLD_FILE"]))
    runpy.run_module(module, run_name="__main__", alter_sys=True)
