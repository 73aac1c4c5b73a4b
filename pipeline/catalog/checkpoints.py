"""Looks through the stores of a project: where the checkpoints of runs lie, and which one a person means."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matwm.checkpoint import Checkpoint, CheckpointError, open_checkpoint, read_manifest
from matwm.errors import UserError
from matwm.manifest import MANIFEST
from pipeline.catalog.catalog import Catalog
from pipeline.catalog.references import chosen_step, split_reference
from pipeline.keys import manifest_key
from pipeline.project import ProjectError
from pipeline.run import Run
from pipeline.stores.protocol import CheckpointStore, ForeignError, HasFolders, is_of, opened, pulled
from pipeline.stores.table import commonly_asked

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Copy:
    """One copy of a checkpoint: in a store, or in a folder that somebody named."""

    store: CheckpointStore | None
    run: Run | None
    step: int
    path: Path | None
    """Its folder; None if it lies on a server."""

    @property
    def kind(self) -> str:
        """The kind of its store (see `stores/table.py`), `folder` if it is in none."""
        return self.store.kind if self.store else "folder"

    def __str__(self) -> str:
        return str(self.path or f"{self.store and self.store.name}, run {self.run and self.run.run_id}, step {self.step}")

    def manifest(self) -> Checkpoint:
        """Return the checkpoint with its manifest verified; of one on a server, only the manifest is brought.

        Raises:
            CheckpointError, TrackingError: it is damaged, or cannot be had.
        """
        if self.path:
            return read_manifest(self.path)
        assert self.store
        assert self.run
        return self.store.open(self.run, self.step)

    def whole(self, scratch: Path) -> Path:
        """Return its folder; one on a server is brought to `scratch`, every byte verified.

        Raises:
            CheckpointError, TrackingError: it is damaged, or cannot be had.
        """
        if self.path:
            return self.path
        assert self.store
        assert self.run
        return self.store.pull(self.run, self.step, scratch / self.run.id).path


@dataclass(frozen=True)
class Target:
    """A checkpoint that somebody named."""

    run: Run | None
    """The run that made it, None if nothing here says which."""
    step: int
    copies: tuple[Copy, ...]
    """Where it lies, the first being meant; empty if it is known and not to be had."""

    def first(self) -> Copy:
        """Return the copy that is meant: the first, unless it is another training's and there are more.

        Raises:
            ProjectError: there is none.
            CheckpointError, TrackingError: its manifest is damaged, or cannot be had; or all are of other trainings.
        """
        if not self.copies:
            who = self.run.name if self.run else "the run"
            raise ProjectError(f'the checkpoint of step {self.step} of {who} is not here: run "dvc pull"')
        wrong: list[CheckpointError] = []
        for copy in self.copies:
            try:
                if self.run and copy.store:
                    opened(copy.store, self.run, self.step)
                return copy
            except CheckpointError as error:
                if not wrong and not isinstance(error, ForeignError):
                    raise
                logger.warning("%s", error)
                wrong.append(error)
        raise wrong[0]


class Checkpoints:
    """The checkpoints in the stores that commands look into. What a store lists is asked once a run.

    That MLflow does not answer is noted in the catalog, unless `is_strict`: then it is raised.
    """

    def __init__(self, catalog: Catalog, stores: Iterable[CheckpointStore] | None = None, *, is_strict: bool = False) -> None:
        self.catalog, self.project, self._is_strict = catalog, catalog.project, is_strict
        self.stores = commonly_asked(catalog.project) if stores is None else list(stores)
        self._listed: dict[str, dict[int, list[CheckpointStore]]] = {}
        self._manifests: dict[tuple[str, int], Checkpoint | CheckpointError] = {}

    def where(self, run: Run) -> dict[int, list[CheckpointStore]]:
        """Return every step of a run that has a checkpoint with the stores that have it, ascending."""
        if run.id not in self._listed:
            found: dict[int, list[CheckpointStore]] = {}
            for store in self.stores:
                try:
                    for step in store.steps(run):
                        found.setdefault(step, []).append(store)
                except UserError as error:
                    if self._is_strict:
                        raise
                    self.catalog.note(str(error))
            self._listed[run.id] = dict(sorted(found.items()))
        return self._listed[run.id]

    def steps(self, run: Run) -> list[int]:
        """Return the steps of a run that have a checkpoint somewhere, or had one that git records; ascending."""
        recorded = [run.step] if run.published and run.step else []
        return sorted({*self.where(run), *recorded})

    def copies(self, run: Run, step: int) -> list[Copy]:
        """Return where a run's checkpoint of a step lies, the published one first."""
        listed = self.where(run).get(step, [])
        return [Copy(store, run, step, path) for store in self.stores if (path := store.folder(run, step)) or store in listed]

    def manifest(self, run: Run, step: int) -> Checkpoint | CheckpointError:
        """Return a step's checkpoint with its manifest verified, or what is wrong with the first of its copies if none is the run's."""
        key = (run.id, step)
        if key not in self._manifests:
            wrong: list[CheckpointError] = []
            for store in self.where(run)[step]:
                try:
                    self._manifests[key] = opened(store, run, step)
                    break
                except CheckpointError as error:
                    wrong.append(error)
            else:
                self._manifests[key] = wrong[0]
        return self._manifests[key]

    def is_foreign(self, run: Run, step: int) -> bool:
        """Return whether a copy on this machine, or the only one there is, is of another training or step."""
        if isinstance(self.manifest(run, step), ForeignError):
            return True
        for store in self.where(run)[step]:
            if store.folder(run, step):
                try:
                    opened(store, run, step)
                except ForeignError:
                    return True
                except CheckpointError:
                    continue
        return False

    def sound(self, run: Run, step: int, scratch: Path) -> Checkpoint | None:
        """Return a step's checkpoint, verified, from the first store where it is sound; `scratch` gets what is brought from a server."""
        for copy in self.copies(run, step):
            try:
                checkpoint = open_checkpoint(copy.whole(scratch))
                if is_of(checkpoint, run, step):
                    return checkpoint
                raise ForeignError(copy.store, run, step, checkpoint)
            except CheckpointError as error:
                logger.warning("%s", error)
        return None

    def bring(self, run: Run, step: int, target_dir: Path) -> tuple[Checkpoint, CheckpointStore]:
        """Pull a run's checkpoint from the first store that has a sound one; return that, too.

        Raises:
            CheckpointError, TrackingError: none is sound, or none can be had; what is wrong with the first is said.
        """
        wrong: list[Exception] = []
        for store in self.where(run).get(step, []):
            try:
                return pulled(store, run, step, target_dir), store
            except UserError as error:
                wrong.append(error)
        raise wrong[0] if wrong else ProjectError(f'the checkpoint of step {step} of {run.name} is not here: run "dvc pull"')

    def by_digest(self, step: int, digest: str) -> Iterator[Copy]:
        """Yield the folders here that hold the checkpoint with a digest, whoever made it."""
        for store in self.stores:
            for path in store.with_step(step) if isinstance(store, HasFolders) else ():
                try:
                    if read_manifest(path).digest == digest:
                        yield Copy(store, None, step, path)
                except CheckpointError:
                    continue

    def target(self, text: str) -> Target:
        """Return the checkpoint that RUN, RUN@STEP, SEGMENT, SEGMENT@STEP (a number, latest or final) or a folder stands for.

        Raises:
            ProjectError: there is no such run or step; the message names what there is.
            CheckpointError: the folder holds no checkpoint, or its manifest is damaged.
        """
        if is_folder(text) and (os.sep in text or (Path(text) / MANIFEST).is_file()):
            checkpoint = read_manifest(Path(os.path.abspath(text)))  # noqa: PTH100  # a link stays a link
            return Target(
                self.maker(checkpoint.manifest, checkpoint.path), checkpoint.step, (Copy(None, None, checkpoint.step, checkpoint.path),)
            )
        name, wanted = split_reference(text)
        run = self.catalog.find(name)
        step = self.chosen(run, wanted)
        return Target(run, step, tuple(self.copies(run, step)))

    def named(self, text: str) -> tuple[Run, str]:
        """Return the run of a reference, and which of its steps is meant (see `chosen`); a folder stands for the run that made it.

        Raises:
            ProjectError: there is no such run, or nothing here says which made the folder.
            CheckpointError: the folder's manifest is damaged.
        """
        if is_folder(text) and (Path(text) / MANIFEST).is_file():
            target = self.target(os.path.join(text, ""))  # noqa: PTH118  # with a slash: a folder, not a segment of that name
            if target.run is None:
                raise ProjectError(f"{text} holds step {target.step} of a run that nothing here knows: fetch its MLflow run or git commit")
            return target.run, str(target.step)
        name, wanted = split_reference(text)
        return self.catalog.find(name), wanted

    def chosen(self, run: Run, wanted: str) -> int:
        """Return a step that a run has: a number, `latest`, or `final` for the end of a finished run.

        Raises:
            ProjectError: it has no such step; the message names those it has.
        """
        return chosen_step(wanted, self.steps(run), run.name, run.state)

    def maker(self, manifest: Mapping[str, Any], path: Path | None = None) -> Run | None:
        """Return the run whose segment key a manifest gives, of several the one whose folder it lies in."""
        key, own = manifest_key(manifest), path.parent.resolve() if path else None
        made = [run for run in self.catalog.lineage.runs.values() if run.is_recorded and run.key == key]
        homes = [store.home for store in self.stores if isinstance(store, HasFolders)]
        inside = [run for run in made if own in {folder.resolve() for home in homes if (folder := home(run))}]
        return next(iter([*inside, *(run for run in made if run.is_current), *made]), None)


def is_folder(text: str) -> bool:
    """Return whether somebody named a folder; what is too long for a name is none."""
    return os.path.isdir(text)  # noqa: PTH112  # Path.is_dir raises there
