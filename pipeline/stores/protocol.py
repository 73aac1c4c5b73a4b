"""Says what a checkpoint store can do, and what only some can.

A store holds the checkpoints of runs by step. Only whole ones are ever seen in it: what was put half does not count.
`tests/pipeline/stores/test_contract.py` holds every store of `table.py` to what is said here.
"""

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, Self, runtime_checkable

from matwm.manifest import CheckpointError
from pipeline import project as places
from pipeline.keys import manifest_key
from pipeline.run import Run

if TYPE_CHECKING:  # torch: a helper process that only sends files does without.
    from matwm.checkpoint import Checkpoint


class CheckpointStore(Protocol):
    """Somewhere that checkpoints can be read from."""

    kind: ClassVar[str]
    """Its name in what commands print as JSON."""
    name: str
    """What people call it."""
    is_only_for_resume: ClassVar[bool]
    """Whether the commands which look at checkpoints leave it out: its bytes are DVC's to bring, or lie across a network."""
    may_block: ClassVar[bool]
    """Whether it may keep a process waiting: resume asks it last, for what nothing on this machine has, and not for ever."""
    needs_run_id: ClassVar[bool]
    """Whether it finds checkpoints by what MLflow says of a run, for which MLflow is asked first, and not by segment and key."""
    is_witness: ClassVar[bool]
    """Whether `verify` compares its copy with the one that it reads: whoever could write that could not write this one."""

    @classmethod
    def of(cls, project: Path) -> Self | None:
        """Return the store of a project, None if the project has none.

        Raises:
            UserError: its settings are wrong.
        """
        ...

    def steps(self, run: Run) -> list[int]:
        """Return the steps of a run's checkpoints, sound or not, ascending; none of a run that the store cannot know.

        A name proves nothing: `is_of` says whether a checkpoint that was opened or pulled is the run's.
        """
        ...

    def folder(self, run: Run, step: int) -> Path | None:
        """Return the folder of this machine that a checkpoint lies in, None if there is none."""
        ...

    def open(self, run: Run, step: int) -> "Checkpoint":
        """Return a checkpoint of which the manifest is verified; unless `folder` has it, nothing but the manifest is there to be read.

        Raises:
            CheckpointError: it is not there, or its manifest is damaged.
            UserError: the store does not answer.
        """
        ...

    def pull(self, run: Run, step: int, target_dir: Path, near: Sequence[Path] = ()) -> "Checkpoint":
        """Bring a checkpoint to `target_dir/step_…`, every byte verified; nothing is left there if that fails.

        Replay chunks that lie in the checkpoint folders `near` need not be fetched.

        Raises:
            CheckpointError: it is not there, or damaged; the file is named.
            UserError: the store does not answer.
        """
        ...


@runtime_checkable
class CanPut(CheckpointStore, Protocol):
    """A store that takes checkpoints."""

    def put(self, run: Run, checkpoint: Path) -> object:
        """Add a checkpoint; to repeat it changes nothing.

        Raises:
            CheckpointError, UserError: the folder is no sound checkpoint, another one of the step is there, or the store refuses.
        """
        ...


@runtime_checkable
class CanDelete(CheckpointStore, Protocol):
    """A store that gives checkpoints up."""

    def delete(self, run: Run, steps: Iterable[int], *, is_live: bool) -> None:
        """Remove checkpoints, each whole or not at all, and what an interrupted removal has left.

        `is_live` says whether a process trains the run, which may be in the midst of adding another; the caller looked before it locked it.

        Raises:
            UserError: the store does not answer, or these are not the project's to remove.
        """
        ...

    def refusal(self, run: Run) -> str | None:
        """Say why nothing may be removed of this run, None if it may."""
        ...

    def freed(self, run: Run, steps: Iterable[int]) -> int:
        """Return the bytes on a server that `delete` would free; those on this machine are the caller's to count, who knows the links."""
        ...


@runtime_checkable
class HasFolders(CheckpointStore, Protocol):
    """A store whose checkpoints lie in folders of this project, whichever run made them."""

    def home(self, run: Run) -> Path | None:
        """Return where a run's checkpoints lie, None if nowhere here."""
        ...

    def with_step(self, step: int) -> Iterable[Path]:
        """Return every folder that claims to be a checkpoint of a step."""
        ...


class ForeignError(CheckpointError):
    """What a store has as a run's checkpoint of a step is another training's, or another step's; `checkpoint` is what it is."""

    def __init__(self, store: CheckpointStore | None, run: Run, step: int, checkpoint: "Checkpoint") -> None:
        what = f"what {store.name if store else checkpoint.path} has as step {step} of {run.name if run.run_id else 'this segment'}"
        super().__init__(f"{what} is a checkpoint of another training")
        self.checkpoint = checkpoint


def is_of(checkpoint: "Checkpoint", run: Run, step: int) -> bool:
    """Return whether a checkpoint is of a training's step, as its own manifest says, so far as the run's key is known."""
    return checkpoint.step == step and run.key in (None, manifest_key(checkpoint.manifest))


def pulled(store: CheckpointStore, run: Run, step: int, target_dir: Path, near: Sequence[Path] = ()) -> "Checkpoint":
    """Pull a run's checkpoint from a store, and refuse another training's: neither its name nor its place proves anything.

    Raises:
        CheckpointError, UserError: as `CheckpointStore.pull`; or it is of another training, and nothing is left of it.
    """
    was_there = is_there(target_dir / places.step_folder(step))
    checkpoint = store.pull(run, step, target_dir, near)
    if not is_of(checkpoint, run, step):
        if not was_there:
            shutil.rmtree(checkpoint.path)
        raise ForeignError(store, run, step, checkpoint)
    return checkpoint


def opened(store: CheckpointStore, run: Run, step: int) -> "Checkpoint":
    """Open a run's checkpoint in a store, and refuse another training's.

    Raises:
        CheckpointError, UserError: as `CheckpointStore.open`; or it is of another training (`ForeignError`).
    """
    checkpoint = store.open(run, step)
    if not is_of(checkpoint, run, step):
        raise ForeignError(store, run, step, checkpoint)
    return checkpoint


def is_there(folder: Path) -> bool:
    """Return whether a folder claims to be a checkpoint."""
    return os.path.lexists(folder / "manifest.json")


def missing(run: Run, step: int, there: Sequence[int]) -> str:
    """Say that a store has no checkpoint of a step."""
    return f"run {run.id} has no checkpoint of step {step}; it has {places.named(there) or 'none'}"
