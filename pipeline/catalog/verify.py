"""Walks from a checkpoint back to the root and compares every byte, parent and record on the way.

What is read at each checkpoint, newest first: all files against the manifest, the manifest against the digest that the child
claims, the numerics version, the parent that the segment's other checkpoints name, the segment key, DVC's listing, MLflow's copy; of the
checkpoint that was asked for, also every metric point against MLflow's.
Then for the run: what git, DVC's lock and MLflow record of it. The first thing that is wrong ends the walk.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from matwm.checkpoint import Checkpoint, CheckpointError, is_root, open_checkpoint
from matwm.config import ConfigError
from matwm.errors import UserError
from matwm.history import Point
from matwm.manifest import MANIFEST, ROOT, Parent
from matwm.params_yaml import read_params
from matwm.version import NUMERICS
from pipeline import project as places
from pipeline import runs
from pipeline.catalog.checkpoints import Checkpoints, Copy, Target
from pipeline.catalog.recorded import LockedStage, check_commit, check_import
from pipeline.keys import manifest_key
from pipeline.metrics import records
from pipeline.metrics.points import curves_of
from pipeline.run import Run, git_of
from pipeline.runs import TrackingError
from pipeline.stores.folder_hash import md5s_of, tree_of
from pipeline.stores.folders import FolderStore, ImportedStore, PublishedStore
from pipeline.tracking.difference import difference


class WrongError(UserError):
    """The first thing that is wrong; the message is one sentence that names it."""


@dataclass(frozen=True)
class Sound:
    """A checkpoint with which nothing is wrong."""

    segment: str | None
    run_id: str | None
    step: int
    digest: str
    fingerprint: str
    bytes: int
    place: str
    kind: str


@dataclass
class Report:
    """What a verification found."""

    sound: list[Sound] = field(default_factory=list)
    """From the checkpoint that was asked for back to the root."""
    warnings: list[str] = field(default_factory=list)
    wrong: str | None = None
    """The first thing that is wrong, None if nothing is."""
    opened: dict[str, Checkpoint] = field(default_factory=dict)
    """The sound checkpoints by digest."""

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"wrong": self.wrong, "warnings": self.warnings, "checkpoints": [asdict(one) for one in self.sound]}


@dataclass(frozen=True)
class Claim:
    """What a child says of the checkpoint that it began with."""

    child: str
    parent: Parent
    folder: str | None
    md5: str | None
    """What dvc.lock has for `folder`, None if it has nothing."""


def verify(
    checkpoints: Checkpoints, text: str, scratch: Path, on_sound: Callable[[Sound], None] = lambda sound: None
) -> tuple[Report, Target | None]:
    """Verify the checkpoint that `text` names and all that it comes from; `on_sound` is called with each that is sound.

    Raises:
        ProjectError: `text` names nothing.
        TrackingError: MLflow, which would have to say what it names, does not answer.
    """
    walk = _Walk(checkpoints, scratch, on_sound)
    target = None
    try:
        target = checkpoints.target(text)
        walk.back_from(target)
    except (UserError, OSError) as error:
        if target is None and not isinstance(error, CheckpointError):
            raise  # The reference stands for nothing.
        walk.report.wrong = str(error)
    walk.report.warnings = list(dict.fromkeys([*checkpoints.catalog.trouble, *walk.report.warnings]))
    return walk.report, target


class _Walk:
    def __init__(self, checkpoints: Checkpoints, scratch: Path, on_sound: Callable[[Sound], None]) -> None:
        self.checkpoints, self.catalog, self.project = checkpoints, checkpoints.catalog, checkpoints.project
        self.scratch, self.report, self._on_sound = scratch, Report(), on_sound
        self._witnesses: dict[str, str] = {}
        self._stages: dict[str, LockedStage] = {}

    def back_from(self, target: Target) -> None:
        """Verify a checkpoint and everything before it."""
        run, step, copy, claim = target.run, target.step, next(iter(target.copies), None), None
        while True:
            copy = copy or self._located(run, step, claim)
            newest = self._checkpoint(run, step, copy, claim)
            run = run or self.checkpoints.maker(newest.manifest, newest.path)
            if claim is None and run is not None and run.status is not None and run.run_id:
                self._points(run.run_id, newest)
            self._earlier(run, newest, copy)
            claim = self._claim(run, newest)
            if run is not None and run.is_recorded:
                self._run(run, newest)
            if claim.parent.step == 0:
                self._root(claim)
                break
            if claim.parent.step >= newest.step:
                raise WrongError(f"{newest.path} is of step {newest.step} and says that it began at step {claim.parent.step}")
            run, step, copy = self.catalog.parent(run) if run else None, claim.parent.step, None
        asked = self.report.sound[0]
        if asked.digest not in self._witnesses:
            what = f"nothing but the checkpoint itself ({asked.place}) says that it is what was trained"
            self.report.warnings.append(f"{what}: neither dvc.lock nor another copy in MLflow does")

    def _located(self, run: Run | None, step: int, claim: Claim | None) -> Copy:
        """Return where the checkpoint lies; of an ancestor, one elsewhere counts too if the digest is that which the child claims."""
        there = self.checkpoints.copies(run, step) if run else []
        found = next(iter(there), None)
        if found is None and claim is not None:
            found = next(self.checkpoints.by_digest(step, claim.parent.digest), None)
        if found is not None:
            return found
        who = f"step {step} of {run.name}" if run else f"step {step}, digest {claim.parent.digest[:12] if claim else ''}"
        needed = f", with which {claim.child} began," if claim else ""
        raise WrongError(f"the checkpoint of {who}{needed} is not here: {self._way_out(run, step)}")

    def _way_out(self, run: Run | None, step: int) -> str:
        pointer = f"imports/{run.run_id}/{places.step_folder(step)}.dvc" if run and run.run_id else None
        if pointer and (self.project / pointer).is_file():
            return f'run "dvc pull {pointer}"'
        if run and run.published:
            return 'run "dvc pull"'
        asked = "; ".join(self.catalog.trouble) or "no published, imported or work folder has it, and MLflow does not either"
        return f'{asked}. "dvc pull" brings what a DVC remote has'

    def _checkpoint(self, run: Run | None, step: int, copy: Copy, claim: Claim | None) -> Checkpoint:
        """Verify one checkpoint where it lies."""
        found = copy.manifest()
        if claim is not None and found.digest != claim.parent.digest:
            raise WrongError(
                f"{copy} is not the checkpoint that {claim.child} began with: its digest is {found.digest}, expected {claim.parent.digest}"
            )
        path = copy.whole(self.scratch)
        checkpoint = open_checkpoint(path)
        if checkpoint.step != step or places.step_of(path) not in (None, step):
            raise WrongError(f"{path} holds a checkpoint of step {checkpoint.step}: it was renamed or replaced")
        if checkpoint.manifest["numerics"] != NUMERICS:
            before = checkpoint.manifest["numerics"]
            self.report.warnings.append(f"{run.name if run else path} was trained by NUMERICS {before}, this code has {NUMERICS}")
        self._key(run, checkpoint)
        self._dvc(checkpoint, copy, claim)
        self._other_copies(run, checkpoint, copy)
        segment, run_id = (run.segment, run.run_id) if run else (None, None)
        shown = self._shown(path) if copy.path else str(copy)
        sound = Sound(segment, run_id, step, checkpoint.digest, checkpoint.fingerprint, checkpoint.total_bytes, shown, copy.kind)
        self.report.sound.append(sound)
        self.report.opened[sound.digest] = checkpoint
        self._on_sound(sound)
        return checkpoint

    def _earlier(self, run: Run | None, newest: Checkpoint, copy: Copy) -> None:
        """Verify the same run's earlier checkpoints in the same place: they must name the same parent."""
        if copy.store is None or run is None:
            return
        for step in reversed([step for step in copy.store.steps(run) if step < newest.step]):
            path = copy.store.folder(run, step)
            if path is None:
                continue  # It lies on a server, from which only ancestors are fetched.
            earlier = self._checkpoint(run, step, Copy(copy.store, run, step, path), None)
            if earlier.parent != newest.parent:
                raise WrongError(
                    f"{path} began with step {earlier.parent.step}, digest {earlier.parent.digest[:12]}, "
                    f"but {newest.path.name} of the same segment with step {newest.parent.step}, digest {newest.parent.digest[:12]}"
                )

    def _key(self, run: Run | None, checkpoint: Checkpoint) -> None:
        key = manifest_key(checkpoint.manifest)
        if run and run.key and key != run.key:
            where = _record_of(run) or "its work directory or MLflow"
            raise WrongError(f"{checkpoint.path} is not of {run.name}: its manifest gives the key {key[:12]}, {where} has {run.key[:12]}")

    def _dvc(self, checkpoint: Checkpoint, copy: Copy, claim: Claim | None) -> None:
        """Compare a published or imported checkpoint with what DVC has recorded."""
        path = _placed(checkpoint.path)
        kind = type(copy.store) if copy.store else self._kind(path)
        if kind not in (PublishedStore, ImportedStore):
            return
        md5s = md5s_of(path)
        if kind is ImportedStore:
            check_import(self.project, self._shown(path), md5s)
            self._witnesses[checkpoint.digest] = f"{self._shown(path)}.dvc"
        else:
            stage = self._stage(places.segment_of(self.project.resolve(), path.parent))
            stage.check_step(checkpoint.step, md5s)
            if stage.is_recorded:
                self._witnesses[checkpoint.digest] = "dvc.lock"
        if claim is not None and claim.md5 and claim.folder == self._shown(path) and (found := tree_of(md5s)[0]) != claim.md5:
            raise WrongError(f"{claim.folder} has the md5 {found}, dvc.lock says that {claim.child} began with {claim.md5}")

    def _stage(self, segment: str) -> LockedStage:
        """Return what dvc.lock says of a segment, read once in a walk: the file grows with the project."""
        if segment not in self._stages:
            self._stages[segment] = LockedStage(self.project, segment)
        return self._stages[segment]

    @cached_property
    def _params(self) -> dict[str, Any]:
        """What params.yaml says, read once in a walk: it grows with the lineage."""
        return read_params(self.project / places.PARAMS)

    def _kind(self, path: Path) -> type[FolderStore] | None:
        for kind, folder in ((PublishedStore, "checkpoints"), (ImportedStore, "imports")):
            if (self.project / folder).resolve() in path.parents:
                return kind
        return None

    def _other_copies(self, run: Run | None, checkpoint: Checkpoint, copy: Copy) -> None:
        """Compare with the copies of witnesses (see `CheckpointStore`) that are not what was just read."""
        copies = self.checkpoints.copies(run, checkpoint.step) if run else []
        for other in copies:
            if other.store is None or not other.store.is_witness or other == copy:
                continue
            name = other.store.name
            try:
                theirs = other.manifest()
            except UserError as error:
                self.report.warnings.append(f"{name}'s copy cannot be compared: {error}")
                continue
            if theirs.digest != checkpoint.digest:
                what = f"{self._shown(checkpoint.path)} is not the checkpoint that {name} has ({other})"
                raise WrongError(f"{what}: digest {checkpoint.digest}, there {theirs.digest}")
            if not theirs.path.joinpath(MANIFEST).samefile(checkpoint.path / MANIFEST):
                self._witnesses[checkpoint.digest] = name

    def _run(self, run: Run, newest: Checkpoint) -> None:
        """Compare what git, DVC's lock and MLflow record of a run with its checkpoints."""
        record, tags = _record_of(run), run.tags
        if record and run.record.get("key") != run.key:
            raise WrongError(f"{record} says that {run.name} has the key {run.record.get('key')}, its checkpoints have {run.key}")
        if run.parent_digest not in (None, newest.parent.digest):
            raise WrongError(
                f"{record or 'MLflow'} says that {run.name} began with the digest {run.parent_digest}, "
                f"its checkpoints with {newest.parent.digest}"
            )
        if (tagged := tags.get("matwm.parent_digest")) not in (None, newest.parent.digest):
            raise WrongError(
                f"MLflow's tags say that {run.name} began with the digest {tagged}, its checkpoints with {newest.parent.digest}"
            )
        if (tagged := tags.get("matwm.key")) not in (None, run.key):
            where = record or (self._shown(run.work) if run.work else "MLflow")
            raise WrongError(f"MLflow's tags give {run.name} the key {tagged}, {where} {run.key}")
        commit, tagged = (found.get("commit") for found in (run.git, git_of(tags)))
        if record and tagged not in (None, commit):
            raise WrongError(f"{record} says that {run.name} was trained on the commit {commit}, MLflow's tags say {tagged}")
        self._lock(run, newest.manifest["numerics"])
        self.report.warnings += check_commit(self.project, run.git, run.name)
        above = self.catalog.parent(run)
        if above and above.is_recorded:
            self._drift(above, run)

    def _points(self, run_id: str, checkpoint: Checkpoint) -> None:
        """Compare the whole curves with MLflow's, which has each point once."""
        mine = [Point(key, step, value) for (key, step), value in curves_of(checkpoint.history(), checkpoint.spec.agents).items()]
        try:
            self.report.warnings += difference(mine, runs.metric_history(run_id)).sentences(run_id)
        except TrackingError as error:
            self.report.warnings.append(f"MLflow's curves cannot be compared: {error}")

    def _lock(self, run: Run, numerics: int) -> None:
        stage = self._stage(str(run.segment))
        try:
            params = self._params
        except ConfigError as error:
            if run.published and stage.is_recorded:
                stage.check()
                raise WrongError(f"{error.problems[0]}: it cannot be compared with dvc.lock") from None
            return
        if not run.published:
            # Without its run.json a run is not known to be the published one, but the lock knows what was trained with these parameters.
            if run.is_current and stage.describes(params):
                raise WrongError(
                    f"metrics/{run.segment}/run.json is missing or is of another training, though dvc.lock has {run.name}: "
                    '"git checkout" or "matwm repro" brings it back'
                )
            return
        if not stage.is_recorded:
            self.report.warnings.append(f'dvc.lock has nothing of {run.name}: it was not trained by "dvc repro"')
            return
        stage.check()
        if run.segment in self.catalog.params.entries:
            stage.check_params(params, numerics)
        else:
            self.report.warnings.append(f"params.yaml has no segment {run.segment} any more")

    def _drift(self, parent: Run, child: Run) -> None:
        found = records.drifted(parent.machine, child.machine)
        before, after = parent.git.get("code"), child.git.get("code")
        if before and after and before != after:
            found.append(f"code {str(before)[:12]}, now {str(after)[:12]}")
        if found:
            self.report.warnings.append(f"{child.name} was not trained as its parent {parent.name} was: {'; '.join(found)}")

    def _claim(self, run: Run | None, newest: Checkpoint) -> Claim:
        planned = self.catalog.planned(run) if run else None
        folder = planned.origin.folder if planned and planned.origin.step == newest.parent.step else None
        md5 = self._stage(str(run.segment)).dependency(folder) if folder and run and run.published else None
        return Claim(run.name if run else str(newest.path), newest.parent, folder, md5)

    def _root(self, claim: Claim) -> None:
        if claim.parent.digest != ROOT.digest:
            raise WrongError(f"{claim.child} began with a root of the digest {claim.parent.digest}, expected {ROOT.digest}")
        folder = self.project / places.ROOT_CHECKPOINT
        if not is_root(folder):
            raise WrongError(f"{places.ROOT_CHECKPOINT} is not the root of all lineages: restore it from git")
        sound = Sound(None, None, 0, ROOT.digest, "", (folder / "manifest.json").stat().st_size, places.ROOT_CHECKPOINT, "root")
        self.report.sound.append(sound)
        self._on_sound(sound)

    def _shown(self, path: Path) -> str:
        own, project = _placed(path), self.project.resolve()
        return own.relative_to(project).as_posix() if own.is_relative_to(project) else str(own)


def _record_of(run: Run) -> str | None:
    """Return the name of the run's file in git, if it has one."""
    return f"metrics/{run.segment}/run.json" if run.published else None


def _placed(path: Path) -> Path:
    """Return a path without links above its last part."""
    return path.parent.resolve() / path.name
