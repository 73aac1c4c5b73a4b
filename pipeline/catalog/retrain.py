"""Trains the interval before a checkpoint again and says whether the same comes out."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from matwm.checkpoint import Checkpoint, CheckpointError, fingerprint_of, open_checkpoint
from matwm.config import Config, ConfigError
from matwm.errors import UserError
from matwm.params_yaml import restored_config
from matwm.readings import NonFiniteLossError
from matwm.stateful import Value, fingerprint
from matwm.trainer import Trainer, build_trainer
from pipeline import project as places
from pipeline import source_code
from pipeline.catalog.checkpoints import Checkpoints
from pipeline.keys import manifest_key
from pipeline.metrics import records
from pipeline.project import ProjectError
from pipeline.run import Run

MOST_SHOWN = 20


@dataclass(frozen=True)
class Retrained:
    """What training an interval again came to."""

    from_step: int
    from_place: str
    step: int
    is_equal: bool
    differences: list[str]
    """The state that differs, by part and name, and by how much."""
    hints: list[str]
    """What was otherwise when it was trained: why it may differ."""

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def retrain(
    checkpoints: Checkpoints,
    run: Run | None,
    checkpoint: Checkpoint,
    parent: Checkpoint | None,
    scratch: Path,
    on_begin: Callable[[str], None] = lambda sentence: None,
) -> Retrained:
    """Train from the checkpoint before it (of the same run, else its parent, else from scratch) and compare every bit.

    `parent` is what its segment began with, None for the root.

    Raises:
        ProjectError: this code or machine cannot train with the checkpoint's configuration.
    """
    before = _before(checkpoints, run, checkpoint, scratch) or parent
    from_step, from_place = (before.step, str(before.path)) if before else (0, places.ROOT_CHECKPOINT)
    config = _config(checkpoint)
    on_begin(f"training again from step {from_step} to step {checkpoint.step}")
    with contextlib.ExitStack() as opened:
        try:
            trainer = opened.enter_context(contextlib.closing(build_trainer(config)))
            if before is not None:
                trainer.resume(before)
            while trainer.env_step < checkpoint.step:
                trainer.step()
                trainer.drain()
        except NonFiniteLossError as error:
            differences = [f"training again fails: {error}"]
        except CheckpointError:
            raise
        except ValueError as error:
            raise ProjectError(f"{checkpoint.path} cannot be trained again here: {error}") from error
        else:
            differences = _differences(checkpoint, trainer)
    hints = _hints(run, config) if differences else []
    if differences and checkpoint.spec.resume == "episode":
        hints.append(f"{checkpoint.spec.name} cannot be brought back within an episode: what is resumed is continued, not reproduced")
    return Retrained(from_step, from_place, checkpoint.step, not differences, differences, hints)


def _before(checkpoints: Checkpoints, run: Run | None, checkpoint: Checkpoint, scratch: Path) -> Checkpoint | None:
    """Return the newest sound checkpoint of the same training before this one, wherever it lies."""
    steps = checkpoints.steps(run) if run else places.steps_in(checkpoint.path.absolute().parent)
    for step in reversed([step for step in steps if checkpoint.parent.step < step < checkpoint.step]):
        folders = [copy.whole for copy in checkpoints.copies(run, step)] if run else []
        beside = checkpoint.path.with_name(places.step_folder(step))
        for folder in [*folders, lambda _, beside=beside: beside]:
            try:
                found = open_checkpoint(folder(scratch))
            except UserError:
                continue
            if manifest_key(found.manifest) == manifest_key(checkpoint.manifest) and found.step == step:
                return found
    return None


def _config(checkpoint: Checkpoint) -> Config:
    """Return the checkpoint's own values; those that shape no training come from a preset."""
    try:
        return restored_config(checkpoint.config, source=str(checkpoint.path / "manifest.json"))
    except ConfigError as error:
        why = "; ".join(error.problems)
        raise ProjectError(f"{checkpoint.path} holds a configuration that this version does not know: {why}") from None


def _differences(checkpoint: Checkpoint, trainer: Trainer) -> list[str]:
    expected, found = checkpoint.load(), trainer.parts()
    if fingerprint_of(found) == checkpoint.fingerprint and _same(expected["history"], found["history"]):
        return []
    differences = list(_walk(expected, found, ""))
    rest = len(differences) - MOST_SHOWN
    return differences[:MOST_SHOWN] + ([f"and {rest} more"] if rest > 0 else [])


def _walk(expected: Value, found: Value, path: str) -> Iterator[str]:
    """Yield a sentence for everything in two states that is not the same."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key in [*expected, *(key for key in found if key not in expected)]:
            below = f"{path}/{key}" if path else str(key)
            if key not in found or key not in expected:
                yield f"{below} is only in {'the checkpoint' if key in expected else 'what was trained again'}"
            else:
                yield from _walk(expected[key], found[key], below)
    elif isinstance(expected, list | tuple) and isinstance(found, list | tuple) and len(expected) == len(found):
        for number, (old, new) in enumerate(zip(expected, found, strict=True)):
            yield from _walk(old, new, f"{path}/{number}")
    elif not _same(expected, found):
        yield f"{path} differs{_how_much(expected, found)}"


def _same(expected: Value, found: Value) -> bool:
    return fingerprint({"value": {"value": expected}}) == fingerprint({"value": {"value": found}})


def _how_much(expected: Value, found: Value) -> str:
    if not (isinstance(expected, Tensor) and isinstance(found, Tensor)):
        plain = (bool, int, float, str, type(None))
        return f": {expected!r}, trained again {found!r}" if isinstance(expected, plain) and isinstance(found, plain) else ""
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return f": {expected.dtype} {list(expected.shape)}, trained again {found.dtype} {list(found.shape)}"
    difference = (expected.cpu().double() - found.detach().cpu().double()).abs()
    return f": {int((difference != 0).sum())} of {expected.numel()} entries, by up to {float(difference.max()):.3g}"


def _hints(run: Run | None, config: Config) -> list[str]:
    """Say what was otherwise when the checkpoint was trained."""
    if run is None or not run.machine:
        return ["nobody here recorded with which libraries and on which device it was trained"]
    hints = records.drifted(run.machine, records.machine_facts(config.run.device, config.run.threads))
    if (code := run.git.get("code")) not in (None, source_code.code_digest()):
        hints.append(f"code {str(code)[:12]}, now {source_code.code_digest()[:12]}")
    return [f"it was trained with {hint}" for hint in hints] or ["libraries, device, threads and code are those that it was trained with"]
